"""From blocks of a file's own channels and rate to what the model hears: 16 kHz mono."""

import numpy as np
import soxr
from numpy.typing import NDArray

from parakeet_worker.audio import SAMPLE_RATE


class Resampler:
    """Averages channels and resamples (soxr, high quality), block by block.

    Args:
        sample_rate: Of the blocks, in hertz.
    """

    def __init__(self, sample_rate: int) -> None:
        self._stream = None
        if sample_rate != SAMPLE_RATE:
            self._stream = soxr.ResampleStream(sample_rate, SAMPLE_RATE, 1, dtype="float32", quality="HQ")

    def __call__(self, block: NDArray[np.float32], *, is_last: bool = False) -> NDArray[np.float32]:
        """Return the samples that a block gives, float32, shape (samples,).

        Args:
            block: float32, shape (frames, channels); shape (0, 1) will do for the last.
            is_last: Whether this is the end of the recording.
        """
        mono: NDArray[np.float32] = block.mean(axis=1, dtype=np.float32)
        # Decoders may give what is no number, and one such sample would silence all that follow in the resampler.
        mono = np.nan_to_num(mono, copy=False, nan=0.0, posinf=0.0, neginf=0.0)
        if self._stream is None:
            return mono
        resampled: NDArray[np.float32] = self._stream.resample_chunk(mono, last=is_last)
        return resampled


def no_frames() -> NDArray[np.float32]:
    """Return a block of no frames, shape (0, 1)."""
    return np.empty((0, 1), np.float32)
