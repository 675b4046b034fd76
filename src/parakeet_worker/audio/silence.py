"""Silence: finding the windows of a recording in which there is no sound, while it is decoded."""

from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from parakeet_worker.asr.types import SAMPLE_RATE, WindowSpan
from parakeet_worker.audio.chunking import Window

_STEP = SAMPLE_RATE // 50
"""Levels are measured in steps of 20 ms."""

# Levels are in decibels below a constant signal of 1.0. Sound is what is at most so far below the recording's loud
# level. That alone would take speech after music for silence, and the noise of a quiet recording for sound: whatever
# the loud level is, above the one bound there is sound, and below the other, where 16-bit samples are noise, there is
# none.
_BELOW_LOUD = 50
_SURELY_SOUND = -60
_SURELY_SILENCE = -80

# The loud level is the 90th percentile: a clap does not set it.
_LOUD_SHARE = 0.9

# A word may fade in or out within so many steps of its sound, beyond the end of a window.
_FADE_STEPS = 15

_LOWEST = -100


def find_silence(windows: Iterable[Window]) -> Iterator[tuple[WindowSpan, NDArray[np.float32], bool]]:
    """Find the windows in which there is no sound.

    A window is silent if no step of 20 ms, in it or in the 0.3 s beyond either end of it, is louder than a threshold:
    50 dB below the recording's loud level up to then, but at least -80 and at most -60 dB of full scale.

    Args:
        windows: The windows of a recording, in order, with their overlaps: 16 kHz mono float32, finite, each of shape
            (samples,). An empty one is silent.

    Yields:
        The windows in order, each with whether it is silent. One with sound is yielded at once, one without when the
        next is known.
    """
    loudness = _Loudness()
    # The window that is silent unless the next begins with sound, and whether the last one ended with sound.
    waiting: Window | None = None
    ends_with_sound = False
    for span, samples in windows:
        levels = _levels(samples)
        loudness.add(levels)
        is_sound = levels > loudness.threshold
        if waiting:
            yield *waiting, not is_sound[:_FADE_STEPS].any()
        is_silent = not (ends_with_sound or is_sound.any())
        ends_with_sound = bool(is_sound[-_FADE_STEPS:].any())
        waiting = (span, samples) if is_silent else None
        if not waiting:
            yield span, samples, False
    if waiting:
        yield *waiting, True


class _Loudness:
    """The levels of a recording up to now, counted by decibel."""

    def __init__(self) -> None:
        self._counts = np.zeros(1 - _LOWEST, np.int64)

    def add(self, levels: NDArray[np.float64]) -> None:
        """Count the levels of steps, of shape (steps,). Those of more than full scale count as full scale."""
        whole = np.clip(np.floor(levels), _LOWEST, 0).astype(int)
        self._counts += np.bincount(whole - _LOWEST, minlength=len(self._counts))

    @property
    def threshold(self) -> int:
        """The level above which a step is sound."""
        counted = self._counts.cumsum()
        loud = int(counted.searchsorted(_LOUD_SHARE * counted[-1])) + _LOWEST
        return min(max(loud - _BELOW_LOUD, _SURELY_SILENCE), _SURELY_SOUND)


def _levels(samples: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the level of each step, shape (steps,). The last step may be shorter."""
    starts = np.arange(0, len(samples), _STEP)
    energy = np.add.reduceat(np.square(samples, dtype=np.float64), starts) / np.diff(starts, append=len(samples))
    levels: NDArray[np.float64] = 10 * np.log10(np.maximum(energy, 10 ** (_LOWEST / 10)))
    return levels
