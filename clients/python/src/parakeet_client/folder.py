"""A folder of results, and the journal with which a later run goes on where an earlier one stopped."""

import hashlib
import itertools
import json
import os
import re
import sys
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Self
from urllib.parse import unquote

from parakeet_client.contract import Options, Transcript

if sys.platform != "win32":
    import fcntl

JOURNAL = ".parakeet-client.jsonl"

# A name may have 255 bytes, a character of it four; a number and an extension are added.
_LONGEST_NAME = 50


class FolderInUseError(Exception):
    """Another run writes to the folder."""


@dataclass(frozen=True)
class Entry:
    """A source, as the journal knows it.

    Attributes:
        source: Digest of the URL, or of the file's path.
        request: Digest of that, of the file's size and time of change, and of what is asked for.
        stem: What the results would be called if no other source had that name.
    """

    source: str
    request: str
    stem: str = field(compare=False)

    @classmethod
    def of(cls, source: str, options: Options, *, is_url: bool) -> Self:
        """Return the entry of a source. Digests, as URLs may be signed, and then whoever reads one can fetch the audio.

        Args:
            source: A URL, or a file's path.
            options: What is asked for.
            is_url: Which of the two it is.
        """
        identity, state, stem = source, [0, 0], _stem_of_url(source)
        if not is_url:
            path = Path(source)
            identity, stem = str(path.resolve()), path.stem
            # Without it, reading the file fails later, and that has a message.
            with suppress(OSError):
                state = [path.stat().st_size, path.stat().st_mtime_ns]
        request = json.dumps([identity, state, options], sort_keys=True)
        return cls(_digest(identity), _digest(request), _clean(stem))


class Folder:
    """The folder that results are written to. Made by `open_folder`.

    The journal is a file of JSON lines that is only appended to. Its events are `named` (a source has got a name),
    `submitted` (a job was sent), `failed` (it need not be waited for any longer) and `written` (the results are there).

    Args:
        path: The folder.
        endpoint_id: The endpoint that jobs are sent to.
        journal: The journal, open for reading and appending.
    """

    def __init__(self, path: Path, endpoint_id: str, journal: BinaryIO) -> None:
        self.path = path
        self._endpoint_id = endpoint_id
        self._journal = journal
        self._lock = threading.Lock()
        self._names: dict[str, str] = {}
        self._jobs: dict[str, str] = {}
        self._written: dict[str, str] = {}
        journal.seek(0)
        for line in journal.read().splitlines():
            # The run that wrote it may have been killed in the middle of a line.
            with suppress(ValueError, KeyError, TypeError):
                event = json.loads(line)
                self._apply(event["event"], event["source"], event)
        # Some file systems take two names that differ in capitals for one.
        self._taken = {name.casefold() for name in (*self._names.values(), *_stems(path))}

    def _apply(self, event: str, source: str, fields: Mapping[str, Any]) -> None:
        if event == "named":
            self._names[source] = fields["name"]
        elif event == "submitted" and fields["endpoint"] == self._endpoint_id:
            self._jobs[fields["request"]] = fields["job"]
        elif event in ("failed", "written"):
            self._jobs.pop(fields["request"], None)
        if event == "written":
            self._written[source] = fields["request"]

    def _note(self, event: str, entry: Entry, **fields: str) -> None:
        record = {"event": event, "source": entry.source, **fields}
        # A line feed first: a line that a killed run has left unfinished must not swallow this one.
        line = f"\n{json.dumps(record)}\n".encode()
        with self._lock:
            self._journal.write(line)
            self._journal.flush()
            self._apply(event, entry.source, record)

    def is_done(self, entry: Entry) -> bool:
        """Return whether the results of a source are there, for what is asked for now."""
        name = self._names.get(entry.source)
        is_written = name is not None and self._written.get(entry.source) == entry.request
        return is_written and (self.path / f"{name}.json").exists()

    def job_of(self, entry: Entry) -> str | None:
        """Return the id of a job that was sent for a source and is not known to have ended."""
        return self._jobs.get(entry.request)

    def jobs(self, entries: Iterable[Entry]) -> int:
        """Return for how many of the sources a job was sent that is not known to have ended."""
        return sum(entry.request in self._jobs for entry in entries)

    def submitted(self, entry: Entry, job_id: str) -> None:
        """Note that a job was sent."""
        self._note("submitted", entry, request=entry.request, endpoint=self._endpoint_id, job=job_id)

    def failed(self, entry: Entry) -> None:
        """Note that the job of a source has ended without a result."""
        if entry.request in self._jobs:
            self._note("failed", entry, request=entry.request)

    def name(self, entries: Iterable[Entry]) -> None:
        """Give names to the results of sources that have none yet. No name is that of a file that is there."""
        for entry in entries:
            if entry.source not in self._names:
                numbered = (entry.stem if number == 1 else f"{entry.stem}-{number}" for number in itertools.count(1))
                name = next(name for name in numbered if name.casefold() not in self._taken)
                self._taken.add(name.casefold())
                self._note("named", entry, name=name)

    def write(self, entry: Entry, transcript: Transcript) -> None:
        """Write the results of a source that has a name, each file whole or not at all.

        Raises:
            OSError: They cannot be written.
        """
        name = self._names[entry.source]
        if transcript.captions is None:
            (self.path / f"{name}.srt").unlink(missing_ok=True)
        else:
            self._replace(f"{name}.srt", transcript.captions)
        self._replace(f"{name}.txt", f"{transcript.text}\n")
        # The last one: where it is, the others are.
        self._replace(f"{name}.json", json.dumps(transcript.answer, ensure_ascii=False) + "\n")
        self._note("written", entry, request=entry.request)

    def _replace(self, name: str, text: str) -> None:
        part = self.path / f".{name}.part"
        try:
            with part.open("w", encoding="utf-8", newline="") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            part.replace(self.path / name)
        finally:
            part.unlink(missing_ok=True)


@contextmanager
def open_folder(path: Path, endpoint_id: str) -> Iterator[Folder]:
    """Open a folder for results, and make it if it is not there.

    Raises:
        FolderInUseError: Another run writes to it. (Not known on Windows.)
        OSError: It cannot be made or written to.
    """
    path.mkdir(parents=True, exist_ok=True)
    with (path / JOURNAL).open("a+b") as journal:
        if sys.platform != "win32":
            try:
                fcntl.flock(journal, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise FolderInUseError from None
        yield Folder(path, endpoint_id, journal)


def _stems(path: Path) -> Iterator[str]:
    for file in path.iterdir():
        stem, extension = os.path.splitext(file.name)  # noqa: PTH122 - Path.stem takes ".json" for a stem
        if extension in (".json", ".srt", ".txt"):
            yield stem


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:32]


def _stem_of_url(url: str) -> str:
    if url[:5].lower() == "data:":
        return "audio"
    # Not with urlsplit, which refuses some URLs: the worker says what is wrong with them.
    path = re.split(r"[?#]", url, maxsplit=1)[0].partition("://")[2].partition("/")[2]
    return Path(unquote(path).rpartition("/")[2]).stem


def _clean(stem: str) -> str:
    """Return a stem without what some file systems do not take."""
    kept = re.sub(r'[\x00-\x1f\x7f<>:"/\\|?*\ud800-\udfff]', "_", stem)
    return kept[:_LONGEST_NAME].strip(". ") or "audio"
