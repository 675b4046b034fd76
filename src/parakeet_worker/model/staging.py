"""Copying recordings to the device, alone and ahead of time or together as a padded batch."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from parakeet_worker.asr.types import SAMPLE_RATE, Signal

# Shorter recordings are padded with silence to 0.1 s: normalising a feature over time needs at least two mel frames
# (10 ms each).
_MIN_SAMPLES = SAMPLE_RATE // 10

# Two minutes: 7.7 MB. A longer recording is not copied before its batch, so that a full queue does not fill the GPU.
_MAX_STAGED_SAMPLES = 120 * SAMPLE_RATE

# Copies have a stream of high priority. Captures of CUDA graphs take theirs from torch's pool of normal priority, which
# hands out the same streams again in turn.
_COPY_PRIORITY = -1


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


class Staging:
    """Brings the recordings of a batch to a device.

    Args:
        device: The device.
        multiple: Batches are padded to a multiple of this number of samples.
    """

    def __init__(self, device: torch.device, multiple: int = 1) -> None:
        self._device = device
        self._multiple = multiple
        self._copies = torch.cuda.Stream(device, priority=_COPY_PRIORITY) if device.type == "cuda" else None

    def stage(self, samples: NDArray[np.float32]) -> Signal:
        """Copy a recording to the GPU from pinned memory, on a stream of its own; see `Recognizer`.

        If that fails, such as for lack of memory, the recording stays on the host, and is copied with its batch.
        """
        if self._copies is None:
            return samples
        try:
            pinned = torch.from_numpy(samples).pin_memory()
            if len(samples) > _MAX_STAGED_SAMPLES:
                return pinned.numpy()
            with torch.cuda.stream(self._copies):
                staged = pinned.to(self._device, non_blocking=True)
                arrived = torch.cuda.Event()
                arrived.record()
        except RuntimeError:
            return samples
        return StagedTensor(staged, arrived)

    def pad(self, batch: Sequence[Signal]) -> tuple[torch.Tensor, torch.Tensor]:
        """Stack recordings on the device, padded with zeros to the longest.

        Returns:
            The samples, (B, samples) float32, and their lengths, (B,) int64.
        """
        lengths = torch.tensor([max(len(signal), _MIN_SAMPLES) for signal in batch])
        longest = -(-int(lengths.max()) // self._multiple) * self._multiple
        padded = torch.zeros(len(batch), longest, device=self._device)
        for row, signal in zip(padded, batch, strict=True):
            row[: len(signal)] = self._arrive(signal)
        return padded, lengths.to(self._device, non_blocking=True)

    def _arrive(self, signal: Signal) -> torch.Tensor:
        if not isinstance(signal, StagedTensor):
            return torch.from_numpy(signal)
        stream = torch.cuda.current_stream(self._device)
        stream.wait_event(signal.arrived)
        # The tensor was allocated on the copying stream. Its memory must not be reused while this stream reads it.
        signal.samples.record_stream(stream)
        return signal.samples
