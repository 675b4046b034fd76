"""Writing whole lines to the log, one at a time, with control characters escaped.

RunPod's SDK, libraries and the worker print on several threads, and `print()` writes a text and its newline separately.
"""

import atexit
import io
import json
import os
import re
import select
import sys
import threading
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, suppress
from typing import Any, BinaryIO, Protocol, TextIO

from parakeet_worker.serverless.redaction import redact

Formatter = Callable[[str], str]
"""Formats a record, which may have several lines. If the result is empty, nothing is written."""

# A record without an end, such as a progress bar, is written once it is longer than this many characters.
_LONGEST = 65_536

# A line of RunPod's SDK: `INFO   | id | message`. Names of its own functions stand where an id would.
_SDK_LINE = re.compile(r"(TRACE|DEBUG|INFO|TIP|WARN|ERROR) *\| (?:(?!rp_|JobScaler\.)([^\s|]+) \| )?(.*)", re.DOTALL)

# How other libraries begin: `WARNING:root:…`, `[NeMo W …`, `INFO:     Started server`.
_LEVELS = {"DEBUG": "DEBUG", "INFO": "INFO", "WARNING": "WARN", "ERROR": "ERROR", "CRITICAL": "ERROR"}
_LEVEL = re.compile(rf"({'|'.join(_LEVELS)}):")


class LogLine(Protocol):
    """A line of the log that has fields."""

    def __str__(self) -> str:
        """Return the text of the line."""
        ...

    def fields(self) -> Mapping[str, Any]:
        """Return its JSON fields."""
        ...


class LineStream(io.TextIOBase):
    """A text stream in the place of `sys.stdout` or `sys.stderr` that writes whole records, each at once.

    A record is what a thread writes until a write that ends with a newline, as those of `print()` and of `logging` do.
    What it has written of one is kept until then, also by `flush()`. A record that cannot be written is lost, without
    an exception: a log on a full disk must not fail the jobs.

    Args:
        stream: The stream that is replaced, which has a file descriptor.
        formatter: Formats a record.
        lock: Held while a record is written: one for all streams, since two of them often lead to the same file. The
            same thread may take it twice, in a signal's handler.
    """

    def __init__(self, stream: TextIO, formatter: Formatter, lock: AbstractContextManager[Any]) -> None:
        self._stream = stream
        self._formatter = formatter
        self._lock = lock
        self._begun: dict[threading.Thread, str] = {}

    def write(self, text: str) -> int:
        """Write a part of a record."""
        thread = threading.current_thread()
        with self._lock:
            begun = self._begun.pop(thread, "")
            if len(begun) > _LONGEST and text != "\n":
                self._put(begun)
                begun = ""
            if text.endswith("\n"):
                self._put(begun + text)
            elif begun or text:
                self._begun[thread] = begun + text
        return len(text)

    def flush(self) -> None:
        """Write what is in the buffer of bytes. A record that has no end yet stays."""
        with suppress(OSError, ValueError):
            self._stream.flush()

    def drain(self) -> None:
        """Write what all threads have begun, as it is."""
        with self._lock:
            while self._begun:
                self._put(self._begun.popitem()[1])

    def close(self) -> None:
        """Write what is begun, and take no more. The file descriptor stays open."""
        if not self.closed:
            self.drain()
        super().close()

    def renew(self, lock: AbstractContextManager[Any]) -> None:
        """Begin anew in a child of the process, which has none of the threads that held the lock or wrote a record."""
        self._lock = lock
        self._begun = {}

    def writable(self) -> bool:
        """Return True."""
        return True

    def fileno(self) -> int:
        """Return the file descriptor."""
        return self._stream.fileno()

    def isatty(self) -> bool:
        """Return False, so that no library colours its output."""
        return False

    @property
    def name(self) -> str:
        """The name of the stream that is replaced."""
        return self._stream.name

    @property
    def encoding(self) -> str:  # type: ignore[override]  # typeshed has a plain attribute
        """The encoding of the stream that is replaced."""
        return self._stream.encoding

    @property
    def errors(self) -> str:  # type: ignore[override]  # the same
        """What becomes of what cannot be encoded, such as a lone surrogate: its escape is written."""
        return "backslashreplace"

    @property
    def buffer(self) -> BinaryIO:
        """The buffer of bytes of the stream that is replaced, which is written to without formatting."""
        return self._stream.buffer

    def _put(self, record: str) -> None:
        if text := self._formatter(redact(record.removesuffix("\n").removesuffix("\r"))):
            _write_all(self.fileno(), f"{text}\n".encode(self.encoding, self.errors))


def _write_all(descriptor: int, data: bytes) -> None:
    """Write bytes in one call, or in as many as it takes."""
    left = memoryview(data)
    while left:
        try:
            left = left[os.write(descriptor, left) :]
        except BlockingIOError:
            # Another process that has the same pipe has made it non-blocking.
            select.select([], [descriptor], [])
        except OSError:
            return


def install(*, as_json: bool) -> None:
    """Replace `sys.stdout` and `sys.stderr` by streams that write whole lines.

    Args:
        as_json: Whether each of them is to be a JSON object.
    """
    lock = threading.RLock()
    streams = []
    for name, level in (("stdout", "INFO"), ("stderr", "ERROR")):
        stream = getattr(sys, name)
        # A process that was started with a closed descriptor has no stream.
        if stream is not None and not isinstance(stream, LineStream):
            stream.flush()
            streams.append(LineStream(stream, _json_form(level) if as_json else as_text, lock))
            setattr(sys, name, streams[-1])

    def renew() -> None:
        lock = threading.RLock()
        for stream in streams:
            stream.renew(lock)

    # Another thread may hold the lock when the process forks, as it does for the SDK's heartbeat.
    os.register_at_fork(after_in_child=renew)
    atexit.register(drain)


def drain() -> None:
    """Write what has been begun, as the process ends."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, LineStream):
            stream.drain()


def as_text(record: str) -> str:
    """Return a record for people to read.

    One of the SDK is a line, whatever is in it: a job's id that holds a newline makes no line of its own. Others, such
    as a warning with the line that it is about, keep their newlines.
    """
    if _SDK_LINE.match(record):
        return printable(record.rstrip("\n"))
    return "\n".join(map(printable, record.split("\n")))


def _json_form(level: str) -> Formatter:
    def form(record: str) -> str:
        return as_json(record, level)

    return form


def as_json(record: str, level: str) -> str:
    """Return a record as a JSON object in one line, or as it is where it is one.

    Args:
        record: What was printed.
        level: The level of what has none of its own.
    """
    if _is_json_object(record):
        return record
    if not (message := record.strip()):
        return ""
    job_id = None
    if sdk := _SDK_LINE.match(message):
        level, job_id, message = sdk.groups()
    elif begin := _LEVEL.match(message):
        level = _LEVELS[begin[1]]
    elif "Warning: " in message:
        # Python's warnings.
        level = "WARN"
    return json_line(message, level, job_id)


def json_line(message: str, level: str, job_id: object, fields: Mapping[str, Any] | None = None) -> str:
    """Return a line of the log as a JSON object, with `requestId` and `level` as RunPod's SDK names them."""
    return json.dumps({"requestId": job_id, "level": level, "message": message, **(fields or {})})


def _is_json_object(text: str) -> bool:
    if not text.startswith("{") or "\n" in text:
        return False
    try:
        return isinstance(json.loads(text), dict)
    except (ValueError, RecursionError):
        return False


def printable(text: str) -> str:
    """Escape what cannot be printed, as `repr()` does: newlines, control characters, lone surrogates, and the like."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)
