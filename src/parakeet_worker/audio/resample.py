"""Conversion of blocks with any number of channels and any sample rate to 16 kHz mono."""

import numpy as np
import soxr
from numpy.typing import NDArray

from parakeet_worker.asr.types import SAMPLE_RATE


class Resampler:
    """Averages channels and resamples (soxr, high quality), block by block.

    Args:
        sample_rate: Sample rate of the blocks, in hertz.
    """

    def __init__(self, sample_rate: int) -> None:
        self._stream = None
        if sample_rate != SAMPLE_RATE:
            self._stream = soxr.ResampleStream(sample_rate, SAMPLE_RATE, 1, dtype="float32", quality="HQ")

    def __call__(self, block: NDArray[np.float32], *, is_last: bool = False) -> NDArray[np.float32]:
        """Return the resampled block: 16 kHz mono float32, shape (samples,).

        Some samples at the end of a block are returned with the next one.

        Args:
            block: float32, shape (frames, channels). Shape (0, 1) is allowed for the last one.
            is_last: Whether this is the last block, so that all remaining samples are returned.
        """
        mono: NDArray[np.float32] = block.mean(axis=1, dtype=np.float32)
        # Decoders may return NaN, and after one NaN the resampler returns nothing but NaN.
        mono = np.nan_to_num(mono, copy=False, nan=0.0, posinf=0.0, neginf=0.0)
        if self._stream is None:
            return mono
        resampled: NDArray[np.float32] = self._stream.resample_chunk(mono, last=is_last)
        return resampled


def no_frames() -> NDArray[np.float32]:
    """Return an empty block: float32, shape (0, 1)."""
    return np.empty((0, 1), np.float32)
