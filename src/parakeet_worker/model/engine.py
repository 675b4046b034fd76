"""The one thread that owns the model: jobs queue their windows, and it decodes them in batches."""

import asyncio
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from parakeet_worker.audio import SAMPLE_RATE
from parakeet_worker.audio.abort import Abort
from parakeet_worker.errors import Code, JobError
from parakeet_worker.exhaustion import explain, is_out_of_memory
from parakeet_worker.model.batching import choose
from parakeet_worker.model.hypothesis import DeviceFailure, Hypothesis, Recognizer, Signal

WINDOW_INTERVAL_S = 0.25
"""How many seconds apart the windows of one recording should come due, so that an hour of audio does not hold up a clip
that arrives after it, and is not held up for ever by clips either."""

# Audio that may wait, in seconds, whatever the batches take: 30 MB.
_LEAST_ROOM_S = 480.0

# A platform that stops a worker does not wait for long either.
_CLOSING_S = 15.0

# How soon a thread that waits for room sees that its job is gone.
_ABORT_INTERVAL_S = 0.1


@dataclass(frozen=True)
class Stats:
    """What the engine has done so far.

    Attributes:
        batches: How many batches were decoded.
        windows: How many windows were in them.
        audio_s: Seconds of audio in them.
        padded_s: Seconds with the padding that made the windows of each batch equally long.
        busy_s: Seconds that the model thread spent on them.
    """

    batches: int = 0
    windows: int = 0
    audio_s: float = 0.0
    padded_s: float = 0.0
    busy_s: float = 0.0


@dataclass(frozen=True)
class Heard:
    """What became of one window.

    Attributes:
        hypothesis: What was heard in it.
        queued: When it was queued, in seconds of `time.monotonic()`, as are the next two.
        started: When its batch was begun.
        ended: When its batch was decoded.
        batch: Windows in that batch.
    """

    hypothesis: Hypothesis
    queued: float
    started: float
    ended: float
    batch: int


@dataclass(eq=False)
class _Window:
    """One window in the queue, and the answer that its job awaits."""

    signal: Signal
    queued: float
    due: float
    answer: "Future[Heard]" = field(default_factory=Future)

    @property
    def seconds(self) -> float:
        return len(self.signal) / SAMPLE_RATE


class Engine:
    """Decodes windows of audio from all jobs in flight, in batches.

    A job that arrives alone is decoded at once: a batch is made of what waits when the model thread is free, and
    never waits for more. A batch that fails is halved and tried again, so a window that cannot be decoded, or that
    needs more memory than there is, fails alone.

    Args:
        load: Makes the recognizer. Called on the model thread when that starts, and for the next job if it failed.
    """

    def __init__(self, load: Callable[[], Recognizer]) -> None:
        self._load = load
        self._recognizer: Recognizer | None = None
        self._budget = 0.0
        self._is_broken = False
        self._waiting: list[_Window] = []
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._loaded: Future[None] = Future()
        self._is_closing = False
        self.stats = Stats()

    @property
    def waiting(self) -> int:
        """How many windows wait for a batch."""
        return len(self._waiting)

    def start(self) -> None:
        """Start the model thread, which loads the model. The first job does so where nobody has."""
        with self._changed:
            if self._thread is None:
                self._thread = threading.Thread(target=self._serve, name="model", daemon=True)
                self._thread.start()

    async def ready(self) -> None:
        """Wait until the model is loaded.

        Raises:
            Exception: What kept it from being loaded.
        """
        self.start()
        await asyncio.wrap_future(self._loaded)

    def close(self) -> None:
        """Let the model thread end, and wait for it, but not for ever: what waits already is answered."""
        with self._changed:
            self._is_closing = True
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join(_CLOSING_S)

    def stage(self, samples: NDArray[np.float32]) -> Signal:
        """Start to bring a window to the device, on the caller's thread, so that the model thread need not wait for it.

        Args:
            samples: 16 kHz mono float32, shape (samples,).
        """
        return self._recognizer.stage(samples) if self._recognizer and not self._is_broken else samples

    def submit(self, window: Signal, delay: float = 0.0) -> "Future[Heard]":
        """Queue a window, on any thread, for the next batch that it fits into.

        Args:
            window: The window, staged or not.
            delay: Seconds by which it lets others go first. See `WINDOW_INTERVAL_S`.

        Returns:
            What will have been heard in it, or the JobError for its job.
        """
        now = time.monotonic()
        queued = _Window(window, now, now + delay)
        with self._changed:
            self._waiting.append(queued)
            self._changed.notify_all()
        self.start()
        return queued.answer

    def withdraw(self, answers: Iterable["Future[Heard]"]) -> None:
        """Take windows that nobody waits for out of the queue. One that is being decoded is finished in vain."""
        for answer in answers:
            answer.cancel()
        with self._changed:
            self._waiting = [window for window in self._waiting if not window.answer.cancelled()]
            self._changed.notify_all()

    def wait_for_room(self, abort: Abort) -> None:
        """Wait while more audio is queued than the next batches take, so that hours of it are not held in memory.

        Only the later windows of a recording need to: what arrives with one is always let in.

        Raises:
            Aborted: The job that waits is gone.
        """
        with self._changed:
            while sum(window.seconds for window in self._waiting) > max(2 * self._budget, _LEAST_ROOM_S):
                abort.check()
                self._changed.wait(_ABORT_INTERVAL_S)
        abort.check()

    def _serve(self) -> None:
        """Load the model, and decode batch after batch until the engine is closed."""
        while True:
            batch: list[_Window] = []
            try:
                # Loading takes seconds: what arrives meanwhile joins the first batch.
                error = self._ready()
                if not self._loaded.done():
                    if error:
                        self._loaded.set_exception(error.__cause__ or error)
                    else:
                        self._loaded.set_result(None)
                with self._changed:
                    batch = self._take() if error is None else self._take_all()
                if error:
                    _fail(batch, error)
                elif batch:
                    self._decode(batch)
            except Exception as error:  # noqa: BLE001 - such as MemoryError, wherever: the thread must live
                _fail(batch, explain(error) or error)
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._is_closing)
                if not self._waiting:
                    return

    def _ready(self) -> JobError | None:
        """Load the model where that has not been done. Return the error that every waiting job gets if it cannot be."""
        if self._is_broken:
            return _device_failed()
        if self._recognizer is None:
            try:
                self._recognizer = self._load()
            except BaseException as error:  # noqa: BLE001 - the thread must live, and every job gets an answer
                failure = JobError(Code.MODEL_UNAVAILABLE, "the worker could not load its model; try again")
                failure.__cause__ = error
                return failure
            self._budget = self._recognizer.batch_seconds
        return None

    def _take(self) -> list[_Window]:
        """Take the next batch out of the queue."""
        if not self._waiting:
            return []
        first = min(range(len(self._waiting)), key=lambda index: self._waiting[index].due)
        chosen = choose([window.seconds for window in self._waiting], first, self._budget)
        batch = [self._waiting[index] for index in chosen]
        for window in batch:
            self._waiting.remove(window)
        self._changed.notify_all()
        return [window for window in batch if window.answer.set_running_or_notify_cancel()]

    def _take_all(self) -> list[_Window]:
        batch, self._waiting = self._waiting, []
        return [window for window in batch if window.answer.set_running_or_notify_cancel()]

    def _decode(self, batch: list[_Window]) -> None:
        """Decode a batch and answer its jobs, whatever happens."""
        assert self._recognizer  # noqa: S101 - _ready() has seen to it
        started = time.monotonic()
        try:
            hypotheses = self._recognizer.transcribe([window.signal for window in batch])
        except Exception as error:  # noqa: BLE001 - every job gets an answer
            if isinstance(error, DeviceFailure):
                self._is_broken = True
                _fail(batch, _device_failed(error))
            elif len(batch) > 1:
                if is_out_of_memory(error):
                    self._budget = _padded(batch) / 2
                middle = len(batch) // 2
                self._decode(batch[:middle])
                self._decode(batch[middle:])
            else:
                _fail(batch, explain(error) or error)
            return
        except BaseException as error:  # noqa: BLE001 - such as SystemExit: whatever it was, the model cannot be trusted
            self._is_broken = True
            _fail(batch, _device_failed(error))
            return
        ended = time.monotonic()
        self.stats = replace(
            self.stats,
            batches=self.stats.batches + 1,
            windows=self.stats.windows + len(batch),
            audio_s=self.stats.audio_s + sum(window.seconds for window in batch),
            padded_s=self.stats.padded_s + _padded(batch),
            busy_s=self.stats.busy_s + ended - started,
        )
        for window, hypothesis in zip(batch, hypotheses, strict=True):
            window.answer.set_result(Heard(hypothesis, window.queued, started, ended, len(batch)))


def _padded(batch: Sequence[_Window]) -> float:
    return len(batch) * max(window.seconds for window in batch)


def _fail(batch: Sequence[_Window], error: Exception) -> None:
    for window in batch:
        if not window.answer.done():
            window.answer.set_exception(error)


def _device_failed(cause: BaseException | None = None) -> JobError:
    error = JobError(Code.DEVICE_FAILED, "the worker's device failed and the worker is being replaced; send it again")
    error.__cause__ = cause
    return error
