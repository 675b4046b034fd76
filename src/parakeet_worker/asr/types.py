"""The values that the rooms hand to each other, and what the scheduler needs of a model."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
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
        confidence: The model's confidence in it, from 0 to 1, or None if that was not asked for.
    """

    piece: str
    start: float
    end: float
    confidence: float | None = None


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
class KeyTerm:
    """A name or an expression that a job wants to be recognized.

    Attributes:
        text: The term as it is written.
        boost: Its weight: 1 is the usual one.
    """

    text: str
    boost: float = 1.0


class CompiledTerms(Protocol):
    """Key terms in whatever form the recognizer takes them."""


@dataclass(frozen=True)
class DecodingOptions:
    """What a job wants of the decoding of its windows.

    Attributes:
        has_confidence: Whether the tokens have a confidence.
        terms: Key terms to raise, or None.
    """

    has_confidence: bool = False
    terms: CompiledTerms | None = None


NO_OPTIONS = DecodingOptions()
"""The words and their times alone."""


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
        read: Returns its transcript.
        queued: When it was queued.
        started: When its batch was started.
        ended: When its batch was decoded.
        batch: Number of windows in that batch.
    """

    read: "ReadHypothesis"
    queued: float
    started: float
    ended: float
    batch: int

    @cached_property
    def hypothesis(self) -> Hypothesis:
        """Its transcript, which is made of the model's labels when it is first asked for, on the thread that asks."""
        return self.read()


@dataclass(frozen=True)
class BatchTime:
    """How long a batch took.

    Attributes:
        windows: Number of windows.
        longest: Length of the longest one, in seconds.
        seconds: Time on the device, in seconds.
    """

    windows: int
    longest: float
    seconds: float


class StagedSamples(Protocol):
    """Samples that are being copied to the device, in whatever form the recognizer keeps them."""

    def __len__(self) -> int:
        """Return the number of samples."""
        ...


Signal = NDArray[np.float32] | StagedSamples
"""The audio of one window: 16 kHz mono float32 samples, shape (samples,), or the same staged."""


ReadHypothesis = Callable[[], Hypothesis]
"""Returns the transcript of one window. Safe on any thread, at any time."""


class PaddedBatch(Protocol):
    """Windows that are padded to one length, on the device or on their way to it."""

    def transcribe(self, meanwhile: Callable[[], None] = ...) -> list[ReadHypothesis]:
        """Transcribe the windows.

        Args:
            meanwhile: Called once where the device works beside this thread, while it does. Never raises.

        Returns:
            What returns the hypothesis of each window, in order.

        Raises:
            DeviceFailedError: The device cannot be used any more by this process.
        """
        ...


class Recognizer(Protocol):
    """A model as the scheduler needs it. Implementations derive from it and need not be thread-safe.

    Attributes:
        batch_seconds: Longest batch that the memory holds, in padded seconds: number of windows times the length of
            the longest.
        warm_up_times: What batches took in the warm-up.
        device_name: `cpu`, or the name of the GPU.
        precision_name: The arithmetic of matrix products, such as `bfloat16`.
    """

    batch_seconds: float
    warm_up_times: Sequence[BatchTime]
    device_name: str
    precision_name: str

    def stage(self, samples: NDArray[np.float32]) -> Signal:
        """Start to copy a window to the device. Safe on any thread, also while a batch is decoded.

        Args:
            samples: 16 kHz mono float32, shape (samples,).
        """
        ...

    def pad(self, batch: Sequence[Signal], options: Sequence[DecodingOptions] = ()) -> PaddedBatch:
        """Bring windows to the device, padded to the longest. May be called while another batch is transcribed.

        Args:
            batch: The windows, staged or not, unpadded.
            options: The options of each window; empty for none. A window's result does not depend on the others'.

        Raises:
            DeviceFailedError: The device cannot be used any more by this process.
        """
        ...

    def transcribe(self, batch: Sequence[Signal], options: Sequence[DecodingOptions] = ()) -> list[Hypothesis]:
        """Transcribe windows in one batch, and return their hypotheses, in order; see `pad` and `PaddedBatch`."""
        return [read() for read in self.pad(batch, options).transcribe()]


class UncoveredTermError(ValueError):
    """A key term cannot be written with the model's tokens.

    Attributes:
        term: The term.
    """

    def __init__(self, term: str) -> None:
        super().__init__(f"no tokens for {term!r}")
        self.term = term


class DeviceFailedError(Exception):
    """The device that the model runs on has failed. Only a new process can use it again."""


class GraphCaptureError(Exception):
    """CUDA graphs could not be captured. Only a new process that captures none can use the device."""
