"""From samples to hypotheses: one batch through NeMo's preprocessor, encoder and TDT decoder."""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from parakeet_worker.model.hypothesis import Hypothesis
from parakeet_worker.model.loading import load_model
from parakeet_worker.model.timestamps import Token

# A feature that is normalised over time needs two mel frames (10 ms each) at the least, and an empty batch none.
# Shorter recordings get silence after them.
_MIN_SAMPLES = 1_600


class NemoHypothesis(Protocol):
    """The fields of NeMo's greedy TDT hypothesis that are used; tensors of shape (tokens,), int64."""

    text: str
    y_sequence: torch.Tensor
    timestamp: torch.Tensor
    token_duration: torch.Tensor


class NemoRecognizer:
    """A baked Parakeet TDT model, run by NeMo's own modules on tensors.

    Args:
        directory: The baked model.
        device: Where it runs.
    """

    def __init__(self, directory: Path, device: torch.device) -> None:
        self.model = load_model(directory, device)
        self.device = device
        self.frame_seconds: float = self.model.cfg.preprocessor.window_stride * self.model.encoder.subsampling_factor

    @torch.inference_mode()
    def transcribe(self, batch: Sequence[NDArray[np.float32]]) -> list[Hypothesis]:
        """Transcribe recordings together; see `Recognizer`."""
        model = self.model
        signal, lengths = _pad(batch)  # (B, samples) float32, (B,) int64
        features, feature_lengths = model.preprocessor(
            input_signal=signal.to(self.device), length=lengths.to(self.device)
        )  # (B, mels, mel frames), (B,)
        encoded, encoded_lengths = model.encoder(
            audio_signal=features, length=feature_lengths
        )  # (B, channels, encoder frames), (B,)
        hypotheses = model.decoding.rnnt_decoder_predictions_tensor(encoded, encoded_lengths, return_hypotheses=True)
        return [self._hypothesis(hypothesis) for hypothesis in hypotheses]

    def _hypothesis(self, hypothesis: NemoHypothesis) -> Hypothesis:
        ids = hypothesis.y_sequence.tolist()
        # SentencePiece writes an unknown piece as a double question mark.
        pieces = ["⁇" if piece == "<unk>" else piece for piece in self.model.tokenizer.ids_to_tokens(ids)]
        starts, durations = hypothesis.timestamp.tolist(), hypothesis.token_duration.tolist()
        tokens = tuple(
            Token(piece, start * self.frame_seconds, (start + duration) * self.frame_seconds)
            for piece, start, duration in zip(pieces, starts, durations, strict=True)
        )
        return Hypothesis(hypothesis.text, tokens)


def _pad(batch: Sequence[NDArray[np.float32]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Stack recordings, zeros behind the shorter ones: (B, samples) float32, and their lengths, (B,) int64."""
    lengths = torch.tensor([max(len(samples), _MIN_SAMPLES) for samples in batch])
    signal = torch.zeros(len(batch), int(lengths.max()))
    for row, samples in zip(signal, batch, strict=True):
        row[: len(samples)] = torch.from_numpy(samples)
    return signal, lengths


def choose_device(name: str) -> torch.device:
    """Return the torch device for `auto`, `cpu` or `cuda`."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)
