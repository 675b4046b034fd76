"""Cutting a long recording into windows that the model takes, as it is decoded."""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from parakeet_worker.audio import SAMPLE_RATE

_STEP = SAMPLE_RATE // 50
"""Loudness is measured in steps of 20 ms."""

# A pause between sentences; the stop before a "t" is a third of that.
_PAUSE_STEPS = 15

# Silence is this much quieter than the loudest tenth of the recording around it: 40 dB, in energy.
_SILENCE = 1e-4


@dataclass(frozen=True)
class Cutting:
    """How recordings are cut. All in seconds.

    A window ends in the first pause after its shortest length or, where none comes before its longest, at the quietest
    point in between.

    Attributes:
        whole: Longest recording that stays whole.
        shortest: Shortest window of a longer one, but for the last.
        longest: Longest window.
        overlap: What a window shares with each neighbour beyond its ends, so that every word is heard in its context.
    """

    whole: float
    shortest: float
    longest: float
    overlap: float

    def __post_init__(self) -> None:
        """Refuse what cannot be cut.

        Raises:
            ValueError: The lengths contradict each other.
        """
        if not 0 <= self.overlap <= self.shortest < self.longest:
            raise ValueError("a window's overlap, shortest and longest length must be in this order")


@dataclass(frozen=True)
class Stretch:
    """What part of a recording a window is, in seconds from the recording's start.

    Attributes:
        start: Where its samples begin.
        keep_from: Where it begins to be responsible for the words.
        keep_until: Where it ends to be.
    """

    start: float = 0.0
    keep_from: float = 0.0
    keep_until: float = math.inf


Window = tuple[Stretch, NDArray[np.float32]]
"""A window's place, and its samples: 16 kHz mono float32, shape (samples,)."""


def cut(blocks: Iterable[NDArray[np.float32]], cutting: Cutting) -> Iterator[Window]:
    """Cut a recording into windows, each as soon as its samples are there.

    Args:
        blocks: The recording: 16 kHz mono float32, each of shape (samples,), of any length.
        cutting: How to cut.

    Yields:
        The windows, in order: at least one, if only an empty one. Together they keep every moment once.
    """
    shortest, longest, overlap = (
        round(seconds * SAMPLE_RATE) for seconds in (cutting.shortest, cutting.longest, cutting.overlap)
    )
    # All positions are in samples. What is held begins at `first` of the recording, and the next window at `begin`.
    held = _Samples()
    first = begin = 0
    enough = max(round(cutting.whole * SAMPLE_RATE), longest + overlap)
    for block in blocks:
        held.append(block)
        while len(held) > enough:
            samples = held.all()
            end = begin + shortest + _end(samples[begin - first + shortest : begin - first + longest], samples)
            stretch = Stretch(first / SAMPLE_RATE, begin / SAMPLE_RATE, end / SAMPLE_RATE)
            yield stretch, samples[: end + overlap - first].copy()
            begin = end
            held.drop(begin - overlap - first)
            first = begin - overlap
            enough = longest + 2 * overlap
    yield Stretch(first / SAMPLE_RATE, begin / SAMPLE_RATE), held.all()


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
    """Samples that come in blocks and are joined when they are asked for."""

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
        """Let go of the first samples."""
        if count > 0:
            self._blocks = [self.all()[count:].copy()]
            self._length -= count
