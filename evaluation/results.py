"""What an evaluation gives for each utterance, and the file that keeps it: one JSON object a line, only appended to."""

import fcntl
import json
import os
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

_URL = re.compile("https?://|data:", re.IGNORECASE)


class DamagedResultsError(ValueError):
    """A line of a results file is no outcome. The message says which."""


class ResultsInUseError(Exception):
    """Another run writes to the results file."""


@dataclass(frozen=True)
class WordTime:
    """A word and when it is said, in seconds from the start of the recording."""

    word: str
    start: float
    end: float


@dataclass(frozen=True)
class Failure:
    """Why an utterance has no transcript: the code of the worker or of its client, and the message."""

    code: str
    message: str


@dataclass(frozen=True)
class Execution:
    """When a worker had a request: from taking it to its answer, as Unix times in seconds."""

    worker: str
    start: float
    end: float


@dataclass(frozen=True)
class Outcome:
    """What came of one utterance.

    Attributes:
        id: Its name, which no other utterance of the evaluation has.
        audio: An absolute path, or a URL.
        reference: What is said, as the manifest has it.
        duration: Seconds of audio, where they are known.
        hypothesis: The transcript; None if there is none.
        error: Why there is none.
        reference_words: The words of the reference with their times, where the manifest has them.
        hypothesis_words: The words of the transcript with their times.
        worker_seconds: How long workers had the request, where that is known. They may have had others beside it.
        seconds: From the request to its answer, with repeated requests, as the evaluation's clock has it.
        sent: When the request was sent, as a Unix time in seconds.
        modified: When the recording's file had last been changed, as a Unix time in seconds; None for a URL.
        executions: When workers had the request: several times if it was repeated.
    """

    id: str
    audio: str
    reference: str
    duration: float | None
    hypothesis: str | None
    error: Failure | None
    reference_words: tuple[WordTime, ...]
    hypothesis_words: tuple[WordTime, ...]
    worker_seconds: float | None
    seconds: float
    sent: float = 0.0
    modified: float | None = None
    executions: tuple[Execution, ...] = ()


class ResultsFile:
    """A results file that is open for appending, on any thread. Made by `open_results`.

    Args:
        file: Open for appending, at the end of a whole line.
        folder: What the paths in the file are relative to.
    """

    def __init__(self, file: BinaryIO, folder: Path) -> None:
        self._file = file
        self._folder = folder
        self._lock = threading.Lock()

    def clear(self) -> None:
        """Remove all outcomes."""
        self._file.truncate(0)

    def append(self, outcome: Outcome) -> None:
        """Write an outcome so that it is on the disk when this returns."""
        record = asdict(outcome)
        if not is_url(outcome.audio):
            record["audio"] = Path(os.path.relpath(outcome.audio, self._folder)).as_posix()
        # A transcript can contain half of a surrogate pair, which is no character.
        line = json.dumps(record, ensure_ascii=False).encode("utf-8", "replace") + b"\n"
        with self._lock:
            self._file.write(line)
            self._file.flush()
            os.fsync(self._file.fileno())


@contextmanager
def open_results(path: Path) -> Iterator[ResultsFile]:
    """Open a results file for appending. What an interrupted run left of its last line is cut off.

    Raises:
        ResultsInUseError: Another run writes to it.
        OSError: It cannot be written to.
    """
    with path.open("a+b") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ResultsInUseError(f"another run writes to {path}") from None
        file.seek(0)
        written = file.read()
        file.truncate(written.rfind(b"\n") + 1)
        yield ResultsFile(file, path.parent.resolve())


def read_results(path: Path) -> list[Outcome]:
    """Return the outcomes in a results file, in its order. A last line without an end is that of an interrupted run.

    Raises:
        DamagedResultsError: A line is no outcome.
        OSError: The file cannot be read.
    """
    outcomes = []
    folder = path.parent.resolve()
    for number, line in enumerate(path.read_bytes().split(b"\n")[:-1], 1):
        try:
            outcomes.append(_outcome(json.loads(line), folder))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise DamagedResultsError(
                f"{path}, line {number}, is not the outcome of an utterance: remove the line, and evaluate again"
            ) from error
    return outcomes


def is_url(audio: str) -> bool:
    """Return whether audio is a URL rather than a path."""
    return _URL.match(audio) is not None


def without_secrets(text: str) -> str:
    """Return a URL as it may be shown: without user, password and query, and a `data:` URL without its data.

    A text that is no URL is returned as it is.
    """
    if not is_url(text):
        return text
    if text[:5].lower() == "data:":
        return text.partition(",")[0]
    return re.sub(r"(?<=://)[^/?#]*@|[?#].*", "", text, flags=re.DOTALL)


def _outcome(record: dict[str, Any], folder: Path) -> Outcome:
    audio = record["audio"]
    return Outcome(
        id=record["id"],
        audio=audio if is_url(audio) else os.path.normpath(folder / audio),
        reference=record["reference"],
        duration=record["duration"],
        hypothesis=record["hypothesis"],
        error=None if record["error"] is None else Failure(**record["error"]),
        reference_words=tuple(WordTime(**word) for word in record["reference_words"]),
        hypothesis_words=tuple(WordTime(**word) for word in record["hypothesis_words"]),
        worker_seconds=record["worker_seconds"],
        seconds=record["seconds"],
        sent=record["sent"],
        modified=record.get("modified"),
        executions=tuple(Execution(**execution) for execution in record["executions"]),
    )
