"""The line that says what the worker has done: its numbers, its times, and its silence."""

import json
import re
import signal
import subprocess
import sys
import threading
import time

import pytest

from audio_files import data_url, encode, tone
from conftest import ROOT
from parakeet_worker.model.engine import Stats
from parakeet_worker.record import Record
from parakeet_worker.summary import INTERVAL_S, Summary, SummaryLine, _memory_mb
from runpod_platform import Platform, wait_until, worker_process


class Work:
    """What the summary is about, as a test wants it."""

    def __init__(self, interval_s: float = 3_600.0) -> None:
        self.stats = Stats()
        self.queued = 0
        self.now = 100.0
        self.lines: list[SummaryLine] = []
        self.summary = Summary(lambda: self.stats, lambda: self.queued, interval_s, lambda: self.now)

    def start(self) -> None:
        self.summary.start(self.lines.append)

    def finish(self, count: int, **record) -> None:
        for _ in range(count):
            self.summary.begin()
            self.summary.end(Record(action="transcribe", **record))


@pytest.fixture
def work():
    work = Work()
    yield work
    work.summary.close()


def test_the_numbers(work):
    work.start()
    work.finish(6, audio_s=20.0, batch=4)
    work.finish(2, audio_s=99.0, code="cancelled")
    work.finish(1, code="download_failed")
    work.stats = Stats(batches=3, windows=9, audio_s=130.0, padded_s=150.0, busy_s=0.5)
    work.now += 60.0
    first = work.summary._line()
    work.finish(2, audio_s=30.0, batch=8)
    work.summary.begin()
    work.queued = 3
    work.stats = Stats(batches=4, windows=17, audio_s=200.0, padded_s=210.0, busy_s=2.0)
    work.now += 40.0
    fields = work.summary._line().fields()
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


def test_the_line(work):
    work.start()
    work.finish(3, audio_s=20.0, batch=2)
    work.finish(1, code="download_failed")
    work.stats = Stats(batches=2, windows=3, busy_s=0.25)
    work.now += 120.0
    totals = (
        "4 jobs (ok 3, download_failed 1), 60.0 s of audio in 120.0 s (RTFx 0.50), "
        "model busy 0.2 s (RTFx 240.0), 2 batches of 1.5 windows, 2 at most; 0 jobs in hand, 0 windows queued"
    )
    head, _, rest = str(work.summary._line()).partition(totals)
    assert re.fullmatch(r"Since \d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ: ", head)
    assert re.fullmatch(r"(, \d+ MB of memory \(\d+ MB at most\))?\.", rest)
    work.now += 300.0
    line = str(work.summary._line())
    assert ": 4 jobs (ok 3, download_failed 1), 60.0 s of audio in 420.0 s (RTFx 0.14), " in line
    last = "0 jobs, 0.0 s of audio in 300.0 s (RTFx 0.00), model busy 0.0 s, 0 batches."
    assert line.endswith(f". The last 300 s of it: {last}")


def test_nothing_is_divided_by_nothing(work):
    work.start()
    line = work.summary._line()
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


def test_an_interval_in_which_nothing_happened_has_no_line():
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


def test_a_worker_that_was_never_ready_has_no_line():
    work = Work()
    work.finish(1)
    work.summary.close()
    assert work.lines == []


def test_a_worker_without_jobs_has_a_last_line(work):
    work.start()
    work.now += 30.0
    work.summary.close()
    (line,) = work.lines
    assert (line.is_last, line.total.worker_s) == (True, 30.0)


def test_jobs_are_counted_on_any_thread(work):
    work.start()
    threads = [threading.Thread(target=work.finish, args=(2_000,), kwargs={"audio_s": 1.0}) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    line = work.summary._line()
    assert (line.total.codes, line.total.audio_s, line.jobs_in_hand) == ({"ok": 16_000}, 16_000.0, 0)


def test_a_process_ends_without_waiting_for_the_next_line():
    code = "from parakeet_worker.summary import Summary; Summary().start(print)"
    started = time.monotonic()
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, timeout=30, check=False).returncode == 0
    assert time.monotonic() - started < 20 < INTERVAL_S


@pytest.mark.skipif(_memory_mb() is None, reason="memory is read from /proc")
def test_memory_is_that_of_the_process():
    code = """
from parakeet_worker.summary import _memory_mb
before, _ = _memory_mb()
block = bytearray(b"x" * 50_000_000)
held, peak = _memory_mb()
assert 40 < held - before < 120
assert peak >= held
"""
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, timeout=30, check=False).returncode == 0


SHORT = f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
from parakeet_worker import summary
summary.Summary.__init__.__defaults__ = (*summary.Summary.__init__.__defaults__[:2], 0.2, summary.time.monotonic)
from handler import handler, worker
from parakeet_worker.start import start

if __name__ == "__main__":
    start(handler, worker)
"""


def test_the_real_worker_sums_up(tmp_path, clips):
    platform, log, script = Platform(), tmp_path / "log", tmp_path / "short.py"
    script.write_text(SHORT)
    chosen = clips[:8]
    with worker_process(platform, log, script=script, PARAKEET_LOG_FORMAT="json") as process:
        jobs = platform.submit(
            *[{"input": {"audio_url": data_url(clip.path.read_bytes())}} for clip in chosen],
            {"input": {}},
        )
        assert wait_until(lambda: all(job.answers for job in jobs))
        assert wait_until(lambda: '"summary"' in log.read_text())
        # In hand when the worker is told to stop.
        (last,) = platform.submit({"input": {"audio_url": data_url(encode(tone(60.0)))}})
        assert wait_until(lambda: last.handed_out)
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    platform.close()
    assert last.answers == 1
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    done = [line for line in lines if line.get("code") == "ok"]
    summaries = [line for line in lines if line.get("event") == "summary"]
    end = summaries[-1]
    assert lines[-1] is end
    assert [line["is_last"] for line in summaries] == [False] * (len(summaries) - 1) + [True]
    assert end["codes"] == {"ok": 9, "missing_field": 1}
    assert end["audio_s"] == pytest.approx(sum(line["audio_s"] for line in done), abs=0.01)
    assert end["audio_s"] == pytest.approx(60 + sum(clip.duration for clip in chosen), abs=0.1)
    assert end["jobs"] == sum(line["interval"]["jobs"] for line in summaries)
    assert end["batch_max"] == max(line["batch"] for line in done)
    assert end["rtfx_worker"] == pytest.approx(end["audio_s"] / end["worker_s"], rel=0.01)
    assert end["rtfx_busy"] > end["rtfx_worker"]
    assert 0 < end["busy_s"] < end["worker_s"]
    assert end["jobs_in_hand"] == end["windows_queued"] == 0
    assert 100 < end["memory_mb"] <= end["memory_peak_mb"]
