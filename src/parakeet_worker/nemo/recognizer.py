"""Transcribing a batch with NeMo's preprocessor, encoder and TDT decoder."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from parakeet_worker.asr.types import DeviceFailedError, Hypothesis, Signal, Token
from parakeet_worker.model.device import Plan
from parakeet_worker.nemo.loading import Model

# Shorter recordings are padded with silence to 0.1 s: normalising a feature over time needs at least two mel frames
# (10 ms each).
_MIN_SAMPLES = 1_600

# Two minutes: 7.7 MB.
_MAX_STAGED_SAMPLES = 120 * 16_000


class NemoHypothesis(Protocol):
    """The fields of NeMo's greedy TDT hypothesis that are used; tensors of shape (tokens,), int64."""

    text: str
    y_sequence: torch.Tensor
    timestamp: torch.Tensor
    token_duration: torch.Tensor


@dataclass(frozen=True)
class StagedTensor:
    """A recording that is on the GPU, or being copied to it.

    Attributes:
        samples: float32, shape (samples,), on the device.
        arrived: Event that is recorded when the copy is done.
    """

    samples: torch.Tensor
    arrived: torch.cuda.Event

    def __len__(self) -> int:
        """Return the number of samples."""
        return len(self.samples)


class NemoRecognizer:
    """A baked Parakeet TDT model, run by NeMo's own modules on tensors.

    Args:
        model: NeMo's modules, on the plan's device.
        plan: How to run it.
    """

    def __init__(self, model: Model, plan: Plan) -> None:
        self.model = model
        self.batch_seconds = plan.batch_seconds
        self.plan = plan
        self._copies = torch.cuda.Stream(plan.device) if plan.device.type == "cuda" else None

    def stage(self, samples: NDArray[np.float32]) -> Signal:
        """Copy a recording to the GPU from pinned memory, on a stream of its own; see `Recognizer`.

        A recording of over two minutes is not copied before its batch, so that a full queue does not fill the GPU.
        """
        if self._copies is None or len(samples) > _MAX_STAGED_SAMPLES:
            return samples
        with torch.cuda.stream(self._copies):
            staged = torch.from_numpy(samples).pin_memory().to(self.plan.device, non_blocking=True)
            arrived = torch.cuda.Event()
            arrived.record()
        return StagedTensor(staged, arrived)

    def transcribe(self, batch: Sequence[Signal]) -> list[Hypothesis]:
        """Transcribe recordings together; see `Recognizer`."""
        try:
            return self._transcribe(batch)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            if self.plan.device.type != "cuda" or not is_cuda_error(error):
                raise
            raise DeviceFailedError(str(error)) from error

    @torch.inference_mode()
    def _transcribe(self, batch: Sequence[Signal]) -> list[Hypothesis]:
        model = self.model
        signal, lengths = self._pad(batch)  # (B, samples) float32, (B,) int64
        features, feature_lengths = model.preprocessor(
            input_signal=signal, length=lengths
        )  # (B, mels, mel frames), (B,)
        encoded, encoded_lengths = model.encoder(
            audio_signal=features.to(next(model.encoder.parameters()).dtype), length=feature_lengths
        )  # (B, channels, encoder frames), (B,)
        return [self._hypothesis(hypothesis) for hypothesis in self._decode(encoded, encoded_lengths)]

    def _pad(self, batch: Sequence[Signal]) -> tuple[torch.Tensor, torch.Tensor]:
        """Stack recordings on the device, padded with zeros to the longest.

        Returns:
            The samples, (B, samples) float32, and their lengths, (B,) int64.
        """
        lengths = torch.tensor([max(len(signal), _MIN_SAMPLES) for signal in batch])
        padded = torch.zeros(len(batch), int(lengths.max()), device=self.plan.device)
        for row, signal in zip(padded, batch, strict=True):
            row[: len(signal)] = self._arrive(signal)
        return padded, lengths.to(self.plan.device)

    def _arrive(self, signal: Signal) -> torch.Tensor:
        if not isinstance(signal, StagedTensor):
            return torch.from_numpy(signal)
        stream = torch.cuda.current_stream(self.plan.device)
        stream.wait_event(signal.arrived)
        # The tensor was allocated on the copying stream. Its memory must not be reused while this stream reads it.
        signal.samples.record_stream(stream)
        return signal.samples

    def _decode(self, encoded: torch.Tensor, lengths: torch.Tensor) -> Sequence[NemoHypothesis]:
        decoding = self.model.decoding
        try:
            with _without_onednn() if self.plan.device.type == "cpu" else nullcontext():
                decoded: Sequence[NemoHypothesis] = decoding.rnnt_decoder_predictions_tensor(
                    encoded, lengths, return_hypotheses=True
                )
        except torch.OutOfMemoryError:
            raise
        except RuntimeError:
            # Graphs are captured for the shapes that come, and some drivers fail at that: without them the same batch
            # takes longer and gives the same. Where there were none, the error is another's.
            if not decoding.decoding.disable_cuda_graphs():
                raise
            decoded = decoding.rnnt_decoder_predictions_tensor(encoded, lengths, return_hypotheses=True)
        return decoded

    def _hypothesis(self, hypothesis: NemoHypothesis) -> Hypothesis:
        ids = hypothesis.y_sequence.tolist()
        # SentencePiece writes an unknown piece as a double question mark.
        pieces = ["⁇" if piece == "<unk>" else piece for piece in self.model.tokenizer.ids_to_tokens(ids)]
        starts, durations = hypothesis.timestamp.tolist(), hypothesis.token_duration.tolist()
        tokens = tuple(
            Token(piece, start * self.model.frame_seconds, (start + duration) * self.model.frame_seconds)
            for piece, start, duration in zip(pieces, starts, durations, strict=True)
        )
        return Hypothesis(hypothesis.text, tokens)


@contextmanager
def _without_onednn() -> Iterator[None]:
    """Use torch's own LSTM on a CPU.

    oneDNN reorders the weights of an LSTM in every call, which takes several times as long as one step of the
    prediction network.
    """
    torch.backends.mkldnn.enabled = False  # type: ignore[assignment]
    try:
        yield
    finally:
        torch.backends.mkldnn.enabled = True  # type: ignore[assignment]


def is_cuda_error(error: RuntimeError) -> bool:
    """Return whether an error is CUDA's, such as an illegal address. The process cannot use the GPU after one."""
    return isinstance(error, torch.AcceleratorError) or "CUDA error" in str(error)
