"""The worker beside NeMo's own `transcribe()`, on the same recordings and weights, alternating in one run.

    make bench                                  # the embedded model and the twin, on the device that is there
    python benchmarks/bench.py --model twin --count 16 --rounds 1

Prints a table, and writes it with the numbers behind it (JSON) and a chart (SVG) to `benchmarks/results/`.
"""

import argparse
import json
import os
import platform
import statistics
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import kaldialign

from chart import curve
from clips import Recording, traffic_lengths, write_recordings
from parakeet_worker.asr.merging import merge_windows
from parakeet_worker.asr.types import Hypothesis, WindowSpan
from parakeet_worker.model.card import WEIGHTS, Card
from subjects import Model, Outcome, Reference, Remote, Stages, Worker

HERE = Path(__file__).parent
CACHE = HERE / ".cache"
LEVELS = (1, 8, 64)
BATCH_SIZES = (1, 2, 4, 8, 16, 32, 64)
SEARCHED = 24  # recordings on which the best batch size of NeMo is looked for


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        name: The subject, and how many jobs or what batch size.
        rtfx: Seconds of audio per second of work, the median of the rounds.
        ratio: Its RTFx over that of the reference flow.
        words: Part of the words that differ from the reference flow's.
        padding: Padded seconds per second of audio, where known.
        stages: Seconds in each stage, of one more round.
        total: Seconds of that round.
    """

    name: str
    rtfx: float
    ratio: float
    words: float
    padding: float | None
    stages: Stages
    total: float


def word_difference(found: Sequence[str], expected: Sequence[str]) -> float:
    """Return the word errors of `found` per word of `expected`. A lone mark is a part of the word before it."""
    errors: int = sum(
        kaldialign.edit_distance(_words(e), _words(f))["total"] for e, f in zip(expected, found, strict=True)
    )
    return errors / max(1, sum(len(_words(text)) for text in expected))


def _words(text: str) -> list[str]:
    return merge_windows([(WindowSpan(), Hypothesis(text, ()))]).text.split()


def best_batch_size(nemo: Remote, recordings: Sequence[Recording]) -> int:
    """Return the batch size with which NeMo's offline transcription is fastest, up to the first that is worse."""
    times: dict[int, float] = {}
    for size in BATCH_SIZES:
        times[size] = nemo.call("run", recordings[:SEARCHED], size, False).seconds
        if times[size] > 1.1 * min(times.values()):
            break
    print("NeMo offline by batch size:", ", ".join(f"{size}: {seconds:.1f} s" for size, seconds in times.items()))
    return min(times, key=times.__getitem__)


def measure(model: Model, name: str, recordings: Sequence[Recording], rounds: int) -> dict[str, object]:
    """Measure all subjects on the recordings; return what goes into the JSON."""
    audio = sum(recording.seconds for recording in recordings)
    nemo, worker = Remote(Reference, model), Remote(Worker, model)
    batch = best_batch_size(nemo, recordings)
    subjects: dict[str, Callable[[bool], Outcome]] = {
        "reference: transcribe([path])": lambda stages: nemo.call("run", recordings, 0, stages),
        f"NeMo offline, batches of {batch}": lambda stages: nemo.call("run", recordings, batch, stages),
    }
    for level in LEVELS:
        key = f"worker, {level} in flight"
        subjects[key] = partial(lambda level, stages: worker.call("run", recordings, level, stages), level)
    outcomes: dict[str, list[Outcome]] = {key: [] for key in subjects}
    for index in range(rounds):
        for key, run in list(subjects.items())[:: 1 if index % 2 == 0 else -1]:
            outcomes[key].append(run(model.device == "cpu"))
            print(f"round {index + 1}: {key}: {audio / outcomes[key][-1].seconds:.1f}", flush=True)
    # On a GPU, timing the stages takes their overlap away: it gets a round of its own.
    profiles = {key: runs[-1] if model.device == "cpu" else subjects[key](True) for key, runs in outcomes.items()}
    eight = min(recordings, key=lambda recording: abs(recording.seconds - 8))
    is_quick = sum(runs[0].seconds for runs in outcomes.values()) < 120
    whole, bare = worker.call("latency", eight, 20 if is_quick else 5)
    curve = (
        {jobs: audio / worker.call("run", recordings, jobs, False).seconds for jobs in (1, 2, 4, 8, 16, 32, 64)}
        if is_quick
        else {level: audio / outcomes[f"worker, {level} in flight"][0].seconds for level in LEVELS}
    )
    nemo.close()
    worker.close()

    reference, *_ = outcomes.values()
    base = statistics.median(outcome.seconds for outcome in reference)
    rows = [
        Row(
            name=key,
            rtfx=audio / (median := statistics.median(outcome.seconds for outcome in runs)),
            ratio=base / median,
            words=word_difference(runs[0].texts, reference[0].texts),
            padding=runs[0].padding,
            stages=profiles[key].stages or {},
            total=profiles[key].seconds,
        )
        for key, runs in outcomes.items()
    ]
    words = sum(len(text.split()) for text in reference[0].texts)
    return {
        "model": name,
        "device": device_name(model.device),
        "recordings": len(recordings),
        "audio_s": round(audio, 1),
        "words": words,
        "rounds": rounds,
        "rows": [asdict(row) for row in rows],
        "latency_s": {"recording_s": eight.seconds, "job": whole, "bare": bare},
        "rtfx_by_jobs": curve,
    }


def device_name(device: str) -> str:
    """Name the hardware."""
    if device == "cuda":
        import torch

        return torch.cuda.get_device_name()
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    model = next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine()
    )
    return f"{os.cpu_count()} cores of {model}"


def table(result: dict[str, Any]) -> str:
    """Lay out a result as text."""
    what = f"{result['model']} on {result['device']}: {result['recordings']} recordings, {result['audio_s']:.0f} s"
    lines = [
        f"{what}, {result['words']} words, median of {result['rounds']} rounds",
        "",
        f"{'':32}{'RTFx':>8}{'ratio':>8}{'words':>9}{'padding':>9}   {'pre':>5}{'enc':>6}{'dec':>6}{'rest':>6}",
    ]
    for row in result["rows"]:
        padding = f"{row['padding'] - 1:.1%}" if row["padding"] else ""
        shares = [row["stages"][stage] / row["total"] for stage in ("preprocessor", "encoder", "decoder")]
        shares.append(1 - sum(shares))
        lines.append(
            f"{row['name']:32}{row['rtfx']:8.1f}{row['ratio']:7.2f}x{row['words']:9.2%}{padding:>9}   "
            + "".join(f"{share:>6.0%}" for share in shares).removeprefix(" ")
        )
    latency = result["latency_s"]
    added = latency["job"] - latency["bare"]
    alone = f"A job of {latency['recording_s']:.1f} s alone: {latency['job'] * 1000:.1f} ms"
    bare = f"the bare forward pass {latency['bare'] * 1000:.1f} ms"
    lines += ["", f"{alone}, {bare}; added {added * 1000:.1f} ms ({added / latency['bare']:.1%})."]
    return "\n".join(lines) + "\n"


def report(result: dict[str, Any], out: Path, stem: str) -> None:
    """Print the table, and write it as text, JSON and SVG."""
    text = table(result)
    print("\n" + text)
    out.mkdir(parents=True, exist_ok=True)
    (out / f"{stem}.txt").write_text(text)
    (out / f"{stem}.json").write_text(json.dumps(result, indent=1) + "\n")
    (out / f"{stem}.svg").write_text(curve(result))


def main() -> None:
    """Run the command line; see `--help`."""
    parser = argparse.ArgumentParser(description="Measure the worker beside NeMo's transcribe().")
    parser.add_argument("--model", choices=["embedded", "twin"], required=True)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--count", type=int, default=192, help="number of recordings")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--long", action="store_true", help="recordings of one pass, of up to four minutes")
    parser.add_argument("--out", type=Path, default=HERE / "results")
    options = parser.parse_args()
    model = prepare(options.model, options.device)
    # A longer recording is not one pass for the worker, as it is for NeMo.
    long = min(240.0, Card.read(model.directory).max_duration)
    lengths = [long] * options.count if options.long else traffic_lengths(options.count, seed=0)
    with tempfile.TemporaryDirectory() as scratch:
        recordings = write_recordings(lengths, Path(scratch), seed=0)
        result = measure(model, options.model, recordings, options.rounds)
    report(result, options.out, f"{options.model}-{options.device}{'-long' if options.long else ''}")


def prepare(name: str, device: str) -> Model:
    """Return a model in the forms that the subjects load, made where that has not been done."""
    CACHE.mkdir(exist_ok=True)
    if name == "twin":
        from twin import make_twin

        archive, directory = make_twin(CACHE / "twin")
        return Model(archive, directory, device)
    from parakeet_worker.settings import Settings

    directory = Settings.from_env({}).model
    # Another model must not be measured beside the archive of the one before.
    archive = CACHE / f"embedded-{Card.read(directory).files[WEIGHTS][:12]}.nemo"
    if not archive.exists():
        from archives import write_archive

        write_archive(directory, archive)
    return Model(archive, directory, device)


if __name__ == "__main__":
    main()
