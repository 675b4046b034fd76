"""Evaluate a worker: word error rate, times of words, RTFx and cost over recordings whose text is known.

    make eval                                                     # the bundled model and clips, in this process
    make eval SET=librispeech-clean TARGET=ENDPOINT_ID            # an endpoint on RunPod, with RUNPOD_API_KEY
    make eval MANIFEST=mine.jsonl TARGET=http://localhost:8000
    make eval-compare A=FOLDER B=FOLDER

Writes results.jsonl (one utterance a line), summary.json and page.html into a folder. Started again, it goes on where
it was stopped.
"""

import argparse
import itertools
import json
import os
import re
import sys
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tqdm import tqdm

from compare import ComparisonError, compare
from figures import as_json, comparison_facts, facts, failure_lines, summarise, table
from manifest import ManifestError, Utterance, read_manifest
from parakeet_client import Pace
from public_sets import SETS, SetError, open_set
from results import DamagedResultsError, Outcome, ResultsFile, ResultsInUseError, is_url, open_results, read_results
from targets import HERE, TargetError, fingerprint, open_target
from transcription import transcribe_all

_FOLDER = Path(__file__).parent
_CACHE = _FOLDER / ".cache"
_OUTPUT = _FOLDER / "output"
_CLIPS = _FOLDER.parent / "tests" / "speech" / "clips.jsonl"

_RESULTS, _SUMMARY, _PAGE, _RUN = "results.jsonl", "summary.json", "page.html", "run.json"

# Results are only added to others of the same model and program. Workers of an endpoint may have several devices.
_SAME = ("model", "version", "engine")


class OutputError(Exception):
    """The folder for the results cannot be used. The message says why, and what to do."""


# Their messages are for whoever runs the command.
_ERRORS = (ManifestError, SetError, TargetError, OutputError, ComparisonError, DamagedResultsError, ResultsInUseError)


@dataclass(frozen=True)
class Source:
    """Where utterances come from.

    Attributes:
        name: What it is called.
        place: Tells it from others of that name: the name of a set, or the absolute path of a manifest.
        utterances: The utterances, which may have to be downloaded yet.
        total: Their number, where it is known.
    """

    name: str
    place: str
    utterances: Iterable[Utterance]
    total: int | None


def main(arguments: Sequence[str] | None = None, pace: Pace | None = None) -> int:
    """Run the command line.

    Args:
        arguments: In place of those of the process.
        pace: How long to wait between requests.

    Returns:
        The exit status: 0 if everything was transcribed, 1 if not, 2 for a wrong command, 130 after Ctrl+C.
    """
    parser = _parser()
    given = parser.parse_args(arguments)
    try:
        if given.compare:
            return _compare(*given.compare)
        return _Evaluation(given, pace or Pace()).run()
    except _ERRORS as error:
        sys.stderr.write(f"evaluate: {error}\n")
        return 2
    except OSError as error:
        sys.stderr.write(f"evaluate: {error.filename or 'a file'} cannot be used: {error.strerror}\n")
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "evaluate", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    what = parser.add_mutually_exclusive_group()
    what.add_argument("manifest", nargs="?", type=Path, help="a file of JSON lines; without it, the bundled clips")
    what.add_argument("--set", metavar="NAME", help=f"a public set: {', '.join(SETS)}, or OWNER/DATASET:CONFIG:SPLIT")
    what.add_argument(
        "--compare", nargs=2, type=Path, metavar=("A", "B"), help="two folders of results, to be compared"
    )
    parser.add_argument(
        "--target", default=HERE, help=f"{HERE!r} (this process), a server's URL, or an endpoint's id ({HERE})"
    )
    parser.add_argument("--output", type=Path, metavar="FOLDER", help="where the results go")
    parser.add_argument("--limit", type=_positive, metavar="N", help="the first N utterances alone")
    parser.add_argument("--concurrency", type=_positive, default=32, metavar="N", help="requests at a time (32)")
    parser.add_argument("--price-per-hour", type=_price, metavar="DOLLARS", help="what an hour of a worker costs")
    parser.add_argument("--retry-failed", action="store_true", help="send the utterances again that have failed")
    parser.add_argument("--restart", action="store_true", help="discard the results that are there")
    parser.add_argument(
        "--page", action=argparse.BooleanOptionalAction, default=True, help="write page.html, with the worst utterances"
    )
    parser.add_argument("--worst", type=_positive, default=20, metavar="N", help="utterances on the page (20)")
    return parser


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError("it must be a number from 1 on")
    return int(text)


def _price(text: str) -> float:
    if not re.fullmatch(r"\d+(\.\d+)?", text, re.ASCII):
        raise argparse.ArgumentTypeError("it must be a number of dollars")
    return float(text)


class _Evaluation:
    """One run of the command.

    Args:
        given: The command's arguments.
        pace: How long to wait between requests.
    """

    def __init__(self, given: argparse.Namespace, pace: Pace) -> None:
        self._given = given
        self._pace = pace
        name = given.set or (given.manifest or _CLIPS).stem
        self._folder: Path = given.output or _OUTPUT / re.sub(r"[^\w.-]+", "-", f"{name}-{given.target}")

    def run(self) -> int:
        """Transcribe what is not transcribed yet, print the figures, and return the exit status."""
        given = self._given
        source = _open_source(given.manifest, given.set, given.limit)
        self._folder.mkdir(parents=True, exist_ok=True)
        results = self._folder / _RESULTS
        seen: list[Utterance] = []
        with open_results(results) as file:
            if given.restart:
                file.clear()
                (self._folder / _RUN).unlink(missing_ok=True)
            origin = _Origin(self._folder / _RUN, source, given.target)
            try:
                self._transcribe(source, _latest(results), seen, origin, file)
            except KeyboardInterrupt:
                sys.stderr.write("Stopped. The same command goes on where it was.\n")
                return 130
        known = _latest(results)
        return self._report([_up_to_date(known[utterance.id], utterance) for utterance in seen], origin)

    def _transcribe(
        self,
        source: Source,
        known: Mapping[str, Outcome],
        seen: list[Utterance],
        origin: "_Origin",
        file: ResultsFile,
    ) -> None:
        """Append the outcomes of those utterances that have none yet, and all utterances to `seen`."""
        lock = threading.Lock()
        failed: list[str] = []

        def waiting() -> Iterator[Utterance]:
            for utterance in source.utterances:
                seen.append(utterance)
                before = known.get(utterance.id)
                if before and _is_current(before, utterance) and not (before.error and self._given.retry_failed):
                    advance()
                else:
                    yield utterance

        def advance() -> None:
            with lock:
                bar.set_postfix(failed=len(failed), refresh=False)
                bar.update()

        def take(outcome: Outcome) -> None:
            file.append(outcome)
            if outcome.error:
                failed.append(outcome.id)
            advance()

        with tqdm(total=source.total, unit="utterance", disable=None) as bar:
            utterances = waiting()
            # Where nothing is left to do, no model is loaded and no worker started.
            for first in utterances:
                with open_target(self._given.target, self._pace) as target:
                    origin.take(target.model())
                    transcribe_all(itertools.chain([first], utterances), target, self._given.concurrency, take)

    def _report(self, outcomes: Sequence[Outcome], origin: "_Origin") -> int:
        given = self._given
        summary = summarise(outcomes, origin.source, origin.target, origin.model, given.price_per_hour)
        rows = facts(summary)
        (self._folder / _SUMMARY).write_text(json.dumps(as_json(summary), indent=2, ensure_ascii=False) + "\n")
        if given.page:
            from page import write_page

            title = f"{summary.source} on {summary.target}"
            write_page(self._folder / _PAGE, outcomes, title, rows, worst=given.worst)
        print(table(rows))
        if failures := failure_lines(outcomes):
            print("\nFailed:", *failures, sep="\n  ")
            print("--retry-failed sends them again.")
        print(f"\nWritten to {os.path.relpath(self._folder)}")
        return 1 if summary.failed else 0


class _Origin:
    """What a folder has results of, in a file: recordings, target and model.

    Args:
        path: The file.
        source: What is transcribed now.
        target: What transcribes it.

    Raises:
        OutputError: The folder has results of other recordings, or of another target or model.
    """

    def __init__(self, path: Path, source: Source, target: str) -> None:
        self._path = path
        place = source.place
        if Path(place).is_absolute():
            # So that a folder can be moved together with what it is about.
            place = Path(os.path.relpath(place, path.parent.resolve())).as_posix()
        self._now = {"recordings": place, "target": target, "weights": fingerprint(target)}
        self.source = source.name
        self.target = target
        self.model: Mapping[str, str] = {}
        if path.exists():
            self._read()

    def _read(self) -> None:
        try:
            before = json.loads(self._path.read_text(encoding="utf-8"))
            self.model = dict(before["model"])
            changed = [field for field in self._now if before[field] != self._now[field]]
        except (ValueError, KeyError, TypeError) as error:
            raise OutputError(f"{self._path.name}, in the folder for the results, is damaged: use --restart") from error
        if changed:
            raise OutputError(_other(changed))

    def take(self, model: Mapping[str, str]) -> None:
        """Note what the target says of its model.

        Raises:
            OutputError: The folder has results of another one.
        """
        if self.model and (changed := [field for field in _SAME if self.model.get(field) != model.get(field)]):
            raise OutputError(_other(changed))
        self.model = model
        self._path.write_text(json.dumps(self._now | {"model": model}, indent=2) + "\n", encoding="utf-8")


def _other(changed: Sequence[str]) -> str:
    return f"the folder has results with other {' and '.join(changed)}: use --restart, or another folder with --output"


def _latest(results: Path) -> dict[str, Outcome]:
    """Return the last outcome of each utterance, by its id: it may have been sent again."""
    return {outcome.id: outcome for outcome in read_results(results)}


def _is_current(outcome: Outcome, utterance: Utterance) -> bool:
    """Return whether the recording is still the one that was transcribed."""
    if is_url(utterance.audio):
        return outcome.audio == utterance.audio
    recording = Path(utterance.audio)
    return Path(outcome.audio).resolve() == recording.resolve() and recording.stat().st_mtime <= outcome.sent


def _up_to_date(outcome: Outcome, utterance: Utterance) -> Outcome:
    """Return an outcome with the reference that the manifest has now: it may have been corrected since."""
    return replace(outcome, audio=utterance.audio, reference=utterance.text, reference_words=utterance.words)


def _open_source(manifest: Path | None, set_name: str | None, limit: int | None) -> Source:
    if set_name:
        opened = open_set(set_name, _CACHE, limit)
        return Source(set_name, set_name, opened.utterances, opened.total)
    path = manifest or _CLIPS
    utterances = read_manifest(path, limit)
    return Source(path.name, str(path.resolve()), utterances, len(utterances))


def _compare(first: Path, second: Path) -> int:
    one, other = (list(_latest(path / _RESULTS if path.is_dir() else path).values()) for path in (first, second))
    print(table(comparison_facts(compare(one, other))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
