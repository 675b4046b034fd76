"""The summary: a line of the log about the worker's jobs, every five minutes and at its end."""

import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from parakeet_worker.asr.scheduler import SchedulerStats
from parakeet_worker.job.metrics import SUCCESS, JobMetrics

INTERVAL_S = 300.0
"""Seconds from one line to the next."""

# Longest wait at the end for a line that is being written.
_LAST_WRITE_S = 1.0


@dataclass(frozen=True)
class Totals:
    """Totals of a period.

    Attributes:
        worker_s: Length of the period in seconds.
        codes: Number of jobs that ended with each code.
        audio_s: Seconds of audio of the successful ones.
        batches: Batches that were decoded.
        windows: Windows in them.
        busy_s: Seconds that the model spent on them.
    """

    worker_s: float = 0.0
    codes: Counter[str] = field(default_factory=Counter)
    audio_s: float = 0.0
    batches: int = 0
    windows: int = 0
    busy_s: float = 0.0

    def __sub__(self, earlier: "Totals") -> "Totals":
        return Totals(
            self.worker_s - earlier.worker_s,
            self.codes - earlier.codes,
            self.audio_s - earlier.audio_s,
            self.batches - earlier.batches,
            self.windows - earlier.windows,
            self.busy_s - earlier.busy_s,
        )

    def fields(self) -> dict[str, Any]:
        """Return the JSON fields, without ratios that would divide by zero."""
        given = {
            "worker_s": self.worker_s,
            "jobs": self.codes.total(),
            "codes": dict(self.codes.most_common()),
            "audio_s": self.audio_s,
            "busy_s": self.busy_s,
            "rtfx_worker": _ratio(self.audio_s, self.worker_s),
            "rtfx_busy": _ratio(self.audio_s, self.busy_s),
            "batches": self.batches,
            "windows": self.windows,
            "batch_mean": _ratio(self.windows, self.batches),
        }
        return {name: _rounded(value) for name, value in given.items() if value is not None}

    def __str__(self) -> str:
        codes = ", ".join(f"{code} {count}" for code, count in self.codes.most_common())
        shown = self.fields()

        def ratio(name: str, text: str) -> str:
            return text.format(shown[name]) if name in shown else ""

        return (
            f"{self.codes.total()} jobs{f' ({codes})' if codes else ''}, "
            f"{self.audio_s:.1f} s of audio in {self.worker_s:.1f} s{ratio('rtfx_worker', ' (RTFx {:.2f})')}, "
            f"model busy {self.busy_s:.1f} s{ratio('rtfx_busy', ' (RTFx {:.1f})')}, "
            f"{self.batches} batches{ratio('batch_mean', ' of {:.1f} windows')}"
        )


@dataclass(frozen=True)
class SummaryLine:
    """One line of the log.

    Attributes:
        since: When the worker was ready, in UTC.
        total: Counts since then.
        interval: Counts since the last line.
        batch_max: Windows in the largest batch.
        jobs_in_hand: Jobs that are not answered yet.
        windows_queued: Windows that wait for the model.
        memory_mb: Resident memory of the process and the most that it has been, in megabytes of 1,000,000 bytes; None
            where the system does not tell.
        is_last: Whether the worker ends.
    """

    since: str
    total: Totals
    interval: Totals
    batch_max: int
    jobs_in_hand: int
    windows_queued: int
    memory_mb: tuple[float, float] | None
    is_last: bool

    @property
    def is_idle(self) -> bool:
        """Whether the interval has no jobs and no batches, and none are in hand."""
        return not (self.interval.codes or self.interval.batches or self.jobs_in_hand)

    def fields(self) -> dict[str, Any]:
        """Return the JSON fields: totals since the start, and those of the interval under `interval`."""
        memory = zip(("memory_mb", "memory_peak_mb"), self.memory_mb or (), strict=False)
        return {
            "event": "summary",
            "is_last": self.is_last,
            "since": self.since,
            **self.total.fields(),
            "batch_max": self.batch_max,
            "jobs_in_hand": self.jobs_in_hand,
            "windows_queued": self.windows_queued,
            **{name: round(size, 1) for name, size in memory},
            "interval": self.interval.fields(),
        }

    def __str__(self) -> str:
        memory = interval = ""
        if self.memory_mb:
            memory = ", {:.0f} MB of memory ({:.0f} MB at most)".format(*self.memory_mb)
        if self.interval != self.total:
            interval = f" The last {self.interval.worker_s:.0f} s of it: {self.interval}."
        return (
            f"Since {self.since}: {self.total}, {self.batch_max} at most; "
            f"{self.jobs_in_hand} jobs in hand, {self.windows_queued} windows queued{memory}.{interval}"
        )


class Summary:
    """Counts jobs, on any thread, and writes summaries of them from `start()` to `close()`.

    Args:
        stats: Returns the scheduler's counts.
        queued: Returns the number of windows in its queue.
        interval_s: Seconds from one line to the next.
        clock: Seconds that never go back.
    """

    def __init__(
        self,
        stats: Callable[[], SchedulerStats] = SchedulerStats,
        queued: Callable[[], int] = int,
        interval_s: float = INTERVAL_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._stats = stats
        self._queued = queued
        self._interval_s = interval_s
        self._clock = clock
        self._lock = threading.Lock()
        self._codes: Counter[str] = Counter()
        self._audio_s = 0.0
        self._batch_max = self._jobs_in_hand = 0
        self._write: Callable[[SummaryLine], None] | None = None
        self._is_over = threading.Event()

    def begin(self) -> None:
        """Count a job as started."""
        with self._lock:
            self._jobs_in_hand += 1

    def end(self, record: JobMetrics) -> None:
        """Count a job as ended."""
        with self._lock:
            self._jobs_in_hand -= 1
            self._codes[record.code] += 1
            self._batch_max = max(self._batch_max, record.batch or 0)
            if record.code == SUCCESS:
                self._audio_s += record.audio_s or 0.0

    def start(self, write: Callable[[SummaryLine], None]) -> None:
        """Write a line after each interval with jobs in it. Call it when the worker is ready."""
        self._write = write
        self._started = self._clock()
        self._since = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"
        self._last = Totals()
        self._thread = threading.Thread(target=self._run, args=(write,), name="summary", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Write the last line, if `start()` was called."""
        self._is_over.set()
        if self._write:
            self._thread.join(_LAST_WRITE_S)
            self._write(self.line(is_last=True))
            self._write = None

    def _run(self, write: Callable[[SummaryLine], None]) -> None:
        while not self._is_over.wait(self._interval_s):
            line = self.line()
            if not line.is_idle:
                write(line)

    def line(self, *, is_last: bool = False) -> SummaryLine:
        """Return the line of what was done since `start()`, and since the last call in its interval."""
        with self._lock:
            stats = self._stats()
            total = Totals(
                self._clock() - self._started,
                self._codes.copy(),
                self._audio_s,
                stats.batches,
                stats.windows,
                stats.busy_s,
            )
            interval, self._last = total - self._last, total
            jobs_in_hand, batch_max = self._jobs_in_hand, self._batch_max
        return SummaryLine(self._since, total, interval, batch_max, jobs_in_hand, self._queued(), memory_mb(), is_last)


def _ratio(part: float, whole: float) -> float | None:
    return part / whole if whole else None


def _rounded(value: object) -> object:
    return round(value, 3) if isinstance(value, float) else value


def memory_mb() -> tuple[float, float] | None:
    """Return the resident memory of this process and its peak, in megabytes; see proc_pid_status(5)."""
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
        kib = dict(line.split(":", 1) for line in status.splitlines())
        now, peak = (int(kib[name].split()[0]) * 1024 / 1e6 for name in ("VmRSS", "VmHWM"))
    except (OSError, LookupError, ValueError):
        return None
    return now, peak
