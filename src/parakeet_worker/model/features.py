"""Log-mel features, as NeMo's `AudioToMelSpectrogramPreprocessor` computes them in evaluation.

They are always float32: the energies of a spectrum exceed the range of 16 bits.
"""

import torch
import torch.nn.functional as F  # noqa: N812 - as everybody does
from torch import Tensor, nn

from parakeet_worker.model.config import ModelConfig

# Added to the standard deviation of a mel bin, so that silence is not divided by zero (NeMo's value).
_DEVIATION_GUARD = 1e-5


class Features(nn.Module):
    """Samples to normalised log-mel features. The window and the filterbank are loaded with the weights."""

    window: Tensor  # (window,)
    fb: Tensor  # (1, mels, fft // 2 + 1)

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("window", torch.empty(config.window))
        self.register_buffer("fb", torch.empty(1, config.mels, config.fft // 2 + 1))

    def prepare(self) -> None:
        """Pad the window to the length of the Fourier transform, once."""
        left = (self.config.fft - self.config.window) // 2
        self.window = F.pad(self.window, (left, self.config.fft - self.config.window - left))

    def forward(self, samples: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Return the features of recordings and their lengths.

        Args:
            samples: (B, samples) float32, zero beyond each recording's end.
            lengths: (B,) int64, in samples, each at least two hops.

        Returns:
            The features, (B, mels, mel frames) float32, zero beyond each recording's end, and their lengths in mel
            frames, (B,) int64.
        """
        config = self.config
        # Half a transform of zeros on both sides, so that a frame is centred on its first sample, and one zero before.
        half = config.fft // 2
        x = F.pad(samples, (half + 1, half))
        x = torch.sub(x[:, 1:], x[:, :-1], alpha=config.preemphasis)  # y[t] = x[t] - a * x[t - 1]
        x.scatter_(1, lengths[:, None] + half, 0.0)  # what the last sample leaves behind a recording's end
        spectrum = torch.stft(
            x, config.fft, config.hop, window=self.window, center=False, return_complex=True
        )  # (B, fft // 2 + 1, mel frames + 1)
        # The last frame is centred on the end of the longest recording, and within none.
        squares = torch.view_as_real(spectrum[..., :-1]).square()
        energies = squares[..., 0] + squares[..., 1]
        x = torch.log(torch.matmul(self.fb, energies) + config.log_guard)  # (B, mels, mel frames)

        lengths = lengths // config.hop
        is_within = torch.arange(x.shape[2], device=x.device) < lengths[:, None, None]  # (B, 1, mel frames)
        count = lengths[:, None, None]
        mean = (x * is_within).sum(2, keepdim=True) / count
        x = (x - mean) * is_within
        deviation = (x.square().sum(2, keepdim=True) / (count - 1)).sqrt()
        return x / (deviation + _DEVIATION_GUARD), lengths
