"""A FastConformer-TDT model in plain torch, under NeMo's parameter names."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from parakeet_worker.asr.types import DecodingOptions
from parakeet_worker.model.config import ModelConfig
from parakeet_worker.model.decoder import Decoder, Emission, JointNetwork, PredictionNetwork
from parakeet_worker.model.encoder import Encoder
from parakeet_worker.model.features import Features


class Parakeet(nn.Module):
    """Samples to labels. The parameters have no values until `load` has replaced them."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.preprocessor = nn.ModuleDict({"featurizer": Features(config)})
        self.encoder = Encoder(config)
        self.decoder = PredictionNetwork(config)
        self.joint = JointNetwork(config)

    def load(self, weights: Mapping[str, Tensor], device: torch.device, precision: torch.dtype) -> None:
        """Take the weights, copy them to the device, and prepare for inference.

        Args:
            weights: Every parameter and buffer by name, on the CPU.
            device: The device.
            precision: Of the encoder. The features, the decoder and what is folded into weights are float32.

        Raises:
            RuntimeError: The weights do not fit the configuration.
        """
        self.load_state_dict(weights, strict=True, assign=True)
        self.eval().requires_grad_(requires_grad=False)
        self.encoder.to(device, precision, non_blocking=True).prepare()
        for module in (self.preprocessor, self.decoder, self.joint):
            module.to(device, torch.float32, non_blocking=True)
        self.features.prepare()
        self.search = Decoder(self.decoder, self.joint, self.config)

    @property
    def features(self) -> Features:
        """Samples to features."""
        features = self.preprocessor["featurizer"]
        assert isinstance(features, Features)  # noqa: S101 - set above
        return features

    @torch.inference_mode()
    def encode(self, samples: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Return the encoder frames, (B, T, D), and their number, (B,), of samples as `Features.forward` takes them."""
        features, lengths = self.features(samples, lengths)
        frames: tuple[Tensor, Tensor] = self.encoder(features.to(next(self.encoder.parameters()).dtype), lengths)
        return frames

    def decode(self, frames: Tensor, lengths: Tensor, options: Sequence[DecodingOptions] = ()) -> list[list[Emission]]:
        """Return the labels of encoder frames, (B, T, D), of which each recording has `lengths`, (B,)."""
        return self.search.decode(frames, lengths, options)
