"""From samples to hypotheses: one batch through NeMo's preprocessor, encoder and TDT decoder."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from parakeet_worker.model.device import Plan
from parakeet_worker.model.hypothesis import DeviceFailure, Hypothesis, Signal
from parakeet_worker.model.loading import Model
from parakeet_worker.model.timestamps import Token

# A feature that is normalised over time needs two mel frames (10 ms each) at the least, and an empty batch none.
# Shorter recordings get silence after them.
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
    """A recording on the GPU, or on its way there.

    Attributes:
        samples: float32, shape (samples,), on the device.
        arrived: Recorded behind the copy, on the stream that makes it.
    """

    samples: torch.Tensor
    arrived: torch.cuda.Event

    def __len__(self) -> int:
        """Return the number of samples."""
        return len(self.samples)


class NemoRecognizer:
    """A baked Parakeet TDT model, run by NeMo's own modules on tensors.

    Args:
        model: Its modules, on the plan's device.
        plan: How to run it.
    """

    def __init__(self, model: Model, plan: Plan) -> None:
        self.model = model
        self.batch_seconds = plan.batch_seconds
        self.plan = plan
        self._copies = torch.cuda.Stream(plan.device) if plan.device.type == "cuda" else None

    def stage(self, samples: NDArray[np.float32]) -> Signal:
        """Copy a recording to the GPU from pinned memory, on a stream of its own; see `Recognizer`.

        A long recording stays where it is until its turn, so that a full queue leaves the GPU's memory to the batches.
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
            if self.plan.device.type != "cuda" or not _is_cuda_error(error):
                raise
            raise DeviceFailure(str(error)) from error

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
        """Stack recordings on the device, zeros behind the shorter ones.

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
        # The allocator gave the tensor to the copying stream, and must not take it back while this one reads.
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

    oneDNN lays out the weights of an LSTM anew in every call, which takes several times as long as the one step of the
    prediction network that the call is for.
    """
    torch.backends.mkldnn.enabled = False  # type: ignore[assignment]
    try:
        yield
    finally:
        torch.backends.mkldnn.enabled = True  # type: ignore[assignment]


def _is_cuda_error(error: RuntimeError) -> bool:
    """Say whether an error is CUDA's own, after which the process cannot use the GPU: an illegal address, for one."""
    return isinstance(error, torch.AcceleratorError) or "CUDA error" in str(error)
