"""Attack the worker in its real loop, and print beside each attack what it did once and what it does now.

python tests/tools/attack.py --minutes 10

First every attack by itself, with its bar, then for the rest of the time all of them at once, with clips between them
that must not suffer.
"""

import argparse
import io
import json
import os
import random
import re
import resource
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from audio_files import contain, data_url, encode
from bad_servers import dripping, silent, unreachable
from flac_files import silence
from loopback import LoopbackServer
from mp3_files import PARTS, TAGS, ape, id3, part, with_numbers
from project import ROOT, SPEECH
from runpod_platform import FINAL, Job, Platform, wait_until, worker_process

CLIP = (SPEECH / "clip02.flac").read_bytes()
GOOD = {"audio_url": data_url(CLIP)}
ANSWER_S = 120.0
TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Result:
    """What an attack came to.

    Attributes:
        said: It, in figures.
        is_met: Whether its bar is met.
    """

    said: str
    is_met: bool


class Arena:
    """A platform, a worker of it, and a server with whatever the worker is told to download.

    Args:
        directory: For the log and the worker's temporary files.
        options: Of the worker's environment.
    """

    def __init__(self, directory: Path, **options: str) -> None:
        self.directory = directory
        self.options = {"PARAKEET_CONCURRENCY": "200"} | options
        self.web = LoopbackServer()
        self.log = directory / "log"
        self.scratch = directory / "scratch"
        self.scratch.mkdir()
        self.platform = Platform()
        self.process: subprocess.Popen[bytes] | None = None

    @contextmanager
    def running(self, script: Path | None = None) -> Iterator["Arena"]:
        """Run the worker, warm and idle."""
        given = {"script": script} if script else {}
        try:
            with worker_process(
                self.platform,
                self.log,
                **given,  # type: ignore[arg-type]
                **({"TMPDIR": str(self.scratch)} | self.options),  # type: ignore[arg-type]
            ) as self.process:
                self.finish(*[GOOD] * 4)
                yield self
        finally:
            self.platform.close()
            self.web.close()

    def submit(self, *inputs: dict[str, Any]) -> list[Job]:
        return self.platform.submit(*[{"input": given} for given in inputs])

    def finish(self, *inputs: dict[str, Any]) -> list[Job]:
        """Send jobs, and wait until all are answered."""
        jobs = self.submit(*inputs)
        assert wait_until(lambda: all(job.answers for job in jobs), ANSWER_S), self.log.read_text()[-2_000:]
        return jobs

    def time_of(self, given: dict[str, Any], count: int = 5) -> float:
        """Return the median of the seconds from a job's arrival to its answer."""
        taken = []
        for _ in range(count):
            (job,) = self.finish(given)
            taken.append(job.ended - job.queued)
        return statistics.median(taken)

    def cpu_s(self) -> float:
        """Return the processor seconds of the worker and of the processes that it started."""
        return sum(_cpu_s(pid) for pid in _family(self.process.pid))  # type: ignore[misc, union-attr]

    def memory_mb(self, name: str = "VmRSS") -> float:
        """Return the resident memory of the worker and of the processes that it started, in megabytes."""
        total = 0
        for pid in _family(self.process.pid):  # type: ignore[union-attr]
            with suppress(OSError, LookupError):
                status = Path(f"/proc/{pid}/status").read_text()
                total += int(re.search(rf"{name}:\s+(\d+)", status)[1])  # type: ignore[index]
        return total / 1000


def _family(pid: int) -> list[int]:
    """Return a process and those below it."""
    children = Path(f"/proc/{pid}/task/{pid}/children")
    below = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(OSError):
            below += [int(child) for child in task.read_text().split()]
    return [pid, *(one for child in below for one in _family(child))] if children.exists() else [pid]


def _cpu_s(pid: int) -> float:
    with suppress(OSError):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return sum(map(int, fields[11:15])) / TICKS  # with those of children that have ended
    return 0.0


def code_of(job: Job) -> str:
    """Return `ok`, `cancelled`, or the code of a job's failure."""
    if job.status == "CANCELLED":
        return "cancelled"
    return job.result.get("output", {}).get("code", "ok" if job.status == "COMPLETED" else job.status)  # type: ignore[no-any-return]


def codes(jobs: list[Job]) -> str:
    """Return how many jobs ended how."""
    return ", ".join(f"{count} {code}" for code, count in Counter(map(code_of, jobs)).most_common())


class Peak:
    """Watches the most memory and processor time that an arena's worker takes meanwhile."""

    def __init__(self, arena: Arena) -> None:
        self._arena = arena

    def __enter__(self) -> "Peak":
        self._before = self._arena.memory_mb()
        self._cpu = self._arena.cpu_s()
        self.memory_mb = 0.0
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def _watch(self) -> None:
        while not self._is_over.wait(0.02):
            self.memory_mb = max(self.memory_mb, self._arena.memory_mb() - self._before)

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._thread.join()
        self.cpu_s = self._arena.cpu_s() - self._cpu


# What is sent.


def stall(handler: object) -> None:
    """Answer with half a body and then nothing."""
    handler.send_response(200)  # type: ignore[attr-defined]
    handler.send_header("Content-Length", "100000")  # type: ignore[attr-defined]
    handler.end_headers()  # type: ignore[attr-defined]
    handler.wfile.write(b"x" * 50_000)  # type: ignore[attr-defined]
    handler.wfile.flush()  # type: ignore[attr-defined]
    time.sleep(60)


def continue_for_ever(handler: object) -> None:
    """Answer 100 Continue, as fast as it is read."""
    with suppress(OSError):
        while True:
            handler.wfile.write(b"HTTP/1.1 100 Continue\r\n\r\n" * 1_000)  # type: ignore[attr-defined]


def deep_job(job_id: str, depth: int) -> str:
    return f'{{"id": "{job_id}", "input": {{"audio_url": {"[" * depth}{"]" * depth}}}}}'


def strange_lines(log: str) -> list[str]:
    """Return the lines of a log that are torn, or a library's."""
    return [line for line in log.splitlines() if not re.match(r"(DEBUG|INFO|WARN|ERROR) *\| |--- Starting", line)]


# Each attack by itself.

Attack = Callable[[Path], Result]


def deep_json(directory: Path) -> Result:
    """Jobs nested 990 to 9,000 levels deep, each in a batch with two good ones"""
    with Arena(directory).running() as arena:
        lost = wrong = 0
        for depth in (990, 1_000, 2_000, 9_000):
            raw = {
                f"a{depth}": json.dumps({"id": f"a{depth}", "input": GOOD}),
                f"deep{depth}": deep_job(f"deep{depth}", depth),
            }
            raw |= {f"b{depth}": json.dumps({"id": f"b{depth}", "input": GOOD})}
            jobs = arena.platform.submit_raw(raw)
            wait_until(lambda: all(job.answers for job in jobs), 20)  # noqa: B023 - waited for here
            lost += sum(not job.answers for job in jobs)
            wrong += [code_of(job) for job in jobs] != ["ok", "invalid_type", "ok"]
        return Result(f"{lost} lost", lost == wrong == 0)


def slow_downloads(directory: Path) -> Result:
    """A good clip beside 64 downloads that drip and 64 cancelled ones that hang"""
    return _slow(directory, concurrency=200, drips=64, hanging=64)


def hanging_downloads(directory: Path) -> Result:
    """A good clip after 40 cancelled downloads that hang, with a concurrency of 8"""
    return _slow(directory, concurrency=8, drips=0, hanging=40)


def _slow(directory: Path, concurrency: int, drips: int, hanging: int) -> Result:
    options = {"PARAKEET_CONCURRENCY": str(concurrency)}
    with Arena(directory, **options).running() as arena, dripping() as drip, unreachable() as full, silent() as quiet:
        clip = {"audio_url": arena.web.serve("/clip.flac", CLIP)}
        hangs = [f"http://{full}/a.wav", f"https://{quiet}/a.wav", f"http://{quiet}/a.wav"]
        alone = arena.time_of(clip, 11)
        dripped = arena.submit(*[{"audio_url": drip}] * drips)
        for first in range(0, hanging, concurrency):
            count = min(concurrency, hanging - first)
            jobs = arena.submit(*[{"audio_url": hangs[number % len(hangs)]} for number in range(count)])
            wait_until(lambda: all(job.handed_out for job in jobs), 60)  # noqa: B023 - waited for here
            time.sleep(0.5)
            for job in jobs:
                arena.platform.cancel(job)
            time.sleep(0.2)
        beside = arena.time_of(clip, 11)
        for job in dripped:
            arena.platform.cancel(job)
    return Result(f"{alone:.2f} s alone, {beside:.2f} s beside", beside - alone <= 0.2)


def many_m4a(directory: Path) -> Result:
    """64 valid M4A files at once"""
    samples = soundfile.read(io.BytesIO(CLIP), dtype="float32")[0]
    with Arena(directory).running() as arena:
        url = arena.web.serve("/clip.m4a", contain(samples, "ipod", "aac"))
        started = time.monotonic()
        jobs = arena.finish(*[{"audio_url": url}] * 64)
        return Result(f"{codes(jobs)}, {time.monotonic() - started:.1f} s", {code_of(job) for job in jobs} == {"ok"})


def percent_escapes(directory: Path) -> Result:
    """A data: URL of 20 MB of percent escapes"""
    escaped = "".join(f"%{byte:02X}" for byte in data_url(CLIP).partition(",")[2].encode())
    padding = "%20" * ((20_000_000 - len(escaped)) // 3)
    with Arena(directory).running() as arena, Peak(arena) as peak:
        (job,) = arena.finish({"audio_url": "data:audio/flac;base64," + escaped + padding})
        taken = job.ended - job.taken
    return Result(f"{code_of(job)}, {taken:.1f} s, {peak.memory_mb:.0f} MB", taken < 1.5 and peak.memory_mb < 300)


def fast_flac(directory: Path) -> Result:
    """A FLAC file of 10 minutes of silence, 655,350 Hz, 8 channels"""
    return _bomb(directory, silence(600, 655_350, 8), cpu_s=2)


def slower_flac(directory: Path) -> Result:
    """The same in blocks of 4,096 samples: a file of megabytes"""
    return _bomb(directory, silence(600, 655_350, 8, block=4_096), cpu_s=2)


def long_flac(directory: Path) -> Result:
    """A FLAC file of five hours of silence that does not say how long it is"""
    return _bomb(directory, silence(5 * 3_600, 16_000, 1, is_declared=False), cpu_s=20)


def _bomb(directory: Path, data: bytes, cpu_s: float) -> Result:
    with Arena(directory).running() as arena, Peak(arena) as peak:
        (job,) = arena.finish({"audio_url": arena.web.serve("/bomb.flac", data)})
        taken = job.ended - job.taken
        peak.__exit__()
    spent = f"{taken:.1f} s, {peak.cpu_s:.1f} s of a core, {peak.memory_mb:.0f} MB"
    return Result(
        f"{len(data) / 1000:.0f} kB: {code_of(job)}, {spent}",
        code_of(job) != "ok" and peak.cpu_s <= cpu_s and peak.memory_mb <= 200,
    )


def full_disk(directory: Path) -> Result:
    """20 downloads on a disk of 200 kB that is full before their last bytes, then a good one"""
    small = directory / "small"
    small.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", small], check=False).returncode:
        return Result("not tried: needs the right to mount", is_met=True)
    try:
        options = {"TMPDIR": str(small), "PARAKEET_MAX_DISK_MB": "3", "PARAKEET_CONCURRENCY": "1"}
        with Arena(directory, **options).running() as arena:
            big = arena.web.serve("/big.wav", bytes(204_900))
            clip = {"audio_url": arena.web.serve("/clip.flac", CLIP)}
            jobs = arena.finish(*[{"audio_url": big}] * 20)
            (good,) = arena.finish(clip)
        is_met = {code_of(job) for job in jobs} <= {"worker_busy", "unsupported_format"} and code_of(good) == "ok"
        return Result(f"{codes(jobs)}; then {code_of(good)}", is_met)
    finally:
        subprocess.run(["umount", "-l", small], check=False)


def no_memory(directory: Path) -> Result:
    """Three hours of FLAC, three times, with 60 MB of address space beyond idle; then a clip"""
    speech = np.concatenate([soundfile.read(path, dtype="float32")[0] for path in sorted(SPEECH.glob("*.flac"))])
    with Arena(directory, PARAKEET_CONCURRENCY="8").running() as arena:
        long = {
            "audio_url": arena.web.serve("/long.flac", encode(np.resize(speech, 10_800 * 16_000), container="FLAC"))
        }
        status = Path(f"/proc/{arena.process.pid}/status").read_text()  # type: ignore[union-attr]
        limit = int(re.search(r"VmSize:\s+(\d+)", status)[1]) * 1024 + 60_000_000  # type: ignore[index]
        resource.prlimit(arena.process.pid, resource.RLIMIT_AS, (limit, limit))  # type: ignore[union-attr]
        jobs = [arena.finish(given)[0] for given in (long, GOOD, long, long, long)]
        is_replaced = bool(jobs[-1].result.get("stopPod"))
        with suppress(subprocess.TimeoutExpired):
            arena.process.wait(20)  # type: ignore[union-attr]
        ended = arena.process.returncode  # type: ignore[union-attr]
    expected = ["out_of_memory", "ok", *["out_of_memory"] * 3]
    said = f"{codes(jobs)}, {'replaced' if is_replaced else 'not replaced'}"
    return Result(said, [code_of(job) for job in jobs] == expected and is_replaced and ended == 0)


def few_files(directory: Path) -> Result:
    """120 clips and films with `ulimit -n` 64, 48 and 36, and a concurrency of 64"""
    ended: list[Job] = []
    samples = soundfile.read(io.BytesIO(CLIP), dtype="float32")[0]
    for files in (64, 48, 36):
        place = directory / str(files)
        place.mkdir()
        script = place / "few.py"
        script.write_text(
            f"import resource, runpy, sys\nresource.setrlimit(resource.RLIMIT_NOFILE, ({files}, {files}))\n"
            f"sys.path.insert(0, {str(ROOT)!r})\n"
            f"if __name__ == '__main__':\n    runpy.run_path({str(ROOT / 'handler.py')!r}, run_name='__main__')\n"
        )
        with Arena(place, PARAKEET_CONCURRENCY="64").running(script) as arena:
            urls = [arena.web.serve("/clip.flac", CLIP), arena.web.serve("/clip.m4a", contain(samples, "ipod", "aac"))]
            ended += arena.finish(*[{"audio_url": url} for url in urls * 20])
    return Result(codes(ended), {code_of(job) for job in ended} == {"ok"})


def refused_results(directory: Path) -> Result:
    """Results that the platform refuses with 400 to 422; with 413; with 401, 403 and 404 for a while"""
    with Arena(directory).running() as arena:
        jobs = []
        for status in (400, 405, 409, 410, 422):
            arena.platform.faults["job-done"].append(status)
            jobs += arena.finish(GOOD)
        for status in (401, 403, 404):
            arena.platform.faults["job-done"].extend([status] * 2)
            jobs += arena.finish(GOOD)
        arena.platform.most_bytes = 1_000
        jobs += arena.finish(GOOD | {"timestamps": True})
        is_smaller = "notice" in jobs[-1].result["output"]
    is_met = [code_of(job) for job in jobs] == [*["result_refused"] * 5, *["ok"] * 4] and is_smaller
    return Result(f"{codes(jobs)}, 0 lost", is_met)


def odd_ids(directory: Path) -> Result:
    """Ids such as a?b, a#b, a%2fb, ../x, 123 and a lone surrogate"""
    ids = {
        "a?b": "a?b",
        "a#b": "a#b",
        "a%2fb": "a%2fb",
        "../x": "../x",
        "123": 123,
        "%ED%A0%80": "\ud800",
        "x\ny": "x\ny",
    }
    with Arena(directory).running() as arena:
        raw = {key: json.dumps({"id": job_id, "input": {"action": "model_info"}}) for key, job_id in ids.items()}
        jobs = arena.platform.submit_raw(raw | {"a": '{"id": "a", "input": {}}'})
        wait_until(lambda: all(job.answers for job in jobs), 10)
        own = sum(job.answers == 1 for job in jobs)
        is_clean = not re.search(r"[\x00-\x09\x0b-\x1f]", arena.log.read_text())
    return Result(f"{own} of {len(jobs)} answered at their own address", own == len(jobs) and is_clean)


def stop_while_stalled(directory: Path) -> Result:
    """SIGTERM while a download stalls and another one hangs"""
    with Arena(directory).running() as arena, unreachable() as hole:
        arena.web.routes["/stall"] = stall
        jobs = arena.submit({"audio_url": arena.web.url + "/stall"}, {"audio_url": f"http://{hole}/a.wav"})
        wait_until(lambda: all(job.handed_out for job in jobs), 10)
        time.sleep(0.5)
        started = time.monotonic()
        arena.process.send_signal(signal.SIGTERM)  # type: ignore[union-attr]
        ended = arena.process.wait(60)  # type: ignore[union-attr]
        taken = time.monotonic() - started
    is_met = taken <= 10 and ended == 0 and {code_of(job) for job in jobs} == {"worker_busy"}
    return Result(f"{taken:.1f} s, {codes(jobs)}", is_met)


def stop_while_starting(directory: Path) -> Result:
    """SIGTERM in the first two seconds, ten times"""
    ended = []
    platform = Platform()
    for number in range(10):
        with worker_process(platform, directory / "log") as process:
            time.sleep(0.1 + 0.19 * number)
            process.send_signal(signal.SIGTERM)
            ended.append(process.wait(20))
    platform.close()
    return Result(f"exit codes {sorted(set(ended))}", set(ended) == {0})


def unknown_fields(directory: Path) -> Result:
    """A clip beside a job of a million unknown fields"""
    with Arena(directory).running() as arena:
        raw = json.dumps({"id": "many", "input": {f"{number:07d}": 0 for number in range(1_000_000)}})
        (many,) = arena.platform.submit_raw({"many": raw})
        wait_until(lambda: many.answers, 60)
        taken = float(re.search(r"many \| unknown_field .*: ([\d.]+) s", arena.log.read_text())[1])  # type: ignore[index]
    return Result(f"{code_of(many)}, checked in {taken:.2f} s", taken < 0.3 and code_of(many) == "unknown_field")


def endless_continue(directory: Path) -> Result:
    """A server that answers 100 Continue for ever"""
    with Arena(directory, PARAKEET_DOWNLOAD_TIMEOUT_S="10").running() as arena, Peak(arena) as peak:
        arena.web.routes["/continue"] = continue_for_ever
        (job,) = arena.finish({"audio_url": arena.web.url + "/continue"})
        peak.__exit__()
    return Result(f"{code_of(job)}, {job.ended - job.taken:.1f} s, {peak.cpu_s:.1f} s of a core", peak.cpu_s < 1)


def odd_urls(directory: Path) -> Result:
    """A host label of 64 characters; a black hole"""
    with Arena(directory, PARAKEET_CONCURRENCY="8").running() as arena, unreachable() as hole:
        label, hanging = arena.finish(
            {"audio_url": f"https://{'a' * 64}.example/a.wav"}, {"audio_url": f"http://{hole}/a.wav"}
        )
        said = hanging.result["error"]
    is_met = code_of(label) == "invalid_url" and "300" not in said
    return Result(f"{code_of(label)}; {code_of(hanging)} ({said})", is_met)


def odd_mp3(directory: Path) -> Result:
    """MP3 with tags before, between and behind, headers that lie, and joined parts"""
    tags = [*TAGS.values(), id3(20_000), ape(200_000)]
    files = {tag + part("low"): 1.0 for tag in tags if tag.startswith((b"ID3", b"APETAGEX"))}
    files |= {part("low") + tag: 1.0 for tag in tags}
    files |= {part("low") + tag + part("high"): 2.0 for tag in [b"", *tags]}
    files |= {with_numbers(part("high"), frames): 1.0 for frames in (0, 5, 1_000_000)}
    files[b"".join(map(part, PARTS))] = float(len(PARTS))
    with Arena(directory).running() as arena:
        jobs = arena.finish(*[{"audio_url": data_url(data, "audio/mpeg")} for data in files])
        log = arena.log.read_text()
    whole = sum(
        code_of(job) == "ok" and abs(job.result["output"]["duration"] - seconds) < 0.1 * seconds
        for job, seconds in zip(jobs, files.values(), strict=True)
    )
    said = f"{whole} of {len(files)} whole, {len(strange_lines(log))} lines of libraries in the log"
    return Result(said, whole == len(files) and not strange_lines(log))


def secrets(directory: Path) -> Result:
    """HTTPS_PROXY with a password: refused at start, and not in the log"""
    platform = Platform()
    with worker_process(platform, directory / "log", HTTPS_PROXY="http://user:hunter2@127.0.0.1:9") as process:
        ended = process.wait(30)
    platform.close()
    log = (directory / "log").read_text()
    return Result(log.strip().replace("\n", " ")[:80], ended == 1 and "hunter2" not in log and "HTTPS_PROXY" in log)


ATTACKS: list[tuple[str, Attack, str]] = [
    ("1", deep_json, "all of the batch lost"),
    ("2", slow_downloads, "39 s"),
    ("2", hanging_downloads, "22 s"),
    ("3", many_m4a, "3 corrupt_audio"),
    ("4", percent_escapes, "4.3 s, 1,600 MB"),
    ("4", fast_flac, "13 s of a core"),
    ("4", slower_flac, ""),
    ("4", long_flac, "34 s, 400 MB"),
    ("5", full_disk, "internal_error; then refused"),
    ("5", no_memory, "internal_error for ever"),
    ("5", few_files, "internal_error"),
    ("6", refused_results, "dropped"),
    ("7", odd_ids, "4 at another address, 2 lost"),
    ("8", stop_while_stalled, "30 s"),
    ("9", odd_mp3, "refused as truncated"),
    ("11", secrets, "the password in the log"),
    ("16", stop_while_starting, "exit codes -15 and 0"),
    ("16", unknown_fields, "1.2 s"),
    ("16", endless_continue, "a core until the time-out"),
    ("16", odd_urls, "a bad redirect; 300 seconds"),
]


# All of them at once.


def storm(directory: Path, seconds: float, chance: random.Random) -> list[str]:
    """Send all kinds of jobs for some time, with clips between them, and return what went wrong."""
    faults: list[str] = []
    with (
        Arena(directory, PARAKEET_DOWNLOAD_TIMEOUT_S="20").running() as arena,
        unreachable() as hole,
        dripping() as drip,
    ):
        samples = soundfile.read(io.BytesIO(CLIP), dtype="float32")[0]
        web, platform = arena.web, arena.platform
        web.routes |= {"/stall": stall, "/continue": continue_for_ever}
        signed = "?signature=hunter2"
        good = [GOOD, {"audio_url": web.serve("/clip.flac", CLIP) + signed}]
        good += [{"audio_url": web.serve("/clip.m4a", contain(samples, "ipod", "aac")) + signed, "timestamps": True}]  # type: ignore[dict-item]
        good += [{"audio_url": web.serve("/clip.mp3", encode(samples, container="MP3", subtype="MPEG_LAYER_III"))}]
        bad: list[tuple[dict[str, Any], set[str]]] = [
            ({"audio_url": drip + signed}, {"cancelled", "download_timeout"}),
            ({"audio_url": web.url + "/stall" + signed}, {"cancelled", "download_timeout"}),
            ({"audio_url": f"http://{hole}/a.wav"}, {"cancelled", "download_timeout"}),
            ({"audio_url": web.url + "/continue"}, {"download_failed", "download_timeout"}),
            ({"audio_url": web.serve("/fast.flac", silence(60, 655_350, 8))}, REFUSED),
            ({"audio_url": web.serve("/cut.wav", encode(samples)[:-5_000])}, {"corrupt_audio"}),
            ({"audio_url": "data:audio/wav;base64," + "%20" * 300_000}, {"empty_audio"}),
            ({"audio_url": web.url + "/none" + signed}, {"download_failed"}),
            ({f"{number}": 0 for number in range(20_000)}, {"unknown_field"}),
        ]
        sent: list[tuple[Job, set[str]]] = []
        clips: list[Job] = []
        alone = arena.time_of(good[1], 9)
        deadline = time.monotonic() + seconds
        number = 0
        while time.monotonic() < deadline and arena.process.poll() is None:  # type: ignore[union-attr]
            number += 1
            given, expected = chance.choice(bad)
            (job,) = arena.submit(given)
            sent.append((job, expected))
            if chance.random() < 0.3:
                key = f"deep-{number}"
                sent += [
                    (job, {"invalid_type"})
                    for job in platform.submit_raw({key: deep_job(key, chance.choice([500, 990, 9_000]))})
                ]
            if chance.random() < 0.1:
                platform.faults["job-done"].append(chance.choice([500, 404, "reset"]))  # type: ignore[arg-type]
                platform.faults["job-take-batch"].append(chance.choice([500, "reset", 204]))  # type: ignore[arg-type]
            clips += arena.submit(chance.choice(good))
            # Those that would wait longest are cancelled.
            going = [job for job, expected in sent if job.status not in FINAL and "cancelled" in expected]
            for late in going[:-60]:
                platform.cancel(late)
            wait_until(lambda: sum(not job.ended for job in clips) < 4, 30)  # noqa: B023 - waited for here
        for job, expected in sent:
            if "cancelled" in expected and job.status not in FINAL:
                platform.cancel(job)
        wait_until(lambda: all(job.status in FINAL for job in [*clips, *(job for job, _ in sent)]), 60)
        arena.process.send_signal(signal.SIGTERM)  # type: ignore[union-attr]
        with suppress(subprocess.TimeoutExpired):
            arena.process.wait(30)  # type: ignore[union-attr]
        ended = arena.process.returncode  # type: ignore[union-attr]
        log = arena.log.read_text()
        left = list(arena.scratch.iterdir())
    taken = sorted(job.ended - job.queued for job in clips if job.ended)
    print(f"\n{len(sent)} attacks and {len(clips)} clips in {seconds:.0f} s")
    print(f"clips: {codes(clips)}")
    print(f"one takes {alone:.2f} s alone, {statistics.median(taken):.2f} s here (median), {taken[-1]:.2f} s at most")
    print(f"attacks: {codes([job for job, _ in sent])}")
    if {code_of(job) for job in clips} != {"ok"}:
        faults.append(f"clips ended with {codes(clips)}")
    if wrong := [(code_of(job), job.request) for job, expected in sent if code_of(job) not in expected]:
        faults.append(f"{len(wrong)} attacks ended otherwise than they should, such as {str(wrong[0])[:200]}")
    if lost := [job for job in [*clips, *(job for job, _ in sent)] if not job.answers and job.status != "CANCELLED"]:
        faults.append(f"{len(lost)} jobs were lost")
    if twice := [job for job in [*clips, *(job for job, _ in sent)] if job.answers > 1]:
        faults.append(f"{len(twice)} were answered twice")
    if ended != 0:
        faults.append(f"the worker ended with {ended}")
    if left:
        faults.append(f"{len(left)} temporary files are left")
    if "hunter2" in log or web.url in log:
        faults.append("a URL or its signature is in the log")
    if torn := strange_lines(log):
        faults.append(f"{len(torn)} lines of the log are torn, or a library's, such as {torn[0][:100]!r}")
    return faults


REFUSED = {"corrupt_audio", "audio_too_large", "audio_too_long", "unsupported_format"}


def main() -> None:
    """Attack, print a table, and exit with 1 if a bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=10.0, help="how long in all")
    parser.add_argument("--only", help="the name of one attack, or `storm`")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    started = time.monotonic()
    missed = []
    print(f"{'item':<5} {'attack':<84} {'before':<30} now")
    for item, attack, before in ATTACKS:
        if options.only not in (None, attack.__name__):
            continue
        with tempfile.TemporaryDirectory() as directory:
            try:
                result = attack(Path(directory))
            except Exception as error:  # noqa: BLE001 - the other attacks are tried as well
                result = Result(f"{type(error).__name__}: {str(error)[:300]}", is_met=False)
        if not result.is_met:
            missed.append(attack.__name__)
        print(
            f"{item:<5} {attack.__doc__:<84} {before:<30} {result.said}{'' if result.is_met else '  MISSED'}",
            flush=True,
        )
    if options.only in (None, "storm"):
        left = max(30.0, options.minutes * 60 - (time.monotonic() - started))
        with tempfile.TemporaryDirectory() as directory:
            missed += storm(Path(directory), left, random.Random(options.seed))
    print("\n" + ("; ".join(missed) if missed else "every bar is met, nothing lost, nothing torn, no secret in a log"))
    sys.exit(bool(missed))


if __name__ == "__main__":
    main()
