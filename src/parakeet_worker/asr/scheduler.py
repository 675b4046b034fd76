"""The scheduler: jobs queue their windows, and the one thread that owns the model decodes them in batches."""

import asyncio
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from parakeet_worker.asr.batching import choose_batch, cost
from parakeet_worker.asr.types import SAMPLE_RATE, DeviceFailedError, Recognizer, Signal, WindowResult
from parakeet_worker.cancellation import CancellationToken
from parakeet_worker.errors import Code, JobError
from parakeet_worker.exhaustion import is_out_of_memory, resource_error

WINDOW_INTERVAL_S = 0.25
"""Seconds between the due times of a recording's windows. A clip that arrives behind an hour of audio is decoded before
most of that, and the hour is not held up for ever by clips that keep arriving."""

# Least audio that may be queued, in seconds: 30 MB.
_LEAST_ROOM_S = 480.0

# After a batch that was too large for the memory, batches have half its size at most, but never less than this many
# padded seconds. With each batch of about that size that succeeds the limit grows again: the memory may be free now.
_LEAST_BUDGET_S = 30.0
_BUDGET_GROWTH = 1.02

# Container engines kill a worker soon after they have asked it to stop.
_CLOSING_S = 15.0

# How often a thread that waits for room checks that its job was not cancelled.
_CANCELLATION_INTERVAL_S = 0.1


@dataclass(frozen=True)
class SchedulerStats:
    """Counts since the start of the scheduler.

    Attributes:
        batches: Batches that were decoded.
        windows: Windows in them.
        audio_s: Seconds of audio in them.
        padded_s: Seconds of audio in them with the padding to the longest window of each batch.
        busy_s: Seconds that the model thread spent on them.
    """

    batches: int = 0
    windows: int = 0
    audio_s: float = 0.0
    padded_s: float = 0.0
    busy_s: float = 0.0


@dataclass(eq=False)
class _Window:
    """A window in the queue, and the future of its result."""

    signal: Signal
    queued: float
    due: float
    result: "Future[WindowResult]" = field(default_factory=Future)

    @property
    def seconds(self) -> float:
        return len(self.signal) / SAMPLE_RATE


class Scheduler:
    """Decodes the windows of all jobs in flight, in batches, on one thread that owns the model.

    A batch is made of the windows that are queued when the model thread is free. It never waits for more, so a job
    that arrives alone is decoded at once. A batch that fails is split in half and decoded again, so a window that
    cannot be decoded, or that needs more memory than there is, fails alone.

    Args:
        load: Loads the model. Called on the model thread when that starts, and again for the next job if it has failed.

    Attributes:
        recognizer: The model, once it is loaded.
        stats: What was decoded so far.
    """

    def __init__(self, load: Callable[[], Recognizer]) -> None:
        self._load = load
        self.recognizer: Recognizer | None = None
        self._budget = 0.0
        self._is_broken = False
        self._waiting: list[_Window] = []
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._loaded: Future[None] = Future()
        self._is_closing = False
        self.stats = SchedulerStats()

    @property
    def waiting(self) -> int:
        """Number of windows in the queue."""
        return len(self._waiting)

    def start(self) -> None:
        """Start the model thread, which loads the model. Without this call the first job starts it."""
        with self._changed:
            if self._thread is None:
                self._thread = threading.Thread(target=self._serve, name="model", daemon=True)
                self._thread.start()

    async def ready(self) -> None:
        """Wait until the model is loaded.

        Raises:
            Exception: It could not be loaded.
        """
        self.start()
        await asyncio.wrap_future(self._loaded)

    def close(self) -> None:
        """Decode what is queued, end the model thread, and wait for that for 15 seconds at most."""
        with self._changed:
            self._is_closing = True
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join(_CLOSING_S)

    def stage(self, samples: NDArray[np.float32]) -> Signal:
        """Start to copy a window to the device, on the calling thread, so that the model thread need not wait for it.

        Args:
            samples: 16 kHz mono float32, shape (samples,).
        """
        return self.recognizer.stage(samples) if self.recognizer and not self._is_broken else samples

    def submit(self, window: Signal, delay: float = 0.0) -> "Future[WindowResult]":
        """Queue a window and return the future of its result. Safe on any thread.

        Args:
            window: The window, staged or not.
            delay: Seconds until it is due; windows that are due earlier are decoded first. See `WINDOW_INTERVAL_S`.

        Returns:
            The future of the window's result. It raises the JobError for the window's job.
        """
        now = time.monotonic()
        queued = _Window(window, now, now + delay)
        with self._changed:
            self._waiting.append(queued)
            self._changed.notify_all()
        self.start()
        return queued.result

    def cancel(self, results: Iterable["Future[WindowResult]"]) -> None:
        """Take windows out of the queue. One that is being decoded is finished, and its result dropped."""
        for result in results:
            result.cancel()
        with self._changed:
            self._waiting = [window for window in self._waiting if not window.result.cancelled()]
            self._changed.notify_all()

    def wait_for_room(self, cancellation: CancellationToken) -> None:
        """Wait while more audio is queued than two batches take, so that hours of it are not held in memory.

        Only for the later windows of a recording: the first one is always queued at once.

        Raises:
            JobCancelledError: The job was cancelled.
        """
        with self._changed:
            while sum(window.seconds for window in self._waiting) > max(2 * self._budget, _LEAST_ROOM_S):
                cancellation.check()
                self._changed.wait(_CANCELLATION_INTERVAL_S)
        cancellation.check()

    def _serve(self) -> None:
        """Load the model, and decode batch after batch until the scheduler is closed."""
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
                _fail(batch, resource_error(error) or error)
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._is_closing)
                if not self._waiting:
                    return

    def _ready(self) -> JobError | None:
        """Load the model if it is not loaded. Return the error for every queued job if it cannot be."""
        if self._is_broken:
            return _device_failed()
        if self.recognizer is None:
            try:
                self.recognizer = self._load()
            except BaseException as error:  # noqa: BLE001 - the thread must live, and every job gets an answer
                failure = JobError(Code.MODEL_UNAVAILABLE, "the worker could not load its model; try again")
                failure.__cause__ = error
                return failure
            self._budget = self.recognizer.batch_seconds
        return None

    def _take(self) -> list[_Window]:
        """Take the next batch out of the queue."""
        if not self._waiting:
            return []
        first = min(range(len(self._waiting)), key=lambda index: self._waiting[index].due)
        chosen = choose_batch([window.seconds for window in self._waiting], first, self._budget)
        batch = [self._waiting[index] for index in chosen]
        for window in batch:
            self._waiting.remove(window)
        self._changed.notify_all()
        return [window for window in batch if window.result.set_running_or_notify_cancel()]

    def _take_all(self) -> list[_Window]:
        batch, self._waiting = self._waiting, []
        return [window for window in batch if window.result.set_running_or_notify_cancel()]

    def _decode(self, batch: list[_Window]) -> None:
        """Decode a batch, and set the result or the exception of each of its windows."""
        assert self.recognizer  # noqa: S101 - _ready() has seen to it
        started = time.monotonic()
        try:
            hypotheses = self.recognizer.transcribe([window.signal for window in batch])
        except DeviceFailedError as error:
            self._is_broken = True
            _fail(batch, _device_failed(error))
            return
        except Exception as error:  # noqa: BLE001 - every job gets an answer
            if len(batch) == 1:
                _fail(batch, resource_error(error) or error)
                return
            hypotheses = None
            if is_out_of_memory(error):
                self._budget = max(_cost(batch) / 2, _LEAST_BUDGET_S)
        except BaseException as error:  # noqa: BLE001 - such as SystemExit: whatever it was, the model cannot be trusted
            self._is_broken = True
            _fail(batch, _device_failed(error))
            return
        if hypotheses is None:
            # Not above: the exception's traceback holds what the failed batch allocated.
            middle = len(batch) // 2
            self._decode(batch[:middle])
            self._decode(batch[middle:])
            return
        ended = time.monotonic()
        if _cost(batch) > self._budget / 2:
            self._budget = min(self._budget * _BUDGET_GROWTH, self.recognizer.batch_seconds)
        self.stats = replace(
            self.stats,
            batches=self.stats.batches + 1,
            windows=self.stats.windows + len(batch),
            audio_s=self.stats.audio_s + sum(window.seconds for window in batch),
            padded_s=self.stats.padded_s + _padded(batch),
            busy_s=self.stats.busy_s + ended - started,
        )
        for window, hypothesis in zip(batch, hypotheses, strict=True):
            window.result.set_result(WindowResult(hypothesis, window.queued, started, ended, len(batch)))


def _padded(batch: Sequence[_Window]) -> float:
    return len(batch) * max(window.seconds for window in batch)


def _cost(batch: Sequence[_Window]) -> float:
    return len(batch) * max(cost(window.seconds) for window in batch)


def _fail(batch: Sequence[_Window], error: Exception) -> None:
    for window in batch:
        if not window.result.done():
            window.result.set_exception(error)


def _device_failed(cause: BaseException | None = None) -> JobError:
    error = JobError(Code.DEVICE_FAILED, "the worker's device failed and the worker is being replaced; send it again")
    error.__cause__ = cause
    return error
