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
from origin import Origin, OutputError
from parakeet_client import Pace
from public_sets import SETS, SetError, open_set
from results import (
    DamagedResultsError,
    Outcome,
    ResultsFile,
    ResultsInUseError,
    is_url,
    open_results,
    read_results,
    without_secrets,
)
from targets import HERE, TargetError, open_target
from transcription import transcribe_all

_FOLDER = Path(__file__).parent
_CACHE = _FOLDER / ".cache"
_OUTPUT = _FOLDER / "output"
_CLIPS = _FOLDER.parent / "tests" / "speech" / "clips.jsonl"

_RESULTS, _SUMMARY, _PAGE, _RUN = "results.jsonl", "summary.json", "page.html", "run.json"

# These say nothing about the recording: the target or the result was out of reach.
_OUT_OF_REACH = frozenset({"unreachable", "result_unavailable"})

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
    except KeyboardInterrupt:
        sys.stderr.write("Stopped. The same command, without --restart, goes on where it was.\n")
        return 130
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
        "--target",
        type=_target,
        default=HERE,
        help=f"{HERE!r} (this process), a server's URL, or an endpoint's id ({HERE})",
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


def _target(text: str) -> str:
    if is_url(text):
        if "api.runpod.ai" in text:
            raise argparse.ArgumentTypeError("of an endpoint on RunPod give the id, not an address")
        if "?" in text or "#" in text:
            raise argparse.ArgumentTypeError("give the URL of a server without what follows ? or #")
    elif ":" in text or "/" in text:
        raise argparse.ArgumentTypeError("the URL of a server begins with http:// or https://")
    return text


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
        # Neither the folder nor what is in it names a user or a password.
        self._target = without_secrets(given.target)
        # Two manifests of one name, in other folders, have folders of their own.
        name = given.set or (given.manifest.with_suffix("").as_posix() if given.manifest else _CLIPS.stem)
        self._folder: Path = given.output or _OUTPUT / re.sub(r"[^\w.-]+", "-", f"{name}-{self._target}").lstrip(".-")

    def run(self) -> int:
        """Transcribe what is not transcribed yet, print the figures, and return the exit status."""
        given = self._given
        source = _open_source(given.manifest, given.set, given.limit)
        self._folder.mkdir(parents=True, exist_ok=True)
        results = self._folder / _RESULTS
        seen: list[Utterance] = []
        with open_results(results) as file:
            origin = Origin(self._folder / _RUN, source.name, source.place, self._target, is_new=given.restart)
            known = {} if given.restart else _latest(read_results(results))
            was_asked = self._transcribe(source, known, seen, origin, file)
            history = read_results(results)
            known = _latest(history)
            outcomes = [_up_to_date(known[utterance.id], utterance) for utterance in seen]
            for outcome in outcomes:
                if _is_corrected(known[outcome.id], outcome):
                    file.append(outcome)
        return self._report(outcomes, _repeated(history, known, seen), origin, was_asked)

    def _transcribe(
        self,
        source: Source,
        known: Mapping[str, Outcome],
        seen: list[Utterance],
        origin: Origin,
        file: ResultsFile,
    ) -> bool:
        """Append the outcomes of those utterances that have none yet, and all utterances to `seen`.

        Returns:
            Whether the target was asked anything.
        """
        lock = threading.Lock()
        failed: list[str] = []
        was_asked = False

        def waiting() -> Iterator[Utterance]:
            for utterance in source.utterances:
                seen.append(utterance)
                before = known.get(utterance.id)
                if before and _is_current(before, utterance) and not self._is_sent_again(before):
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
                was_asked = True
                with open_target(self._given.target, self._pace) as target:
                    model = target.model()
                    if self._given.restart:
                        file.clear()
                    origin.take(model)
                    transcribe_all(itertools.chain([first], utterances), target, self._given.concurrency, take)
        return was_asked

    def _is_sent_again(self, outcome: Outcome) -> bool:
        return outcome.error is not None and (self._given.retry_failed or outcome.error.code in _OUT_OF_REACH)

    def _report(self, outcomes: Sequence[Outcome], repeated: Sequence[Outcome], origin: Origin, was_asked: bool) -> int:
        given = self._given
        summary = summarise(outcomes, origin.source, origin.target, origin.model, given.price_per_hour, repeated)
        rows = facts(summary)
        text = json.dumps(as_json(summary), indent=2, ensure_ascii=False) + "\n"
        (self._folder / _SUMMARY).write_text(text, encoding="utf-8")
        if given.page:
            from page import write_page

            title = f"{summary.source} on {summary.target}"
            write_page(self._folder / _PAGE, outcomes, title, rows, worst=given.worst)
        print(table(rows))
        if failures := failure_lines(outcomes):
            print("\nFailed:", *failures, sep="\n  ")
            print("--retry-failed sends them again.")
        if not was_asked:
            print("\nNothing was sent: these are the results of earlier runs.")
        print(f"\nWritten to {os.path.relpath(self._folder)}")
        return 1 if summary.failed else 0


def _latest(history: Iterable[Outcome]) -> dict[str, Outcome]:
    """Return the last outcome of each utterance, by its id: it may have been sent again."""
    return {outcome.id: outcome for outcome in history}


def _repeated(history: Iterable[Outcome], known: Mapping[str, Outcome], seen: Iterable[Utterance]) -> list[Outcome]:
    """Return the failures of utterances that were sent again since."""
    ids = {utterance.id for utterance in seen}
    return [each for each in history if each.error and each.id in ids and each.sent != known[each.id].sent]


def _is_current(outcome: Outcome, utterance: Utterance) -> bool:
    """Return whether the recording is still the one that was transcribed."""
    if is_url(utterance.audio):
        return outcome.audio == utterance.audio
    recording = Path(utterance.audio)
    return Path(outcome.audio).resolve() == recording.resolve() and recording.stat().st_mtime == outcome.modified


def _up_to_date(outcome: Outcome, utterance: Utterance) -> Outcome:
    """Return an outcome with the reference that the manifest has now: it may have been corrected since."""
    return replace(outcome, audio=utterance.audio, reference=utterance.text, reference_words=utterance.words)


def _is_corrected(before: Outcome, now: Outcome) -> bool:
    return (before.reference, before.reference_words) != (now.reference, now.reference_words)


def _open_source(manifest: Path | None, set_name: str | None, limit: int | None) -> Source:
    if set_name:
        opened = open_set(set_name, _CACHE, limit)
        return Source(set_name, set_name, opened.utterances, opened.total)
    path = manifest or _CLIPS
    utterances = read_manifest(path, limit)
    return Source(path.name, str(path.resolve()), utterances, len(utterances))


def _compare(first: Path, second: Path) -> int:
    one, other = (
        list(_latest(read_results(path / _RESULTS if path.is_dir() else path)).values()) for path in (first, second)
    )
    print(table(comparison_facts(compare(one, other))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
