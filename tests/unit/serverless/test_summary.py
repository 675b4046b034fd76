"""The line that says what the worker has done: its numbers, its times, and its silence."""

import re
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from parakeet_worker.asr.scheduler import SchedulerStats
from parakeet_worker.job.metrics import JobMetrics
from parakeet_worker.serverless.summary import Summary, SummaryLine
from runpod_platform import wait_until


class Work:
    """What the summary is about, as a test wants it."""

    def __init__(self, interval_s: float = 3_600.0) -> None:
        self.stats = SchedulerStats()
        self.queued = 0
        self.now = 100.0
        self.lines: list[SummaryLine] = []
        self.summary = Summary(lambda: self.stats, lambda: self.queued, interval_s, lambda: self.now)

    def start(self) -> None:
        self.summary.start(self.lines.append)

    def finish(self, count: int, *, code: str = "ok", audio_s: float | None = None, batch: int | None = None) -> None:
        metrics = JobMetrics()
        metrics.action, metrics.code, metrics.audio_s, metrics.batch = "transcribe", code, audio_s, batch
        for _ in range(count):
            self.summary.begin()
            self.summary.end(metrics)


@pytest.fixture
def work() -> Iterator[Any]:
    work = Work()
    yield work
    work.summary.close()


def test_the_numbers(work: Any) -> None:
    work.start()
    work.finish(6, audio_s=20.0, batch=4)
    work.finish(2, audio_s=99.0, code="cancelled")
    work.finish(1, code="download_failed")
    work.stats = SchedulerStats(batches=3, windows=9, audio_s=130.0, padded_s=150.0, busy_s=0.5)
    work.now += 60.0
    first = work.summary.line()
    work.finish(2, audio_s=30.0, batch=8)
    work.summary.begin()
    work.queued = 3
    work.stats = SchedulerStats(batches=4, windows=17, audio_s=200.0, padded_s=210.0, busy_s=2.0)
    work.now += 40.0
    fields = work.summary.line().fields()
    interval = fields.pop("interval")
    memory = fields.pop("memory_mb"), fields.pop("memory_peak_mb")
    assert 0 < memory[0] <= memory[1]
    assert fields.pop("since").endswith("Z")
    assert fields == {
        "event": "summary",
        "is_last": False,
        "worker_s": 100.0,
        "jobs": 11,
        "codes": {"ok": 8, "cancelled": 2, "download_failed": 1},
        "audio_s": 180.0,
        "busy_s": 2.0,
        "rtfx_worker": 1.8,
        "rtfx_busy": 90.0,
        "batches": 4,
        "windows": 17,
        "batch_mean": 4.25,
        "batch_max": 8,
        "jobs_in_hand": 1,
        "windows_queued": 3,
    }
    assert interval == {
        "worker_s": 40.0,
        "jobs": 2,
        "codes": {"ok": 2},
        "audio_s": 60.0,
        "busy_s": 1.5,
        "rtfx_worker": 1.5,
        "rtfx_busy": 40.0,
        "batches": 1,
        "windows": 8,
        "batch_mean": 8.0,
    }
    assert first.fields()["interval"] == {
        name: value for name, value in first.fields().items() if name in first.fields()["interval"]
    }


def test_the_line(work: Any) -> None:
    work.start()
    work.finish(3, audio_s=20.0, batch=2)
    work.finish(1, code="download_failed")
    work.stats = SchedulerStats(batches=2, windows=3, busy_s=0.25)
    work.now += 120.0
    totals = (
        "4 jobs (ok 3, download_failed 1), 60.0 s of audio in 120.0 s (RTFx 0.50), "
        "model busy 0.2 s (RTFx 240.0), 2 batches of 1.5 windows, 2 at most; 0 jobs in hand, 0 windows queued"
    )
    head, _, rest = str(work.summary.line()).partition(totals)
    assert re.fullmatch(r"Since \d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ: ", head)
    assert re.fullmatch(r"(, \d+ MB of memory \(\d+ MB at most\))?\.", rest)
    work.now += 300.0
    line = str(work.summary.line())
    assert ": 4 jobs (ok 3, download_failed 1), 60.0 s of audio in 420.0 s (RTFx 0.14), " in line
    last = "0 jobs, 0.0 s of audio in 300.0 s (RTFx 0.00), model busy 0.0 s, 0 batches."
    assert line.endswith(f". The last 300 s of it: {last}")


def test_nothing_is_divided_by_nothing(work: Any) -> None:
    work.start()
    line = work.summary.line()
    assert line.total.fields() == {
        "worker_s": 0.0,
        "jobs": 0,
        "codes": {},
        "audio_s": 0.0,
        "busy_s": 0.0,
        "batches": 0,
        "windows": 0,
    }
    assert ": 0 jobs, 0.0 s of audio in 0.0 s, model busy 0.0 s, 0 batches, 0 at most; " in str(line)


def test_an_interval_in_which_nothing_happened_has_no_line() -> None:
    work = Work(interval_s=0.02)
    work.start()
    time.sleep(0.2)
    assert work.lines == []
    work.finish(1, audio_s=5.0)
    assert wait_until(lambda: work.lines, 5)
    time.sleep(0.2)
    (line,) = work.lines
    assert line.interval.codes == {"ok": 1}
    work.summary.begin()  # and does not end: worth a line
    assert wait_until(lambda: len(work.lines) > 3, 5)
    work.summary.close()
    assert [line.is_last for line in work.lines[-2:]] == [False, True]
    count = len(work.lines)
    time.sleep(0.1)
    work.summary.close()
    assert len(work.lines) == count


def test_a_worker_that_was_never_ready_has_no_line() -> None:
    work = Work()
    work.finish(1)
    work.summary.close()
    assert work.lines == []


def test_a_worker_without_jobs_has_a_last_line(work: Any) -> None:
    work.start()
    work.now += 30.0
    work.summary.close()
    (line,) = work.lines
    assert (line.is_last, line.total.worker_s) == (True, 30.0)


def test_jobs_are_counted_on_any_thread(work: Any) -> None:
    work.start()
    threads = [threading.Thread(target=work.finish, args=(2_000,), kwargs={"audio_s": 1.0}) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    line = work.summary.line()
    assert (line.total.codes, line.total.audio_s, line.jobs_in_hand) == ({"ok": 16_000}, 16_000.0, 0)
