"""Processes that decode one file each, as the worker sees them; see `child_server` for the other side."""

import errno
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import BinaryIO

from parakeet_worker.audio.child_server import NAME_BYTES, PID, STATUS
from parakeet_worker.audio.turns import Turns

SERVER = (sys.executable, "-m", "parakeet_worker.audio.child_server")

# What the server needs of this process's environment, which may hold secrets.
_ENVIRONMENT = ("PATH", "PYTHONPATH", "LD_LIBRARY_PATH", "LANG")

# numpy's threads would not be there in a process that was forked.
_NO_THREADS = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}

# No file sends these; a lack of memory does, or an operator.
_FOREIGN_SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)

# How long the end of a process that has closed its pipe may take to be known.
_STATUS_S = 5.0

_PROCESSES = Path("/proc")


class ChildError(Exception):
    """The system has no room for a child, or ended one. The file is not to blame.

    Args:
        is_killed: Whether it was ended, as is done where memory is short.
    """

    def __init__(self, *, is_killed: bool = False) -> None:
        super().__init__("killed" if is_killed else "not started")
        self.is_killed = is_killed


class Child:
    """A process that decodes one file.

    Args:
        output: Descriptor that its messages come from.
        line: Says its process id and its exit status; closing it kills it.
    """

    def __init__(self, output: int, line: socket.socket) -> None:
        self.output = output
        self._line = line
        self._pid: int | None = None
        self._began = time.monotonic()
        line.setblocking(False)

    @property
    def is_started(self) -> bool:
        """Whether it runs, or has run.

        Raises:
            ChildError: It was not started.
        """
        if self._pid is None:
            with suppress(BlockingIOError):
                said = self._line.recv(PID.size)
                if len(said) < PID.size:
                    raise ChildError
                (self._pid,) = PID.unpack(said)
        return self._pid is not None

    def work_seconds(self) -> float:
        """Return the seconds that processors have given it, or those on the clock where that is unknown."""
        try:
            # Fields 14 and 15 of proc(5)'s stat, of which the second is the program's name in parentheses.
            fields = (_PROCESSES / str(self._pid) / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            return time.monotonic() - self._began
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def check_end(self) -> None:
        """Wait for the end of a process that has closed its pipe.

        Raises:
            ChildError: The system ended it, not what it did.
        """
        deadline = time.monotonic() + _STATUS_S
        while not self.is_started and time.monotonic() < deadline:
            is_readable(self._line.fileno(), _STATUS_S)
        if not is_readable(self._line.fileno(), max(0.0, deadline - time.monotonic())):
            return  # it lives on and says nothing more
        said = self._line.recv(STATUS.size)
        if len(said) < STATUS.size or -STATUS.unpack(said)[0] in _FOREIGN_SIGNALS:
            raise ChildError(is_killed=True)

    def close(self) -> None:
        """Kill it."""
        self._line.close()
        os.close(self.output)


class Children:
    """Start processes that decode, through a server that is started for the first of them.

    Args:
        server: The program that starts them.

    Attributes:
        turns: Limits how many work at a time, to one for each core that this process may use.
    """

    def __init__(self, server: tuple[str, ...] = SERVER) -> None:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        self.turns = Turns(cores)
        self._command = server
        self._lock = threading.Lock()
        self._server: subprocess.Popen[bytes] | None = None
        self._requests: socket.socket | None = None

    def start(self, demuxer: str, file: BinaryIO) -> Child:
        """Start a process for a file.

        Args:
            demuxer: FFmpeg's name of the file's kind.
            file: The file; one in memory is copied.

        Raises:
            ChildError: There is no room for it.
        """
        try:
            with ExitStack() as given, ExitStack() as kept:
                output, messages = os.pipe()
                kept.callback(os.close, output)
                given.callback(os.close, messages)
                ours, theirs = socket.socketpair()
                kept.enter_context(ours)
                given.enter_context(theirs)
                content = given.enter_context(_with_descriptor(file))
                self._request(demuxer, [content.fileno(), messages, theirs.fileno()])
                kept.pop_all()
                return Child(output, ours)
        except (OSError, MemoryError) as error:
            raise ChildError from error

    def close(self) -> None:
        """End the server and the processes that it started."""
        with self._lock:
            self._end()

    def _request(self, demuxer: str, descriptors: list[int]) -> None:
        request = demuxer.encode().ljust(NAME_BYTES, b"\0")
        with self._lock:
            if self._requests and self._server and self._server.poll() is None:
                with suppress(BrokenPipeError, ConnectionResetError):  # it has ended a moment ago
                    socket.send_fds(self._requests, [request], descriptors)
                    return
            self._end()
            self._start()
            assert self._requests  # noqa: S101 - it was just opened
            socket.send_fds(self._requests, [request], descriptors)

    def _start(self) -> None:
        environment = {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                self._server = subprocess.Popen(  # noqa: S603 - its own program
                    self._command,
                    stdin=theirs.fileno(),
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    env=environment | _NO_THREADS,
                    start_new_session=True,  # Ctrl-C is for the worker, which may finish its jobs
                )
            except OSError:
                ours.close()
                raise
        self._requests = ours

    def _end(self) -> None:
        if self._requests:
            self._requests.close()  # the server ends its children and itself
        if self._server:
            try:
                self._server.wait(_STATUS_S)
            except subprocess.TimeoutExpired:
                self._server.kill()
                self._server.wait()
        self._requests = self._server = None


def is_readable(descriptor: int, seconds: float) -> bool:
    """Wait until there is something to read, or the end; return whether that was within so many seconds."""
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(seconds * 1000))


def _with_descriptor(file: BinaryIO) -> BinaryIO:
    """Return a file that another process can read, with the same bytes: a duplicate, or a copy of what is in memory."""
    try:
        file.flush()
        return os.fdopen(os.dup(file.fileno()), "rb")
    except OSError as error:
        if error.errno in (errno.EMFILE, errno.ENOSPC):
            raise
    copy: BinaryIO
    if hasattr(os, "memfd_create"):
        copy = os.fdopen(os.memfd_create("parakeet"), "w+b")
    else:
        copy = tempfile.TemporaryFile(prefix="parakeet-")  # noqa: SIM115 - the caller closes it
    file.seek(0)
    shutil.copyfileobj(file, copy)
    copy.flush()
    return copy
