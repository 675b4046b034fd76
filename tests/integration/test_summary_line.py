"""The summary of a real worker."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from audio_files import data_url, encode, tone
from parakeet_worker.serverless.summary import INTERVAL_S, memory_mb
from project import ROOT, Clip
from runpod_platform import Platform, wait_until, worker_process


def test_a_process_ends_without_waiting_for_the_next_line() -> None:
    code = "from parakeet_worker.serverless.summary import Summary; Summary().start(print)"
    started = time.monotonic()
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, timeout=30, check=False).returncode == 0
    assert time.monotonic() - started < 20 < INTERVAL_S


@pytest.mark.skipif(memory_mb() is None, reason="memory is read from /proc")
def test_memory_is_that_of_the_process() -> None:
    code = """
from parakeet_worker.serverless.summary import memory_mb
before, _ = memory_mb()
block = bytearray(b"x" * 50_000_000)
held, peak = memory_mb()
assert 40 < held - before < 120
assert peak >= held
"""
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, timeout=30, check=False).returncode == 0


SHORT = f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
from parakeet_worker.serverless import summary
summary.Summary.__init__.__defaults__ = (*summary.Summary.__init__.__defaults__[:2], 0.2, summary.time.monotonic)
from handler import handler, settings, worker
from parakeet_worker.startup import start

if __name__ == "__main__":
    start(handler, settings, worker)
"""


def test_the_real_worker_sums_up(tmp_path: Path, clips: list[Clip]) -> None:
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
