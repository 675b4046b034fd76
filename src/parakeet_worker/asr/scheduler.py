"""The scheduler: jobs queue their windows, and the one thread that owns the model decodes them in batches."""

import asyncio
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from parakeet_worker.asr.batch_cost import BatchCost, CostModel
from parakeet_worker.asr.batching import LONGEST_BATCH_S, ChooseBatch, audio_rate, choose_batch, memory_seconds
from parakeet_worker.asr.types import (
    NO_OPTIONS,
    SAMPLE_RATE,
    BatchTime,
    DecodingOptions,
    DeviceFailedError,
    PaddedBatch,
    Recognizer,
    Signal,
    WindowResult,
)
from parakeet_worker.cancellation import CancellationToken
from parakeet_worker.errors import Code, JobError
from parakeet_worker.exhaustion import is_out_of_memory, resource_error

WINDOW_INTERVAL_S = 0.25
"""Seconds between the due times of a recording's windows. A clip that arrives behind an hour of audio is decoded before
most of that, and the hour is not held up for ever by clips that keep arriving."""

# Least and most audio that a long recording may have queued, in seconds: 30 MB and 300 MB.
_LEAST_ROOM_S, _MOST_ROOM_S = 480.0, 4_800.0

# After a batch that was too large for the memory, batches have half its size at most, but never less than this many
# padded seconds. With each batch of about that size that succeeds the limit grows again: the memory may be free now.
_LEAST_BUDGET_S = 30.0
_BUDGET_GROWTH = 1.02

# A batch that was padded while the one before it was decoded is used if, with what has arrived since, no other decodes
# audio faster by more than this.
_AS_GOOD = 0.98

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
        host_s: Seconds in which windows waited for a device that was idle: while a batch was chosen and padded.
    """

    batches: int = 0
    windows: int = 0
    audio_s: float = 0.0
    padded_s: float = 0.0
    busy_s: float = 0.0
    host_s: float = 0.0


@dataclass(eq=False)
class _Window:
    """A window in the queue, and the future of its result."""

    signal: Signal
    options: DecodingOptions
    queued: float
    due: float
    result: "Future[WindowResult]" = field(default_factory=Future)

    @property
    def seconds(self) -> float:
        return len(self.signal) / SAMPLE_RATE


@dataclass(eq=False)
class _Batch:
    """Windows that are decoded together.

    Attributes:
        windows: The windows.
        padded: The same, padded. None if that is still to be done.
    """

    windows: list[_Window]
    padded: PaddedBatch | None = None

    @property
    def longest(self) -> float:
        return max(window.seconds for window in self.windows)

    @property
    def memory_seconds(self) -> float:
        return len(self.windows) * memory_seconds(self.longest)


class Scheduler:
    """Decodes the windows of all jobs in flight, in batches, on one thread that owns the model.

    A batch is made of the windows that are queued when the model thread is free. It never waits for more, so a job
    that arrives alone is decoded at once. While a GPU works on one batch, the next one is chosen and padded; when its
    turn comes, it is chosen anew if what has arrived since makes a better one. A batch that fails is split in half and
    decoded again, so a window that cannot be decoded, or that needs more memory than there is, fails alone.

    Args:
        load: Loads the model. Called on the model thread when that starts, and again for the next job if it has failed.
        costs: Learns what batches cost on this device.
        choose: Chooses the windows of a batch; see `choose_batch`.
        clock: Returns seconds that never go back.

    Attributes:
        recognizer: The model, once it is loaded.
        stats: What was decoded so far.
    """

    def __init__(
        self,
        load: Callable[[], Recognizer],
        *,
        costs: CostModel | None = None,
        choose: ChooseBatch = choose_batch,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._load = load
        self._costs = costs or CostModel()
        self._choose = choose
        self._clock = clock
        self.recognizer: Recognizer | None = None
        self._budget = 0.0
        self._is_broken = False
        self._waiting: list[_Window] = []
        self._prepared: _Batch | None = None
        self._ended = 0.0
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._loaded: Future[None] = Future()
        # Then a job that is cancelled while it waits for the model does not cancel this for all others.
        self._loaded.set_running_or_notify_cancel()
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

    async def loaded(self) -> Recognizer:
        """Wait until the model is loaded, and return it.

        Raises:
            JobError: It could not be loaded.
        """
        if self.recognizer is None:
            try:
                await self.ready()
            except asyncio.CancelledError:
                raise
            except BaseException as error:
                raise _model_unavailable(error) from error
        assert self.recognizer  # noqa: S101 - it is loaded
        return self.recognizer

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

    def submit(
        self, window: Signal, delay: float = 0.0, options: DecodingOptions = NO_OPTIONS
    ) -> "Future[WindowResult]":
        """Queue a window and return the future of its result. Safe on any thread.

        Args:
            window: The window, staged or not.
            delay: Seconds until it is due; windows that are due earlier are decoded first. See `WINDOW_INTERVAL_S`.
            options: What its job wants of its decoding.

        Returns:
            The future of the window's result. It raises the JobError for the window's job.
        """
        now = self._clock()
        queued = _Window(window, options, now, now + delay)
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
        """Wait while more of long recordings is queued than about two batches take: hours are not held in memory.

        Only for the later windows of a recording: the first one is always queued at once.

        Raises:
            JobCancelledError: The job was cancelled.
        """
        with self._changed:
            # Clips, which are due when they arrive, do not count: they must not hold up a long recording for ever.
            while sum(window.seconds for window in self._waiting if window.due > window.queued) > self._room():
                cancellation.check()
                self._changed.wait(_CANCELLATION_INTERVAL_S)
        cancellation.check()

    def _room(self) -> float:
        """Return how many seconds of later windows of recordings may be queued."""
        return min(max(2 * LONGEST_BATCH_S / self._costs.cost.padded, _LEAST_ROOM_S), _MOST_ROOM_S)

    def _serve(self) -> None:
        """Load the model, and decode batch after batch until the scheduler is closed."""
        while True:
            batch = _Batch([])
            try:
                # Loading takes seconds: what arrives meanwhile joins the first batch.
                error = self._ready()
                if error:
                    # Before others are told: for what they queue then, the model is loaded again.
                    batch = self._take_all()
                if not self._loaded.done():
                    if error:
                        self._loaded.set_exception(error.__cause__ or error)
                    else:
                        self._loaded.set_result(None)
                if error:
                    _fail(batch, error)
                elif (batch := self._take()).windows:
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
                return _model_unavailable(error)
            self._budget = self.recognizer.batch_seconds
            for each in self.recognizer.warm_up_times:
                self._costs.observe(each)
        return None

    def _take(self) -> _Batch:
        """Take the next batch out of the queue: the one that is prepared, or a better one."""
        prepared, self._prepared = self._prepared, None
        if prepared is None:
            with suppress(Exception):  # such as MemoryError: what was learnt before will do
                self._costs.fit()
        cost = self._costs.cost
        with self._changed:
            windows = self._best(cost)
            if prepared is None or not self._is_as_good(prepared.windows, windows, cost):
                prepared = _Batch(windows)
            self._remove(prepared.windows)
        running = _started(prepared.windows)
        return prepared if len(running) == len(prepared.windows) else _Batch(running)

    def _take_all(self) -> _Batch:
        with self._changed:
            windows, self._waiting = self._waiting, []
        return _Batch(_started(windows))

    def _best(self, cost: BatchCost) -> list[_Window]:
        """Return the windows that make the best batch of those in the queue. Call it with the lock held."""
        if not self._waiting:
            return []
        lengths, due = [window.seconds for window in self._waiting], [window.due for window in self._waiting]
        try:
            return [self._waiting[index] for index in self._choose(lengths, due, self._clock(), self._budget, cost)]
        except Exception:  # noqa: BLE001 - whatever it was, the window that is due first must not wait for ever
            return [self._first()]

    def _first(self) -> _Window:
        """Return the window in the queue that is due first. Call it with the lock held."""
        return min(self._waiting, key=lambda window: window.due)

    def _is_as_good(self, prepared: list[_Window], best: list[_Window], cost: BatchCost) -> bool:
        """Return whether a batch is about as good as the best one. Call it with the lock held."""
        if set(prepared) == set(best):
            return True
        if not set(prepared) <= set(self._waiting) or self._first() not in prepared:
            return False
        found, possible = (audio_rate([window.seconds for window in windows], cost) for windows in (prepared, best))
        return found >= _AS_GOOD * possible

    def _remove(self, windows: list[_Window]) -> None:
        """Take windows out of the queue. Call it with the lock held."""
        removed = set(windows)
        self._waiting = [window for window in self._waiting if window not in removed]
        self._changed.notify_all()

    def _prepare(self) -> None:
        """Choose and pad the next batch, while the device works on this one. Its windows stay in the queue."""
        assert self.recognizer  # noqa: S101 - a batch is being decoded
        self._prepared = None
        try:
            self._costs.fit()
            with self._changed:
                windows = self._best(self._costs.cost)
            if windows:
                self._prepared = _Batch(windows, self._pad(windows))
        except Exception:  # noqa: BLE001 - it is padded again when its turn comes, and fails then if it must
            self._prepared = None

    def _pad(self, windows: Sequence[_Window]) -> PaddedBatch:
        assert self.recognizer  # noqa: S101 - _ready() has seen to it
        return self.recognizer.pad([window.signal for window in windows], [window.options for window in windows])

    def _decode(self, batch: _Batch) -> None:
        """Decode a batch, and set the result or the exception of each of its windows."""
        assert self.recognizer  # noqa: S101 - _ready() has seen to it
        windows, asked = batch.windows, max(self._ended, min(window.queued for window in batch.windows))
        padded: PaddedBatch | None
        padded, batch.padded = batch.padded, None
        try:
            padded = padded or self._pad(windows)
            started = self._clock()
            hypotheses = padded.transcribe(self._prepare)
        except DeviceFailedError as error:
            self._is_broken = True
            _fail(batch, _device_failed(error))
            return
        except Exception as error:  # noqa: BLE001 - every job gets an answer
            if len(windows) == 1:
                _fail(batch, resource_error(error) or error)
                return
            hypotheses = None
            if is_out_of_memory(error):
                self._budget = min(self._budget, max(batch.memory_seconds / 2, _LEAST_BUDGET_S))
        except BaseException as error:  # noqa: BLE001 - such as SystemExit: whatever it was, the model cannot be trusted
            self._is_broken = True
            _fail(batch, _device_failed(error))
            return
        if hypotheses is None:
            # Not above: the exception's traceback holds what the failed batch allocated.
            padded = self._prepared = None
            middle = len(windows) // 2
            self._decode(_Batch(windows[:middle]))
            self._decode(_Batch(windows[middle:]))
            return
        self._ended = self._clock()
        self._count(batch, started, max(0.0, started - asked))
        for window, read in zip(windows, hypotheses, strict=True):
            window.result.set_result(WindowResult(read, window.queued, started, self._ended, len(windows)))

    def _count(self, batch: _Batch, started: float, host_s: float) -> None:
        """Learn from a batch that was decoded; see `SchedulerStats`."""
        assert self.recognizer  # noqa: S101 - it has decoded the batch
        if batch.memory_seconds > self._budget / 2:
            self._budget = min(self._budget * _BUDGET_GROWTH, self.recognizer.batch_seconds)
        count, longest = len(batch.windows), batch.longest
        self._costs.observe(BatchTime(count, longest, self._ended - started))
        self.stats = replace(
            self.stats,
            batches=self.stats.batches + 1,
            windows=self.stats.windows + count,
            audio_s=self.stats.audio_s + sum(window.seconds for window in batch.windows),
            padded_s=self.stats.padded_s + count * longest,
            busy_s=self.stats.busy_s + self._ended - started,
            host_s=self.stats.host_s + host_s,
        )


def _started(windows: Sequence[_Window]) -> list[_Window]:
    """Return the windows whose jobs were not cancelled, and which cannot be any more."""
    return [window for window in windows if window.result.set_running_or_notify_cancel()]


def _fail(batch: _Batch, error: Exception) -> None:
    for window in batch.windows:
        if not window.result.done():
            window.result.set_exception(error)


def _model_unavailable(cause: BaseException) -> JobError:
    error = JobError(Code.MODEL_UNAVAILABLE, "the worker could not load its model; try again")
    error.__cause__ = cause
    return error


def _device_failed(cause: BaseException | None = None) -> JobError:
    error = JobError(Code.DEVICE_FAILED, "the worker's device failed and the worker is being replaced; send it again")
    error.__cause__ = cause
    return error
