"""Thousands of jobs through the worker's real loop: is one lost, answered twice or wrongly, and does anything grow?

python tests/tools/soak.py --jobs 5000
"""

import argparse
import json
import random
import statistics
import sys
import tempfile
import threading
import time
from collections import Counter, deque
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from jsonschema import Draft202012Validator

from audio_files import data_url, encode
from loopback import LoopbackServer
from parakeet_worker.job.request import schema
from project import SPEECH
from runpod_platform import FINAL, Job, Platform, worker_process

SAMPLES = 30
"""How often the worker is looked at, each time with no job in flight."""

GROWTH = 0.02
"""Most growth after the first tenth of the jobs, as a part."""


@dataclass(frozen=True)
class Kind:
    """One kind of job.

    Attributes:
        name: What the report calls it.
        share: Its part of all jobs, by weight.
        requests: What is sent.
        code: The code that it must end with, `ok`, or `cancelled`.
    """

    name: str
    share: float
    requests: list[dict[str, Any]]
    code: str = "ok"


def make_kinds(server: LoopbackServer) -> list[Kind]:
    """Lay the audio out on a server, and return the mix."""
    clips = sorted(SPEECH.glob("*.flac"))
    urls = [server.serve(f"/{clip.name}", clip.read_bytes()) for clip in clips]
    speech = [soundfile.read(clip, dtype="float32")[0] for clip in clips]
    long = np.concatenate([np.concatenate([part, np.zeros(8_000, np.float32)]) for part in speech * 4])
    long_url = server.serve("/long.flac", encode(long[: 330 * 16_000], container="FLAC"))
    minute_url = server.serve("/minute.mp3", encode(long[: 60 * 16_000], container="MP3", subtype="MPEG_LAYER_III"))
    truncated = server.serve("/cut.wav", encode(speech[0])[:-5_000])
    server.routes["/slow.wav"] = drip
    none = server.url + "/none.wav?signature=secret"

    def audio(*sources: str, **options: object) -> list[dict[str, Any]]:
        return [{"audio_url": source, **options} for source in sources]

    return [
        Kind("clip by URL", 40, audio(*urls)),
        Kind("clip with timestamps", 20, audio(*urls, timestamps=True)),
        Kind("clip inline", 10, audio(*[data_url(clip.read_bytes()) for clip in clips])),
        Kind("a minute of MP3", 3, audio(minute_url, timestamps=True)),
        Kind("five and a half minutes", 1, audio(long_url)),
        Kind("model_info", 4, [{"action": "model_info"}]),
        Kind("not there", 4, audio(none), "download_failed"),
        Kind("truncated", 3, audio(truncated), "corrupt_audio"),
        Kind("no audio", 3, audio(data_url(b"hello, this is no audio at all")), "unsupported_format"),
        Kind("invalid", 3, [{}], "missing_field"),
        Kind("cancelled in a download", 4, audio(server.url + "/slow.wav"), "cancelled"),
        Kind("cancelled anywhere", 5, audio(*urls, minute_url), "cancelled"),
    ]


def drip(handler: Any) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", "10000000")
    handler.end_headers()
    for _ in range(600):
        handler.wfile.write(b"x" * 1_000)
        time.sleep(0.05)


def sample(pid: int, scratch: Path) -> dict[str, float]:
    """Read memory (MB of resident set), threads and open files of a process, and its temporary files."""
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return {
        "memory": int(status["VmRSS"].split()[0]) / 1000,
        "threads": int(status["Threads"]),
        "files": len(list(Path(f"/proc/{pid}/fd").iterdir())),
        "scratch": len(list(scratch.iterdir())),
    }


def code_of(job: Job) -> str:
    if job.status != "FAILED":
        return "cancelled" if job.status == "CANCELLED" else "ok"
    return job.result["output"]["code"]  # type: ignore[no-any-return]


def make_plan(kinds: list[Kind], count: int, in_flight: int, chance: random.Random) -> list[Kind]:
    """Choose the kind of each job: by their shares, but at first as many of one kind at a time as can be in flight.

    So all that can happen at once happens early. Memory, threads and connections are kept once there is a use for
    them, and later growth is a leak rather than a coincidence that had not come yet.
    """
    bursts = [kind for kind in sorted(kinds, key=lambda kind: kind.share) for _ in range(in_flight)]
    burst = bursts[: count // 10]
    return burst + chance.choices(kinds, [kind.share for kind in kinds], k=count - len(burst))


def send(kinds: list[Kind], platform: Platform, in_flight: int, chance: random.Random) -> list[tuple[Kind, Job]]:
    """Send one job of each kind, so many at a time, and wait until all are done."""
    sent: list[tuple[Kind, Job]] = []
    waiting = deque(kinds)
    going: list[Job] = []
    while waiting or going:
        going = [job for job in going if job.status not in FINAL]
        while waiting and len(going) < in_flight:
            kind = waiting.popleft()
            (job,) = platform.submit({"input": chance.choice(kind.requests)})
            sent.append((kind, job))
            going.append(job)
            if kind.code == "cancelled":
                threading.Timer(chance.uniform(0.0, 1.0), platform.cancel, [job]).start()
        time.sleep(0.005)
    return sent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--jobs", type=int, default=5_000)
    parser.add_argument("--in-flight", type=int, default=24, help="jobs that the platform has at a time")
    parser.add_argument("--concurrency", type=int, default=16, help="of the worker")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    chance = random.Random(options.seed)
    server, platform = LoopbackServer(), Platform()
    kinds = make_kinds(server)
    plan = make_plan(kinds, options.jobs, options.in_flight, chance)
    samples: list[dict[str, float]] = []
    jobs: list[tuple[Kind, Job]] = []
    seconds = 0.0
    with tempfile.TemporaryDirectory() as directory:
        scratch = Path(directory, "scratch")
        scratch.mkdir()
        log = Path(directory, "log")
        environ = {"TMPDIR": str(scratch), "PARAKEET_CONCURRENCY": str(options.concurrency)}
        with worker_process(platform, log, PARAKEET_LOG_FORMAT="json", **environ) as process:  # type: ignore[arg-type]
            (first,) = platform.submit({"input": {"action": "model_info"}})
            while not first.answers:
                time.sleep(0.05)
            print(f"{'jobs':>6} {'jobs/s':>7} {'memory':>10} {'threads':>8} {'open files':>11} {'temporary':>10}")
            part = max(options.jobs // SAMPLES, 1)
            for begin in range(0, len(plan), part):
                started = time.monotonic()
                jobs += send(plan[begin : begin + part], platform, options.in_flight, chance)
                seconds += time.monotonic() - started
                if process.poll() is not None:
                    sys.exit(f"the worker ended with {process.returncode}:\n{log.read_text()[-2000:]}")
                time.sleep(1)  # what was cancelled is let go
                samples.append(now := sample(process.pid, scratch))
                print(
                    f"{len(jobs):>6} {len(jobs) / seconds:>7.1f} {now['memory']:>7.0f} MB {now['threads']:>8} "
                    f"{now['files']:>11} {now['scratch']:>10}",
                    flush=True,
                )
            process.terminate()
            ended = process.wait(30)
        # A job's lines, all of which have a code.
        lines = [line for line in map(json.loads, log.read_text().splitlines()) if "code" in line]
    faults = report(jobs, lines, samples, seconds)
    if ended != 0:
        faults.append(f"the worker ended with {ended}")
    platform.close()
    server.close()
    print("\n" + ("; ".join(faults) if faults else "nothing lost, nothing answered twice, nothing grew"))
    sys.exit(bool(faults))


def report(
    jobs: list[tuple[Kind, Job]], lines: list[dict[str, Any]], samples: list[dict[str, Any]], seconds: float
) -> list[str]:
    """Print what was measured, and return what is wrong."""
    audio = sum(line.get("audio_s", 0) for line in lines if line["code"] == "ok")
    print(f"\n{len(jobs)} jobs in {seconds:.0f} s: {len(jobs) / seconds:.1f} jobs/s, RTFx {audio / seconds:.0f}\n")
    print(f"{'kind':<26} {'jobs':>6} {'p50':>8} {'p95':>8} {'p99':>8}  codes")
    for name in dict.fromkeys(kind.name for kind, _ in jobs):
        these = [job for kind, job in jobs if kind.name == name]
        took = sorted(job.ended - job.queued for job in these)
        cut = statistics.quantiles(took, n=100) if len(took) > 1 else took * 99
        codes = ", ".join(f"{code} {count}" for code, count in Counter(map(code_of, these)).most_common())
        print(f"{name:<26} {len(these):>6} {cut[49]:>6.2f} s {cut[94]:>6.2f} s {cut[98]:>6.2f} s  {codes}")

    faults = []
    # What is to be cancelled may be done before that.
    wrong = [
        job.id for kind, job in jobs if code_of(job) not in {kind.code, "ok" if kind.code == "cancelled" else None}
    ]
    if wrong:
        faults.append(f"{len(wrong)} jobs ended otherwise than they should, such as {wrong[0]}")
    if twice := [job.id for _, job in jobs if job.answers > 1]:
        faults.append(f"{len(twice)} were answered twice")
    if lost := [job.id for _, job in jobs if job.status != "CANCELLED" and job.answers == 0]:
        faults.append(f"{len(lost)} were lost")
    invalid = [job.id for _, job in jobs if job.answers and job.status == "COMPLETED" and not is_valid(job)]
    if invalid:
        faults.append(f"{len(invalid)} answers break the schema")
    said = Counter(line["requestId"] for line in lines)
    taken = [job for _, job in jobs if job.handed_out]
    if odd := [job.id for job in taken if said[job.id] != 1]:
        faults.append(f"{len(odd)} have not one line in the log, such as {odd[0]}")
    if len(samples) >= 20:
        tenth = len(samples) // 10
        print()
        for name in ("memory", "threads", "files", "scratch"):
            early = statistics.median(s[name] for s in samples[tenth : 2 * tenth + 1])
            late = statistics.median(s[name] for s in samples[-tenth - 1 :])
            growth = late / early - 1 if early else late
            print(f"{name:<8} {early:>8.0f} after the first tenth, {late:>8.0f} at the end: {growth:+.1%}")
            if growth > GROWTH:
                faults.append(f"{name} grew by {growth:.1%}")
    return faults


def is_valid(job: Job) -> bool:
    action = job.request["input"].get("action", "transcribe")
    return Draft202012Validator(schema(action)).is_valid(job.result["output"])


if __name__ == "__main__":
    main()
