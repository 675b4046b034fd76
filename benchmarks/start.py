"""From the start of a process to its first transcript: the worker beside the reference flow, alternating in one run.

    make bench-start
    python benchmarks/start.py --model twin --rounds 3 --cold

- *reference*: import NeMo, `restore_from`, `transcribe([path])`.
- *worker*: `python handler.py` with a job of the same clip.

Each start is a fresh process. Prints a table, and writes it with the numbers behind it (JSON) to `benchmarks/results/`.
"""

import argparse
import base64
import json
import os
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from bench import HERE, device_name, prepare
from subjects import Model

ROOT = HERE.parent
CLIP = ROOT / "tests" / "speech" / "clip02.flac"

# Both report how many modules they have imported, when the interpreter ends.
_COUNT = "import atexit, sys; atexit.register(lambda: print('modules', len(sys.modules), flush=True)); "

_REFERENCE = (
    _COUNT
    + """
import time
started = time.perf_counter()
from nemo.collections.asr.models import ASRModel
from omegaconf import open_dict
imported = time.perf_counter()
model = ASRModel.restore_from(sys.argv[1], map_location=sys.argv[2])
with open_dict(model.cfg):
    model.cfg.validation_ds = {"use_start_end_token": False}  # transcribe() reads it
restored = time.perf_counter()
text = model.transcribe([sys.argv[3]], verbose=False)[0].text
done = time.perf_counter()
print(f"stages: imports {imported - started:.2f} s, restore {restored - imported:.2f} s, "
      f"first job {done - restored:.2f} s", flush=True)
print("text:", text, flush=True)
"""
)
_WORKER = _COUNT + "import runpy; sys.path.insert(0, '.'); runpy.run_path('handler.py', run_name='__main__')"


@dataclass(frozen=True)
class Start:
    """One start.

    Attributes:
        seconds: From the start of the process to the transcript.
        stages: Seconds of each stage. The worker's overlap with what the main thread does.
        modules: Modules that were imported in the end.
        peak_mb: Largest resident size, in megabytes of 1,000,000 bytes.
        text: The transcript.
    """

    seconds: float
    stages: dict[str, float] = field(default_factory=dict)
    modules: int = 0
    peak_mb: float = 0.0
    text: str = ""


def reference(model: Model) -> Start:
    """Start the reference flow."""
    return _run([sys.executable, "-c", _REFERENCE, str(model.archive), model.device, str(CLIP)], {}, r"^text: (.*)$")


def worker(model: Model) -> Start:
    """Start the worker with one job."""
    audio = base64.b64encode(CLIP.read_bytes()).decode()
    job = json.dumps({"input": {"audio_url": f"data:audio/flac;base64,{audio}"}})
    environ = {"PARAKEET_MODEL": str(model.directory), "PARAKEET_DEVICE": model.device}
    return _run([sys.executable, "-c", _WORKER, "--test_input", job], environ, r"Job result: .*'text': '(.*?)', '")


def _run(command: Sequence[str], environ: dict[str, str], transcript: str) -> Start:
    started = time.perf_counter()
    process = subprocess.Popen(  # noqa: S603 - its own command
        command,
        cwd=ROOT,
        env=os.environ | {"PYTHONUNBUFFERED": "1"} | environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout
    seconds, text, stages, modules = 0.0, "", {}, 0
    for line in process.stdout:
        if found := re.search(transcript, line):
            seconds, text = time.perf_counter() - started, found[1]
        if "stages:" in line or "is ready after" in line:
            listed = line.partition(": ")[2] if "stages:" in line else line.partition(" s: ")[2].partition(";")[0]
            stages = {name: float(value) for name, value in re.findall(r"([a-z][a-z -]*) ([\d.]+) s", listed)}
        if found := re.match(r"modules (\d+)", line):
            modules = int(found[1])
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode or not seconds:
        raise RuntimeError(f"{command[:2]} ended with {process.returncode}")
    return Start(seconds, stages, modules, usage.ru_maxrss * 1024 / 1e6, text)


def forget_files(model: Model) -> None:
    """Drop the files that a start reads from the kernel's cache."""
    packages = Path(sys.prefix) / "lib"
    for path in [model.archive, *model.directory.rglob("*"), *packages.rglob("*"), *(ROOT / "src").rglob("*")]:
        if path.is_file():
            with path.open("rb") as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def measure(name: str, model: Model, rounds: int, *, is_cold: bool) -> dict[str, object]:
    """Start every subject `rounds` times, alternating; return what goes into the JSON."""
    subjects: dict[str, Callable[[], Start]] = {
        "reference": lambda: reference(model),
        "worker": lambda: worker(model),
    }
    starts: dict[str, list[Start]] = {key: [] for key in subjects}
    for index in range(rounds + (not is_cold)):
        for key, run in list(subjects.items())[:: 1 if index % 2 == 0 else -1]:
            if is_cold:
                forget_files(model)
            start = run()
            print(f"{key}: {start.seconds:.2f} s", flush=True)
            # The first round of a warm run only fills the cache.
            if is_cold or index:
                starts[key].append(start)
    texts = {start.text for runs in starts.values() for start in runs}
    weights = (model.directory / "model.safetensors").stat().st_size / 1e6
    return {
        "model": name,
        "device": device_name(model.device),
        "cache": "cold" if is_cold else "warm",
        "rounds": rounds,
        "weights_mb": weights,
        "same_text": len(texts) == 1,
        "starts": {key: [asdict(start) for start in runs] for key, runs in starts.items()},
    }


def table(result: dict[str, Any]) -> str:
    """Lay out a result as text."""
    what = f"{result['model']} on {result['device']}, {result['cache']} file cache, median of {result['rounds']} starts"
    what += f"; weights {result['weights_mb']:,.0f} MB"
    lines = [
        what,
        "",
        f"{'':30}{'start to transcript':>20}{'ratio':>7}{'modules':>9}{'peak memory':>13}",
    ]
    base = statistics.median(start["seconds"] for start in result["starts"]["reference"])
    for key, starts in result["starts"].items():
        seconds = statistics.median(start["seconds"] for start in starts)
        memory = statistics.median(start["peak_mb"] for start in starts)
        modules = max(start["modules"] for start in starts)
        lines.append(f"{key:30}{seconds:18.2f} s{seconds / base:7.2f}{modules:9,}{memory:10,.0f} MB")
    lines.append("")
    for key, starts in result["starts"].items():
        stages = {name: statistics.median(start["stages"][name] for start in starts) for name in starts[0]["stages"]}
        lines.append(f"{key}: " + ", ".join(f"{name} {seconds:.2f} s" for name, seconds in stages.items()))
    lines.append("The transcripts are the same." if result["same_text"] else "The transcripts DIFFER.")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run the command line; see `--help`."""
    parser = argparse.ArgumentParser(description="Measure the worker's start beside the reference flow's.")
    parser.add_argument("--model", choices=["embedded", "twin"], required=True)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--cold", action="store_true", help="with none of the files in the kernel's cache")
    parser.add_argument("--out", type=Path, default=HERE / "results")
    options = parser.parse_args()
    result = measure(options.model, prepare(options.model, options.device), options.rounds, is_cold=options.cold)
    text = table(result)
    print("\n" + text)
    stem = f"start-{options.model}-{options.device}{'-cold' if options.cold else ''}"
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / f"{stem}.txt").write_text(text)
    (options.out / f"{stem}.json").write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
