"""Chunking: splitting a long recording into windows of the length that the model takes, while it is decoded."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from parakeet_worker.asr.types import SAMPLE_RATE, WindowSpan

_STEP = SAMPLE_RATE // 50
"""Loudness is measured in steps of 20 ms."""

# The length of a pause between sentences. The closure before a "t" is a third of that.
_PAUSE_STEPS = 15

# The energy of silence, as a part of the 90th percentile around it: 40 dB below.
_SILENCE = 1e-4


@dataclass(frozen=True)
class ChunkingConfig:
    """Lengths of windows, in seconds.

    A window ends in the first pause between its shortest and its longest length. Without such a pause it ends at the
    quietest point between the two.

    Attributes:
        whole: Longest recording that is one window, if that is more than the longest window with one overlap.
        shortest: Shortest window of a longer recording. Its last window may be shorter.
        longest: Longest window, without its overlaps.
        overlap: Audio that a window has beyond each of its ends, so that the words there have context.
    """

    whole: float
    shortest: float
    longest: float
    overlap: float

    def __post_init__(self) -> None:
        """Check the lengths.

        Raises:
            ValueError: The lengths contradict each other.
        """
        if not 0 <= self.overlap <= self.shortest < self.longest:
            raise ValueError("a window's overlap, shortest and longest length must be in this order")

    @property
    def longest_pass(self) -> float:
        """Longest recording that is one window, in seconds: a shorter one has nothing to be cut off."""
        return max(self.whole, self.longest + self.overlap)


Window = tuple[WindowSpan, NDArray[np.float32]]
"""A window's span, and its samples: 16 kHz mono float32, shape (samples,)."""


def chunk(blocks: Iterable[NDArray[np.float32]], config: ChunkingConfig) -> Iterator[Window]:
    """Split a recording into windows, and yield each one as soon as its samples are decoded.

    Args:
        blocks: The recording: 16 kHz mono float32, each of shape (samples,), of any length.
        config: Lengths of the windows.

    Yields:
        The windows, in order: at least one, which is empty for an empty recording. The parts that they keep cover the
        recording once, without a gap.
    """
    shortest, longest, overlap = (
        round(seconds * SAMPLE_RATE) for seconds in (config.shortest, config.longest, config.overlap)
    )
    # Positions are samples of the recording: `first` is the first one in `held`, `begin` where the next window begins.
    held = _Samples()
    first = begin = 0
    enough = round(config.longest_pass * SAMPLE_RATE)
    for block in blocks:
        held.append(block)
        while len(held) > enough:
            samples = held.all()
            end = begin + shortest + _end(samples[begin - first + shortest : begin - first + longest], samples)
            span = WindowSpan(first / SAMPLE_RATE, begin / SAMPLE_RATE, end / SAMPLE_RATE)
            yield span, samples[: end + overlap - first].copy()
            begin = end
            held.drop(begin - overlap - first)
            first = begin - overlap
            enough = longest + 2 * overlap
    yield WindowSpan(first / SAMPLE_RATE, begin / SAMPLE_RATE), held.all()


def _end(search: NDArray[np.float32], around: NDArray[np.float32]) -> int:
    """Return where in `search` a window ends: the middle of the first pause, or the quietest point."""
    loudness = _loudness(search)
    silence = _SILENCE * np.quantile(_loudness(around), 0.9)
    is_silent = np.concatenate([[False], loudness <= silence, [False]])
    (edges,) = np.diff(is_silent).nonzero()
    for start, end in edges.reshape(-1, 2):
        if end - start >= _PAUSE_STEPS:
            return int(start + end) // 2 * _STEP
    smoothed = np.convolve(loudness, np.ones(_PAUSE_STEPS), mode="valid")
    return (int(smoothed.argmin()) + _PAUSE_STEPS // 2) * _STEP


def _loudness(samples: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the energy of each step, shape (samples // step,)."""
    steps = len(samples) // _STEP
    energy: NDArray[np.float32] = np.square(samples[: steps * _STEP]).reshape(steps, _STEP).mean(axis=1)
    return energy


class _Samples:
    """A queue of samples, appended block by block."""

    def __init__(self) -> None:
        self._blocks: list[NDArray[np.float32]] = []
        self._length = 0

    def __len__(self) -> int:
        return self._length

    def append(self, block: NDArray[np.float32]) -> None:
        self._blocks.append(block)
        self._length += len(block)

    def all(self) -> NDArray[np.float32]:
        if len(self._blocks) != 1:
            self._blocks = [np.concatenate(self._blocks) if self._blocks else np.empty(0, np.float32)]
        return self._blocks[0]

    def drop(self, count: int) -> None:
        """Remove the first samples."""
        if count > 0:
            self._blocks = [self.all()[count:].copy()]
            self._length -= count
