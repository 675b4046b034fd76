"""What the options of a request cost: the worker with each of them beside the worker without, alternating in one run.

    make bench-options

Prints a table, and writes it with the numbers behind it (JSON) to `benchmarks/results/`.
"""

import argparse
import json
import statistics
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from bench import HERE, device_name, prepare, word_difference
from clips import Recording, traffic_lengths, write_recordings
from subjects import Outcome, Remote, Worker
from terms import ABSENT_TERMS

KEY_TERMS = {"keyterms": list(ABSENT_TERMS)}
OPTIONS: Mapping[str, Mapping[str, object]] = {
    "none": {},
    "timestamps: words": {"timestamps": ["word"]},
    "timestamps: all": {"timestamps": True},
    "captions": {"captions": "srt"},
    "confidence": {"confidence": True},
    "100 key terms": KEY_TERMS,
    "all of these": {"timestamps": True, "captions": "srt", "confidence": True, **KEY_TERMS},
}
IN_FLIGHT = 64


def measure(worker: Remote, recordings: Sequence[Recording], rounds: int) -> dict[str, list[Outcome]]:
    """Transcribe the recordings with each option, in every round, in turning order."""
    outcomes: dict[str, list[Outcome]] = {name: [] for name in OPTIONS}
    worker.call("run", recordings, IN_FLIGHT, False)
    for index in range(rounds):
        for name, options in list(OPTIONS.items())[:: 1 if index % 2 == 0 else -1]:
            outcomes[name].append(worker.call("run", recordings, IN_FLIGHT, False, options))
    return outcomes


def main() -> None:
    """Run the command line; see `--help`."""
    parser = argparse.ArgumentParser(description="Measure what the options of a request cost.")
    parser.add_argument("--model", choices=["embedded", "twin"], default="embedded")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--count", type=int, default=192, help="number of recordings")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--out", type=Path, default=HERE / "results")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        recordings = write_recordings(traffic_lengths(given.count, seed=0), Path(scratch), seed=0)
        worker = Remote(Worker, prepare(given.model, given.device))
        outcomes = measure(worker, recordings, given.rounds)
        worker.close()
    audio = sum(recording.seconds for recording in recordings)
    plain = outcomes["none"]
    rows = {}
    for name, runs in outcomes.items():
        # Of the same round each: what else the machine did then, it did to both.
        ratios = [before.seconds / run.seconds for before, run in zip(plain, runs, strict=True)]
        rows[name] = {
            "rtfx": audio / statistics.median(run.seconds for run in runs),
            "ratio": statistics.median(ratios),
            "ratios": ratios,
            "words": word_difference(runs[0].texts, plain[0].texts),
        }
    what = f"{given.model} on {device_name(given.device)}: {len(recordings)} recordings, {audio:.0f} s"
    lines = [f"{what}, {IN_FLIGHT} jobs in flight, {given.rounds} rounds", ""]
    lines.append(f"{'':20}{'RTFx':>8}{'ratio':>8}{'words that differ':>20}")
    lines += [f"{name:20}{row['rtfx']:8.1f}{row['ratio']:7.3f}x{row['words']:>20.2%}" for name, row in rows.items()]
    text = "\n".join(lines) + "\n"
    print(text)
    given.out.mkdir(parents=True, exist_ok=True)
    stem = f"options-{given.model}-{given.device}"
    (given.out / f"{stem}.txt").write_text(text)
    (given.out / f"{stem}.json").write_text(json.dumps({"audio_s": round(audio, 1), "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
