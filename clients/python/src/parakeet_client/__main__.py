"""The command line: transcribe files and URLs into a folder, and go on where the last run stopped."""

import argparse
import contextlib
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO, get_args

from tqdm import tqdm

from parakeet_client.client import FATAL, Client, Task
from parakeet_client.contract import Level, Options, Transcript, TranscriptionError, is_url
from parakeet_client.endpoint import Pace
from parakeet_client.folder import Entry, Folder, FolderInUseError, open_folder

# After these, RunPod may still have the job or its result: the next run asks for it.
_STILL_THERE = FATAL | {"stopped", "unreachable", "request_refused", "unexpected_answer", "result_unavailable"}

_DESCRIPTION = """Transcribe files and URLs with a Parakeet worker on RunPod.

For each source, NAME.json (the whole answer), NAME.srt and NAME.txt are written to a folder. Started
again with the same sources, it leaves out what is written, and waits for the jobs that it has sent
before. RunPod keeps results for 30 minutes, those of files above 7 MB for one; after that, the
recordings are sent again. The API key is taken from the environment variable RUNPOD_API_KEY."""


def main(arguments: Sequence[str] | None = None, pace: Pace | None = None) -> int:
    """Run the command line.

    Args:
        arguments: In place of those of the process.
        pace: How long to wait between requests.

    Returns:
        The exit status: 0 if all results are there, 1 if not, 2 for a wrong command, 130 after Ctrl+C.
    """
    parser = _parser()
    given = parser.parse_args(arguments)
    options: Options = {"captions": "srt"}
    if given.timestamps:
        options["timestamps"] = given.timestamps
    if given.confidence:
        options["confidence"] = True
    if given.keyterms:
        options["keyterms"] = given.keyterms
    if given.segment_pause is not None:
        options["segment_pause"] = given.segment_pause
    try:
        client = Client(given.endpoint, pace=pace)
    except ValueError as error:
        parser.error(str(error))
    try:
        with client, open_folder(given.out, client.endpoint_id) as folder:
            return _Run(client, folder, given.sources, options).run(given.in_flight, sys.stdout, sys.stderr)
    except FolderInUseError:
        parser.error(f"another run writes to {given.out}")
    except OSError as error:
        parser.error(f"{given.out} cannot be written to: {error.strerror}")


def _levels(text: str) -> list[Level]:
    levels: tuple[Level, ...] = get_args(Level)
    chosen = text.split(",")
    if unknown := set(chosen) - set(levels):
        raise argparse.ArgumentTypeError(f"{min(unknown)!r} is none of {', '.join(levels)}")
    return [level for level in levels if level in chosen]


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError("it must be a number from 1 on")
    return int(text)


class _Parser(argparse.ArgumentParser):
    """A parser that takes a source of a line without the spaces around it."""

    def convert_arg_line_to_args(self, arg_line: str) -> list[str]:
        return [arg_line.strip()]


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        "parakeet_client",
        description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        fromfile_prefix_chars="@",
    )
    parser.add_argument("sources", nargs="+", metavar="source", help="a file or URL, or @FILE with one in each line")
    parser.add_argument("--endpoint", required=True, metavar="ID", help="the endpoint's id")
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="the folder for the results")
    parser.add_argument(
        "--timestamps",
        type=_levels,
        metavar="LEVELS",
        help="times in NAME.json, such as word,segment,char",
    )
    parser.add_argument("--confidence", action="store_true", help="the model's confidence in NAME.json")
    parser.add_argument(
        "--keyterm", action="append", dest="keyterms", metavar="TERM", help="a name or term to expect; may be repeated"
    )
    parser.add_argument("--segment-pause", type=float, metavar="SECONDS", help="a pause that ends a segment")
    parser.add_argument("--in-flight", type=_positive, default=32, metavar="N", help="jobs at a time (32)")
    return parser


class _Run:
    """One run of the command line.

    Args:
        client: The endpoint.
        folder: Where the results go.
        sources: Files and URLs.
        options: What to ask for.
    """

    def __init__(self, client: Client, folder: Folder, sources: list[str], options: Options) -> None:
        self._client = client
        self._folder = folder
        self._options = options
        # By the digest of the source: a file may be named twice, and in two ways.
        self._sources: dict[Entry, str] = {}
        for source in filter(None, sources):
            self._sources.setdefault(Entry.of(source, options, is_url=is_url(source)), source)
        self._written = 0
        self._failures: list[tuple[str, TranscriptionError]] = []

    def run(self, in_flight: int, out: TextIO, err: TextIO) -> int:
        """Transcribe what is not written yet, and return the exit status."""
        waiting = [entry for entry in self._sources if not self._folder.is_done(entry)]
        try:
            self._transcribe(waiting, in_flight, err)
        except KeyboardInterrupt:
            jobs = self._folder.jobs(self._sources)
            err.write(
                f"Stopped. Jobs still at RunPod: {jobs}. The same command gets their results, within 30 minutes, or "
                "one minute for files above 7 MB.\n"
            )
            return 130
        done_before = len(self._sources) - len(waiting)
        untried = len(waiting) - self._written - len(self._failures)
        out.write(f"{self._written} written, {done_before} there before, {len(self._failures)} failed")
        out.write(f", {untried} not tried\n" if untried else "\n")
        for source, error in self._failures:
            err.write(f"{_shown(source)}: {error}\n")
        return 1 if self._failures else 0

    def _transcribe(self, waiting: list[Entry], in_flight: int, err: TextIO) -> None:
        self._folder.name(waiting)
        tasks = [self._task(entry) for entry in waiting]
        completed = self._client.as_completed(tasks, in_flight=in_flight, cancel_on_exit=False)
        done_before = len(self._sources) - len(waiting)
        with (
            contextlib.closing(completed),
            tqdm(total=len(self._sources), initial=done_before, unit="file", file=err, disable=None) as bar,
        ):
            for number, result in completed:
                self._take(waiting[number], result)
                bar.set_postfix(failed=len(self._failures), refresh=False)
                bar.update()
                if isinstance(result, TranscriptionError) and result.code in FATAL:
                    break

    def _task(self, entry: Entry) -> Task:
        return Task(
            self._sources[entry],
            self._options,
            job_id=self._folder.job_of(entry),
            on_submit=lambda job_id: self._folder.submitted(entry, job_id),
        )

    def _take(self, entry: Entry, result: Transcript | TranscriptionError) -> None:
        if isinstance(result, Transcript):
            try:
                self._folder.write(entry, result)
            except OSError as error:
                result = TranscriptionError("unwritable_file", f"The results cannot be written: {error.strerror}.")
            else:
                self._written += 1
                return
        elif result.code not in _STILL_THERE:
            self._folder.failed(entry)
        self._failures.append((self._sources[entry], result))


def _shown(source: str) -> str:
    """Return a source as it may be shown: without what signs a URL, and without inline audio."""
    if not is_url(source):
        return source
    if source[:5].lower() == "data:":
        return "data:…"
    shown = re.sub(r"//[^/]*@", "//", re.split(r"[?#]", source, maxsplit=1)[0])
    # What looks like a port that is no number is a password with a character that should be escaped.
    is_whole = re.match(r"[^:]+://(\[[^\]/]*\]|[^/:]*)(:\d*)?(/|$)", shown)
    return shown if is_whole else f"{shown.partition('//')[0]}//…"


if __name__ == "__main__":
    sys.exit(main())
