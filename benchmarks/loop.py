"""The worker's loop beside the one of RunPod's SDK: what a job waits for, and how many pass in a second.

python benchmarks/loop.py
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests" / "tools"))

from audio_files import data_url  # noqa: E402 - the tests' own platform
from runpod_platform import Job, Platform, wait_until, worker_process  # noqa: E402

FAR = 0.06
"""Seconds to a platform that is not next door."""


@contextmanager
def running(subject: str, concurrency: int, latency: float = 0.0) -> Iterator[Platform]:
    """Run a platform and a worker of it, with the loop of the `worker` or of the `sdk`."""
    platform = Platform(latency=latency)
    with tempfile.TemporaryDirectory() as directory:
        log = Path(directory, "log")
        with worker_process(platform, log, PARAKEET_CONCURRENCY=str(concurrency), PARAKEET_LOOP=subject):
            (first,) = platform.submit({"input": {"action": "model_info"}})
            assert wait_until(lambda: first.answers, 60), log.read_text()
            yield platform
    platform.close()


def finish(platform: Platform, inputs: list[dict[str, Any]]) -> tuple[list[Job], float]:
    """Send jobs at once, and return them and the seconds until the last one is answered."""
    started = time.monotonic()
    jobs = platform.submit(*[{"input": given} for given in inputs])
    assert wait_until(lambda: all(job.answers for job in jobs), 300)
    return jobs, max(job.ended for job in jobs) - started


def measure(subject: str, clips: list[dict[str, Any]]) -> dict[str, float]:
    """Return seconds that one clip takes, from its arrival to its answer, and jobs per second of full queues."""
    with running(subject, 8) as platform:
        alone = []
        for given in clips * 2:
            time.sleep(0.31)  # not in step with anything
            alone.append(finish(platform, [given])[1])
        _, seconds = finish(platform, clips * 5)
        busy = len(clips) * 5 / seconds
    with running(subject, 8, FAR) as platform:
        _, seconds = finish(platform, clips * 5)
        far = len(clips) * 5 / seconds
    with running(subject, 64) as platform:
        count = 1_000
        _, seconds = finish(platform, [{"action": "model_info"}] * count)
    return {"alone": statistics.median(alone), "busy": busy, "far": far, "empty": count / seconds}


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    paths = sorted((ROOT / "tests" / "speech").glob("*.flac"))
    clips = [{"audio_url": data_url(path.read_bytes())} for path in paths]
    rounds: dict[str, list[dict[str, float]]] = {subject: [] for subject in ("sdk", "worker")}
    for _ in range(options.rounds):
        for subject, measured in rounds.items():
            measured.append(measure(subject, clips))
    rows = {
        "one clip at a time, arrival to answer": ("alone", 1000, "ms"),
        "clips, 8 at a time": ("busy", 1, "jobs/s"),
        "the same, each answer of the platform 60 ms late": ("far", 1, "jobs/s"),
        "jobs without work (model_info), 64 at a time": ("empty", 1, "jobs/s"),
    }
    print(f"{'':<49} {'SDK loop':>14} {'this loop':>14} {'ratio':>7}")
    for title, (name, scale, unit) in rows.items():
        theirs, ours = (statistics.median(r[name] for r in rounds[s]) * scale for s in ("sdk", "worker"))
        ratio = theirs / ours if unit == "ms" else ours / theirs
        print(f"{title:<49} {theirs:>8.0f} {unit:<6} {ours:>6.0f} {unit:<6} {ratio:>6.1f}x")


if __name__ == "__main__":
    main()
