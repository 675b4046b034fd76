"""The FastConformer encoder (https://arxiv.org/abs/2305.05084) for inference, with NeMo's parameter names.

B is the batch, T the encoder frames, D the width, H the attention heads and K = D / H the width of a head.
"""

import math
from collections.abc import Iterable

import torch
import torch.nn.functional as F  # noqa: N812 - as everybody does
from torch import Tensor, nn

from parakeet_worker.model.config import ModelConfig
from parakeet_worker.model.layers import Conv1d, Conv2d, Linear

# Longest pass whose position terms are kept, in encoder frames: 82 s, 100 MB for 0.6B in 16 bits. For a longer one they
# are computed in every pass, which is a twentieth of its work.
_KEPT_FRAMES = 1_024

# Added to the attention scores of what is beyond a recording's end: exp(-10000) is zero.
_EXCLUDED = -10_000.0


class Encoder(nn.Module):
    """Log-mel features to encoder frames."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.pre_encode = Subsampling(config)
        self._layers = [ConformerLayer(config) for _ in range(config.layers)]
        self.layers = nn.ModuleList(self._layers)
        self.input_scale = config.input_scale
        self.width = config.width
        self._positions: list[Tensor] = []
        self._position_frames = 0

    def prepare(self) -> None:
        """Fold what is constant in inference into the weights. Call it once, when they are loaded."""
        for layer in self._layers:
            layer.prepare()

    def forward(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Encode recordings.

        Args:
            features: (B, mels, mel frames), zero beyond each recording's end.
            lengths: (B,) int64, in mel frames.

        Returns:
            The encoder frames, (B, T, D), and their number, (B,) int64. Frames beyond a recording's end are arbitrary.
        """
        x, lengths = self.pre_encode(features, lengths)  # (B, T, D)
        if self.input_scale != 1:
            x = x * self.input_scale
        frames = x.shape[1]
        is_within = torch.arange(frames, device=x.device) < lengths[:, None]  # (B, T)
        keep = is_within[:, :, None].to(x.dtype)  # (B, T, 1)
        bias = torch.where(is_within, 0.0, _EXCLUDED).to(x.dtype)[:, None, None]  # (B, 1, 1, T)
        for layer, positions in zip(self._layers, self.position_terms(frames), strict=True):
            x = layer(x, positions, bias, keep)
        return x, lengths

    def position_terms(self, frames: int) -> Iterable[Tensor]:
        """Return each layer's projected positions, of shape (H, K, 2 * frames).

        The terms depend on nothing but the weights. They are computed for the next power of two, and kept.
        """
        if frames > self._position_frames:
            kept = max(128, 1 << (frames - 1).bit_length()) if frames <= _KEPT_FRAMES else frames
            parameter = next(self.parameters())
            positions = relative_positions(kept, self.width, parameter.device).to(parameter.dtype)
            terms = (layer.self_attn.project(positions) for layer in self._layers)
            if kept > _KEPT_FRAMES:
                return terms  # one layer's at a time: all of them would take 1.2 MB for each second of the pass
            self._positions, self._position_frames = list(terms), kept
        centre = self._position_frames
        return [terms[:, :, centre - frames : centre + frames] for terms in self._positions]


def relative_positions(frames: int, width: int, device: torch.device) -> Tensor:
    """Return sinusoidal encodings of the distances from `frames - 1` down to `-frames`: (2 * frames, width).

    https://arxiv.org/abs/1901.02860, appendix B, with NeMo's order: sines at even channels, cosines at odd ones. The
    last distance is between no two frames. It makes the number of them even, as matrix products in 16 bits want it.
    """
    distances = torch.arange(frames - 1, -frames - 1, -1, dtype=torch.float32, device=device)
    even = torch.arange(0, width, 2, dtype=torch.float32, device=device)
    angles = distances[:, None] * torch.exp(even * -(math.log(10_000.0) / width))
    return torch.stack((angles.sin(), angles.cos()), dim=-1).flatten(1)


class Subsampling(nn.Module):
    """Convolutions of stride two over time and frequency, the later ones depthwise and pointwise."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        channels, bins = config.subsampling_channels, config.mels
        steps = config.subsampling.bit_length() - 1
        modules: list[nn.Module] = [Conv2d(1, channels, 3, stride=2, padding=1), nn.ReLU(inplace=True)]
        for _ in range(steps - 1):
            modules += [
                Conv2d(channels, channels, 3, stride=2, padding=1, groups=channels),
                Conv2d(channels, channels, 1),
                nn.ReLU(inplace=True),
            ]
        for _ in range(steps):
            bins = (bins - 1) // 2 + 1
        self.conv = nn.Sequential(*modules)
        self.out = Linear(channels * bins, config.width)

    def forward(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Return the subsampled frames, (B, T, D), and their number, (B,), for features (B, mels, mel frames)."""
        x = features.transpose(1, 2)[:, None]  # (B, 1, mel frames, mels)
        for module in self.conv:
            if isinstance(module, nn.Conv2d) and module.stride == (2, 2):
                # A convolution's output beyond a recording's end is not zero, and the next one would see it.
                if module is not self.conv[0]:
                    x.mul_(torch.arange(x.shape[2], device=x.device)[:, None] < lengths[:, None, None, None])
                lengths = (lengths - 1) // 2 + 1
            x = module(x)  # (B, channels, frames, bins)
        return self.out(x.transpose(1, 2).flatten(2)), lengths


class ConformerLayer(nn.Module):
    """Half a feed-forward module, attention, convolution, and the other half (https://arxiv.org/abs/2005.08100)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.norm_feed_forward1 = nn.LayerNorm(config.width)
        self.feed_forward1 = FeedForward(config)
        self.norm_self_att = nn.LayerNorm(config.width)
        self.self_attn = RelativeAttention(config)
        self.norm_conv = nn.LayerNorm(config.width)
        self.conv = Convolution(config)
        self.norm_feed_forward2 = nn.LayerNorm(config.width)
        self.feed_forward2 = FeedForward(config)
        self.norm_out = nn.LayerNorm(config.width)

    def prepare(self) -> None:
        """See `Encoder.prepare`."""
        self.self_attn.prepare()
        self.conv.prepare()

    def forward(self, x: Tensor, positions: Tensor, bias: Tensor, keep: Tensor) -> Tensor:
        """Return the layer's output, (B, T, D).

        Args:
            x: (B, T, D), overwritten.
            positions: The layer's position terms, (H, K, 2T).
            bias: Added to the attention scores, (B, 1, 1, T).
            keep: One where a recording has frames, zero beyond its end, (B, T, 1).
        """
        x = self.feed_forward1(x, self.norm_feed_forward1(x))
        x = self.self_attn(x, self.norm_self_att(x), positions, bias)
        x = self.conv(x, self.norm_conv(x), keep)
        x = self.feed_forward2(x, self.norm_feed_forward2(x))
        return self.norm_out(x)  # type: ignore[no-any-return]


class FeedForward(nn.Module):
    """Two linear layers with SiLU between them, of which half is added to the residual."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.linear1 = Linear(config.width, config.feed_forward, bias=config.has_bias)
        self.linear2 = Linear(config.feed_forward, config.width, bias=config.has_bias)

    def forward(self, residual: Tensor, x: Tensor) -> Tensor:
        """Add half the module's output for `x` to `residual` in place, both (B, T, D)."""
        return add_linear(residual, F.silu(self.linear1(x), inplace=True), self.linear2, scale=0.5)


class RelativeAttention(nn.Module):
    """Multi-head attention with relative positions (https://arxiv.org/abs/1901.02860, section 3.3)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.heads, self.head_width = config.heads, config.width // config.heads
        self.linear_q, self.linear_k, self.linear_v, self.linear_out = (
            Linear(config.width, config.width, bias=config.has_bias) for _ in range(4)
        )
        self.linear_pos = Linear(config.width, config.width, bias=False)
        self.pos_bias_u = nn.Parameter(torch.empty(self.heads, self.head_width))
        self.pos_bias_v = nn.Parameter(torch.empty(self.heads, self.head_width))

    def prepare(self) -> None:
        """See `Encoder.prepare`. Query, key and value become one product."""
        parts = (self.linear_q, self.linear_k, self.linear_v)
        self.qkv = Linear(1, 1, bias=parts[0].bias is not None)
        for name, _ in list(self.qkv.named_parameters()):
            joined = torch.cat([getattr(part, name) for part in parts])
            setattr(self.qkv, name, nn.Parameter(joined, requires_grad=False))
        del self.linear_q, self.linear_k, self.linear_v

    def project(self, positions: Tensor) -> Tensor:
        """Return the position terms, (H, K, P), of encoded positions, (P, D), scaled as attention scores are."""
        terms: Tensor = self.linear_pos(positions) / math.sqrt(self.head_width)
        return terms.view(-1, self.heads, self.head_width).permute(1, 2, 0).contiguous()

    def forward(self, residual: Tensor, x: Tensor, positions: Tensor, bias: Tensor) -> Tensor:
        """Add the attention's output for `x` to `residual` in place, both (B, T, D); see `ConformerLayer.forward`."""
        b, t, _ = x.shape
        h, k = self.heads, self.head_width
        query, key, value = self.qkv(x).view(b, t, 3, h, k).unbind(2)  # (B, T, H, K) each
        by_position = (query + self.pos_bias_v).permute(2, 0, 1, 3).reshape(h, b * t, k)  # a view
        scores = torch.bmm(by_position, positions).view(h, b, t, 2 * t).transpose(0, 1)
        # Row i has the distances from i to the frames 0 ... T - 1 in columns T - 1 - i ... 2T - 2 - i. A view of them
        # starts at column T - 1 of the first row, and its rows are one element shorter.
        scores = scores.as_strided(
            (b, h, t, t), (scores.stride(0), scores.stride(1), 2 * t - 1, 1), scores.storage_offset() + t - 1
        )
        attended = F.scaled_dot_product_attention(
            (query + self.pos_bias_u).transpose(1, 2),
            key.transpose(1, 2),
            value.transpose(1, 2),
            attn_mask=scores + bias,
        )  # (B, H, T, K)
        return add_linear(residual, attended.transpose(1, 2).reshape(b, t, h * k), self.linear_out)


class Convolution(nn.Module):
    """A gated pointwise convolution, a depthwise one over time with batch norm, SiLU, and a pointwise one."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width, has_bias = config.width, config.has_bias
        self.pointwise_conv1 = Conv1d(width, 2 * width, 1, bias=has_bias)
        self.depthwise_conv = Conv1d(
            width, width, config.kernel, padding=config.kernel // 2, groups=width, bias=has_bias
        )
        self.batch_norm = nn.BatchNorm1d(width)
        self.pointwise_conv2 = Conv1d(width, width, 1, bias=has_bias)

    def prepare(self) -> None:
        """See `Encoder.prepare`. Batch norm is folded into the depthwise convolution, in float32."""
        norm, conv = self.batch_norm, self.depthwise_conv
        assert norm.running_var is not None and norm.running_mean is not None  # noqa: S101, PT018 - it tracks them
        gain = norm.weight.float() / torch.sqrt(norm.running_var.float() + norm.eps)
        shift = norm.running_mean.float() - (0 if conv.bias is None else conv.bias.float())
        offset = norm.bias.float() - shift * gain
        dtype = conv.weight.dtype
        conv.weight.data = (conv.weight.float() * gain[:, None, None]).to(dtype)
        conv.bias = nn.Parameter(offset.to(dtype), requires_grad=False)
        del self.batch_norm

    def forward(self, residual: Tensor, x: Tensor, keep: Tensor) -> Tensor:
        """Add the module's output for `x` to `residual` in place, both (B, T, D); see `ConformerLayer.forward`."""
        first, second = self.pointwise_conv1, self.pointwise_conv2
        x = F.glu(F.linear(x, first.weight[:, :, 0], first.bias), dim=-1).mul_(keep)
        x = F.silu(self.depthwise_conv(x.transpose(1, 2)), inplace=True).transpose(1, 2)
        return add_linear(residual, x, second)


def add_linear(residual: Tensor, x: Tensor, layer: nn.Linear | nn.Conv1d, scale: float = 1.0) -> Tensor:
    """Add `scale * layer(x)` to `residual` in place, by the product itself; residual (B, T, D), x (B, T, C)."""
    weight = layer.weight.flatten(1)  # a pointwise convolution has (D, C, 1)
    if layer.bias is not None:
        residual.add_(layer.bias, alpha=scale)
    residual.view(-1, residual.shape[-1]).addmm_(x.flatten(0, 1), weight.t(), alpha=scale)
    return residual
