"""Everything that only a GPU can run, checked and measured by one command.

    make gpu-check
    python benchmarks/gpu_check.py --quick      # without the benchmarks: minutes

Each check has a process of its own, since one that breaks the device would spoil the next. Prints what passed, what
fell back and what failed, then the tables of the benchmarks. All of it goes to `benchmarks/results/gpu-check.txt`, and
what was checked to `gpu-check.json`.

The exit status is 0 if nothing failed, 1 if something did, and 2 without a GPU.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import soundfile
import torch
from numpy.typing import NDArray

from clips import SPEECH
from parakeet_worker.asr.scheduler import Scheduler
from parakeet_worker.asr.types import SAMPLE_RATE, GraphCaptureError, Hypothesis
from parakeet_worker.model.card import Card
from parakeet_worker.model.device import _GRAPHS_BYTES, Plan, use_plan
from parakeet_worker.model.files import ModelFiles
from parakeet_worker.model.graphs import Capturer, Clock, CudaCapturer, capture_graphs, cuda_clock
from parakeet_worker.model.prepare import load
from parakeet_worker.model.recognizer import PlainRecognizer
from parakeet_worker.model.self_check import CLIP, clip, word_agreement
from parakeet_worker.model.staging import Staging
from parakeet_worker.serverless.serve import replace_process
from parakeet_worker.stage_timer import StageTimer

HERE = Path(__file__).parent
ROOT = HERE.parent
NO_GPU = "There is no GPU that PyTorch can use: nothing was checked."

PASSED, FELL_BACK, FAILED = "passed", "fell back", "FAILED"

# The root mean square of an error, as part of that of the values, that arithmetic alone explains. Convolutions in
# float32 use TensorFloat-32.
_TOLERANCES = {"float32": 0.01, "float16": 0.03, "bfloat16": 0.15}

# Least agreement of words between float32 on the CPU and another precision or padding on the GPU.
_LEAST_AGREEMENT = 0.97

# Memory that is left to the process, beside the model, when it is to run out. 0.6B needs 2.9 MB for a second.
_LEFT_BYTES = 2_000_000_000

# Set for the second half of the check of a failed capture, which runs in the place of the first.
_RESTARTED = "GPU_CHECK_RESTARTED"

Batch = Sequence[NDArray[np.float32]]


class FellBackError(Exception):
    """The worker serves, but not in the way that was meant."""


@dataclass(frozen=True)
class Subject:
    """What is checked: a model directory, on a device and in a precision, with so many of the bundled clips."""

    directory: Path
    device: torch.device
    precision: str
    clips: int = 40

    def speech(self) -> Batch:
        """Return the clips."""
        paths = sorted(SPEECH.glob("*.flac"))[: self.clips]
        return [soundfile.read(path, dtype="float32")[0] for path in paths]

    def load(self) -> PlainRecognizer:
        """Load the model, without graphs."""
        plan = Plan(self.device, getattr(torch, self.precision), batch_seconds=2_400.0)
        use_plan(plan, torch.get_num_threads())
        return load(ModelFiles(self.directory, Card.read(self.directory).files), plan, StageTimer().stage)


Check = Callable[[Subject], str]
"""Checks a subject, and returns what was found. Raises FellBackError, or any other exception if the check fails."""


@dataclass(frozen=True)
class Result:
    """The result of a check."""

    name: str
    status: str
    detail: str
    seconds: float


@torch.inference_mode()
def check_results(subject: Subject) -> str:
    """Compare features, encoder, decoder and words with those of float32 on the CPU, each stage on equal inputs."""
    device = subject.device
    ours = subject.load()
    clips = subject.speech()
    reference = Subject(subject.directory, torch.device("cpu"), "float32").load()
    samples, lengths = Staging(torch.device("cpu")).pad(clips[:8])
    features, mel_lengths = reference.model.features(samples, lengths)
    feature_error = _error(ours.model.features(samples.to(device), lengths.to(device))[0], features, mel_lengths, 2)
    encoded, frames = reference.model.encoder(features, mel_lengths)
    precision = next(ours.model.encoder.parameters()).dtype
    found = ours.model.encoder(features.to(device, precision), mel_lengths.to(device))[0]
    encoder_error = _error(found, encoded, frames, 1)
    emissions = ours.model.search.decode(encoded.to(device), frames.to(device))
    differing = sum(a != b for a, b in zip(emissions, reference.model.search.decode(encoded, frames), strict=True))
    words = agreement(ours.transcribe(clips), reference.transcribe(clips))
    detail = f"errors of features {feature_error:.1e}, encoder {encoder_error:.1e}; "
    detail += f"{differing} of {len(emissions)} decoded clips differ; {words:.1%} of words agree"
    # Random weights say nothing in words, and little changes it.
    is_trained = Card.read(subject.directory).check is not None
    is_fine = feature_error < 1e-3 and encoder_error < _TOLERANCES[subject.precision] and differing <= 1
    if not is_fine or (is_trained and words < _LEAST_AGREEMENT):
        raise RuntimeError(detail)
    return detail


def _error(found: torch.Tensor, expected: torch.Tensor, lengths: torch.Tensor, time_axis: int) -> float:
    """Return the root mean square of an error within the lengths, as part of that of the expected values."""
    found, expected = (x.movedim(time_axis, 1).float().cpu() for x in (found, expected))
    is_within = torch.arange(expected.shape[1]) < lengths.cpu()[:, None]
    difference = found[:, : expected.shape[1]][is_within] - expected[is_within]
    return float(difference.norm() / expected[is_within].norm())


def agreement(found: Sequence[Hypothesis], expected: Sequence[Hypothesis]) -> float:
    """Return the share of words that transcripts have in common."""
    return word_agreement(" ".join(each.text for each in found), " ".join(each.text for each in expected))


def check_graphs(subject: Subject, capture: Capturer | None = None, clock: Clock = cuda_clock) -> str:
    """Capture CUDA graphs, and compare batches of many sizes with and without them."""
    recognizer = subject.load()
    clips = subject.speech()
    batches = [clips[first : first + size] for size in (1, 3, 8, 16) for first in range(0, len(clips), 16)]
    expected = [recognizer.transcribe(batch) for batch in batches]
    eager = _seconds(recognizer)
    before, started = _free_bytes(), time.perf_counter()
    samples = torch.from_numpy(clip()).to(subject.device)
    try:
        graphs = capture_graphs(recognizer.model, samples, capture or CudaCapturer(subject.device), clock)
    except GraphCaptureError as error:
        raise FellBackError(f"no graphs: {error}") from error
    detail = f"{len(graphs.encoder.replays)} encoder and {len(graphs.decoder.replays)} decoder graphs in "
    detail += f"{time.perf_counter() - started:.1f} s, {(before - _free_bytes()) / 1e6:,.0f} MB "
    detail += f"({_GRAPHS_BYTES / 1e6:,.0f} MB are reserved for 0.6B in 16 bits); "
    recognizer.graphs = graphs
    found = [recognizer.transcribe(batch) for batch in batches]
    words = min(agreement(*pair) for pair in zip(found, expected, strict=True))
    equal = sum(a == b for a, b in zip(found, expected, strict=True))
    detail += f"{equal} of {len(batches)} batches equal to eager ones, at least {words:.1%} of words; "
    detail += f"one clip of 8 s: {eager * 1e3:.1f} ms eager, {_seconds(recognizer) * 1e3:.1f} ms with graphs"
    if words < _LEAST_AGREEMENT and Card.read(subject.directory).check is not None:
        raise RuntimeError(detail)
    if graphs.dropped:
        raise FellBackError(f"dropped: {'; '.join(graphs.dropped)}; {detail}")
    return detail


def _seconds(recognizer: PlainRecognizer) -> float:
    """Return the seconds of a pass over 8 s of speech: the shortest of five."""
    recording = np.resize(clip(), 8 * SAMPLE_RATE)
    return min([_seconds_of(recognizer, [recording]) for _ in range(6)][1:])


def _seconds_of(recognizer: PlainRecognizer, batch: Batch) -> float:
    """Return the seconds of one pass, which ends with the tokens on the host."""
    started = time.perf_counter()
    recognizer.transcribe(batch)
    return time.perf_counter() - started


def _free_bytes() -> int:
    """Return the free bytes of the GPU, with those that torch only keeps for later."""
    if not torch.cuda.is_available():
        return 0
    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    return torch.cuda.mem_get_info()[0]


def check_shapes(subject: Subject, shapes: int = 50) -> str:
    """Time eager batches of many shapes, then the same ones again: what a new shape costs.

    Last with cuDNN's attention, which may make a plan for each shape.
    """
    recognizer = subject.load()
    # Each is 0.64 s longer than the last one: batches are padded to eight encoder frames.
    batches = [[np.resize(clip(), int((2 + 0.64 * n) * SAMPLE_RATE))] * (1 + n % 16) for n in range(shapes)]
    # What has nothing to do with shapes: libraries, memory, and the position terms of the longest batch.
    recognizer.transcribe([np.resize(clip(), len(batches[-1][0]) + SAMPLE_RATE)] * 16)
    found = []
    for uses_cudnn in (False, True):
        torch.backends.cuda.enable_cudnn_sdp(uses_cudnn)
        first, again = ([_seconds_of(recognizer, batch) for batch in batches] for _ in range(2))
        more = max(a - b for a, b in zip(first, again, strict=True))
        found.append(f"{sum(first):.2f} s, again {sum(again):.2f} s, at most {more * 1e3:.0f} ms more for one")
    return f"{shapes} shapes without cuDNN's attention: {found[0]}; with it: {found[1]}"


def check_copies(subject: Subject) -> str:
    """Stage clips on several threads while batches are decoded, and compare with clips that were not staged."""
    recognizer = subject.load()
    clips = subject.speech()
    expected = recognizer.transcribe(clips)
    with ThreadPoolExecutor(8) as pool:
        for _ in range(10):
            staging = pool.map(recognizer.stage, clips)
            recognizer.transcribe(clips[:4])
            staged = list(staging)
            if recognizer.transcribe(staged) != expected:
                raise RuntimeError("staged clips give other results")
    kind = type(staged[0]).__name__
    if subject.device.type == "cuda" and kind == "ndarray":
        raise FellBackError("nothing could be staged: clips are copied with their batch")
    return f"{10 * len(clips)} clips staged, as {kind}, with equal results"


def check_memory(subject: Subject, recognizer: PlainRecognizer | None = None) -> str:
    """Decode a batch that is too large for the memory. What it held must be free, and its windows decoded in halves."""
    recognizer = recognizer or subject.load()
    (expected,) = recognizer.transcribe([clip()])
    is_cuda = subject.device.type == "cuda"
    if is_cuda:
        torch.cuda.empty_cache()
        total = torch.cuda.mem_get_info()[1]
        torch.cuda.set_per_process_memory_fraction(min(1.0, (torch.cuda.memory_reserved() + _LEFT_BYTES) / total))
    before = torch.cuda.memory_allocated() if is_cuda else 0
    size = 64
    try:
        while size <= 1 << 16:
            size *= 2
            recognizer.transcribe([clip()] * size)
        raise RuntimeError(f"{size} clips fit into the memory")
    except torch.OutOfMemoryError:
        pass
    kept = torch.cuda.memory_allocated() - before if is_cuda else 0
    if kept > 1_000_000:
        raise RuntimeError(f"{kept / 1e6:,.0f} MB of a failed batch are still held")
    recognizer.batch_seconds = 1e9
    are_queued = threading.Event()

    def load() -> PlainRecognizer:
        are_queued.wait()
        return recognizer

    # All clips in one batch, which would take too long for the scheduler's own choice.
    scheduler = Scheduler(load, choose=lambda lengths, *_: list(range(len(lengths))))
    results = [scheduler.submit(clip()) for _ in range(size)]
    are_queued.set()
    texts = {result.result(300).hypothesis.text for result in results}
    batches = scheduler.stats.batches
    scheduler.close()
    if min(word_agreement(text, expected.text) for text in texts) < _LEAST_AGREEMENT:
        raise RuntimeError(f"after it, the clip gives {sorted(texts)}, not {expected.text!r}")
    return f"{size} clips at once ran out of memory, which was free again; decoded in {batches} batches"


def check_failed_capture(subject: Subject) -> str:
    """Make a capture fail, then replace the process: the device must work in it."""
    if os.environ.get(_RESTARTED):
        (hypothesis,) = subject.load().transcribe([clip()])
        return f"after {os.environ[_RESTARTED]}, the new process transcribes {hypothesis.text!r}"
    recognizer = subject.load()
    forward = recognizer.model.encoder.forward

    def waits(features: torch.Tensor, lengths: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        lengths.max().item()  # nothing may wait for the device in a capture
        return forward(features, lengths)

    recognizer.model.encoder.forward = waits  # type: ignore[method-assign]
    try:
        capture_graphs(
            recognizer.model, torch.from_numpy(clip()).to(subject.device), CudaCapturer(subject.device), cuda_clock
        )
    except GraphCaptureError as error:
        replace_process({_RESTARTED: str(error).splitlines()[0]})
    raise RuntimeError("the capture did not fail")


def check_start(subject: Subject) -> str:
    """Start the worker as `make run` does, and return how it says that it is ready."""
    done = subprocess.run(  # noqa: S603 - its own command
        [sys.executable, "-m", "parakeet_worker", str(CLIP)],
        cwd=ROOT,
        env=os.environ | {"PARAKEET_DEVICE": subject.device.type, "PARAKEET_PRECISION": subject.precision},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    ready = re.search(r"is ready .*", done.stdout)
    if done.returncode or not ready:
        raise RuntimeError(f"it ended with {done.returncode}: {(done.stdout + done.stderr)[-1_000:]}")
    warnings = re.findall(r"WARN .*", done.stdout)
    if warnings or (subject.device.type == "cuda" and ", eager," in ready[0]):
        raise FellBackError("; ".join([*warnings, ready[0]]))
    return ready[0]


CHECKS: dict[str, Check] = {
    "results": check_results,
    "graphs": check_graphs,
    "shapes": check_shapes,
    "copies": check_copies,
    "memory": check_memory,
    "failed capture": check_failed_capture,
    "start": check_start,
}


def runs(models: Sequence[str]) -> list[tuple[str, str, str]]:
    """Return what is run: check, model and precision."""
    has_bfloat16 = torch.cuda.is_bf16_supported(including_emulation=False)
    precisions = [name for name in _TOLERANCES if name != "bfloat16" or has_bfloat16]
    everything = [(check, model, precision) for check in CHECKS for model in models for precision in precisions]
    # One precision is as good as another where no results are compared. The bundled model is what `make run` starts.
    once, for_each = {"copies", "failed capture", "start"}, {"memory", "shapes"}
    return [
        (check, model, precision)
        for check, model, precision in everything
        if check not in once | for_each or (precision == precisions[-1] and (check in for_each or model == "embedded"))
    ]


def run_check(check: Check, subject: Subject, name: str) -> Result:
    """Run a check in this process."""
    started = time.perf_counter()
    try:
        status, detail = PASSED, check(subject)
    except FellBackError as error:
        status, detail = FELL_BACK, str(error)
    except Exception as error:  # noqa: BLE001 - whatever it is, it is reported
        status, detail = FAILED, f"{type(error).__name__}: {error}"
    return Result(name, status, detail, round(time.perf_counter() - started, 1))


def run_alone(name: str, arguments: Sequence[str], limit_s: float = 900) -> Result:
    """Run a check in a process of its own, whose last line of output is its result."""
    started = time.perf_counter()
    try:
        done = subprocess.run(  # noqa: S603 - its own command
            [sys.executable, __file__, *arguments], capture_output=True, text=True, timeout=limit_s, check=False
        )
        return Result(**json.loads(done.stdout.splitlines()[-1]))
    except subprocess.TimeoutExpired:
        detail = f"nothing after {limit_s:.0f} s"
    except (ValueError, TypeError, IndexError):
        detail = f"it ended with {done.returncode}: {done.stderr[-1_000:].strip()}"
    return Result(name, FAILED, detail, round(time.perf_counter() - started, 1))


def benchmark(script: str, model: str) -> tuple[Result, str]:
    """Run a benchmark on the GPU. Return whether it ran, and its table."""
    started = time.perf_counter()
    stem = f"{'start-' if script == 'start.py' else ''}{model}-cuda"
    command = [sys.executable, str(HERE / script), "--model", model, "--device", "cuda"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - its own command
    is_fine = done.returncode == 0
    detail = f"benchmarks/results/{stem}.txt" if is_fine else done.stderr[-1_000:].strip()
    table = (HERE / "results" / f"{stem}.txt").read_text() if is_fine else ""
    seconds = round(time.perf_counter() - started, 1)
    return Result(f"{script} {model}", PASSED if is_fine else FAILED, detail, seconds), table


def report(device: str, results: Sequence[Result], tables: Sequence[str]) -> str:
    """Lay out what was found as text."""
    counts = ", ".join(f"{sum(r.status == status for r in results)} {status}" for status in (PASSED, FELL_BACK, FAILED))
    width = max(len(result.name) for result in results)
    lines = [f"{r.name:{width}}  {r.status:9}  {r.seconds:6.1f} s  {r.detail}" for r in results]
    return (
        "\n".join([f"{device}, torch {torch.__version__}: {counts}", "", *lines, *("\n" + table for table in tables)])
        + "\n"
    )


def directory_of(model: str) -> Path:
    """Return the directory of a model, which is made if it is the twin and is not there."""
    from bench import prepare

    return prepare(model, "cuda").directory


def main() -> None:
    """Run the command line; see `--help`.

    Raises:
        SystemExit: With the exit status.
    """
    parser = argparse.ArgumentParser(description="Check and measure what only a GPU can run.")
    parser.add_argument("--quick", action="store_true", help="the checks alone, with the bundled model alone")
    parser.add_argument("--out", type=Path, default=HERE / "results")
    parser.add_argument(
        "--check", nargs=3, metavar=("CHECK", "DIRECTORY", "PRECISION"), help="run one, in this process"
    )
    parser.add_argument("--device", default="cuda", help="for --check")
    options = parser.parse_args()
    if options.check:
        check, directory, precision = options.check
        subject = Subject(Path(directory), torch.device(options.device), precision)
        print(json.dumps(asdict(run_check(CHECKS[check], subject, f"{check} {subject.directory.name} {precision}"))))
        return
    if not torch.cuda.is_available():
        print(NO_GPU)
        raise SystemExit(2)
    models = ["embedded"] if options.quick else ["embedded", "twin"]
    directories = {model: directory_of(model) for model in models}
    results, tables = [], []
    for check, model, precision in runs(models):
        name = f"{check} {directories[model].name} {precision}"
        results.append(run_alone(name, ["--check", check, str(directories[model]), precision]))
        print(f"{results[-1].name}: {results[-1].status}: {results[-1].detail}", flush=True)
    for script in () if options.quick else ("bench.py", "start.py"):
        for model in models:
            result, table = benchmark(script, model)
            print(f"{result.name}: {result.status}", flush=True)
            results.append(result)
            tables.append(table)
    text = report(torch.cuda.get_device_name(), results, tables)
    print("\n" + text)
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "gpu-check.txt").write_text(text)
    (options.out / "gpu-check.json").write_text(json.dumps([asdict(result) for result in results], indent=1) + "\n")
    raise SystemExit(int(any(result.status == FAILED for result in results)))


if __name__ == "__main__":
    main()
