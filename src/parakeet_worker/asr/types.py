"""The values that the rooms hand to each other, and what the scheduler needs of a model."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

SAMPLE_RATE = 16_000
"""Samples per second of the audio that the model takes."""


@dataclass(frozen=True)
class Token:
    """A token of a hypothesis.

    Attributes:
        piece: Its SentencePiece text, such as `▁the` or `ing`.
        start: When it starts, in seconds.
        end: When it ends, in seconds.
    """

    piece: str
    start: float
    end: float


@dataclass(frozen=True)
class Hypothesis:
    """The transcript of a window or a recording.

    Attributes:
        text: The transcript.
        tokens: Its tokens, in order, with their times.
    """

    text: str
    tokens: tuple[Token, ...]


@dataclass(frozen=True)
class WindowSpan:
    """The part of a recording that a window covers, in seconds from the recording's start.

    Neighbouring windows overlap. A window gives the words of its own part of the overlap only.

    Attributes:
        start: Where its samples begin.
        keep_from: Where the words that it gives begin.
        keep_until: Where they end.
    """

    start: float = 0.0
    keep_from: float = 0.0
    keep_until: float = math.inf


@dataclass(frozen=True)
class WindowResult:
    """The result of one window. Times are in seconds of `time.monotonic()`.

    Attributes:
        hypothesis: Its transcript.
        queued: When it was queued.
        started: When its batch was started.
        ended: When its batch was decoded.
        batch: Number of windows in that batch.
    """

    hypothesis: Hypothesis
    queued: float
    started: float
    ended: float
    batch: int


class StagedSamples(Protocol):
    """Samples that are being copied to the device, in whatever form the recognizer keeps them."""

    def __len__(self) -> int:
        """Return the number of samples."""
        ...


Signal = NDArray[np.float32] | StagedSamples
"""The audio of one window: 16 kHz mono float32 samples, shape (samples,), or the same staged."""


class Recognizer(Protocol):
    """What the scheduler needs of a model. Implementations need not be thread-safe.

    Attributes:
        batch_seconds: Longest useful batch, in padded seconds: number of windows times the length of the longest.
    """

    batch_seconds: float

    def stage(self, samples: NDArray[np.float32]) -> Signal:
        """Start to copy a window to the device. Safe on any thread, also while a batch is decoded.

        Args:
            samples: 16 kHz mono float32, shape (samples,).
        """
        ...

    def transcribe(self, batch: Sequence[Signal]) -> list[Hypothesis]:
        """Transcribe windows in one batch.

        Args:
            batch: The windows, staged or not, unpadded.

        Returns:
            One hypothesis for each window, in order.

        Raises:
            DeviceFailedError: The device cannot be used any more by this process.
        """
        ...


class DeviceFailedError(Exception):
    """The device that the model runs on has failed. Only a new process can use it again."""


class GraphCaptureError(Exception):
    """CUDA graphs could not be captured. Only a new process that captures none can use the device."""
