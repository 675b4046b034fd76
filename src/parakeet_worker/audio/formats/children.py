"""Starting and watching decoder processes, one for each file. `child_server` is the other side."""

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

from parakeet_worker.audio.formats.child_server import NAME_BYTES, PID, STATUS
from parakeet_worker.audio.formats.slots import DecoderSlots

SERVER = (sys.executable, "-m", "parakeet_worker.audio.formats.child_server")

# All that the server gets of this process's environment, which may hold secrets.
_ENVIRONMENT = ("PATH", "PYTHONPATH", "LD_LIBRARY_PATH", "LANG")

# A forked process would not have numpy's threads.
_NO_THREADS = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}

# Signals that come from the system, out of memory, or from an operator, and never from decoding a file.
_FOREIGN_SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)

# Longest wait for the exit status of a process that has closed its pipe.
_STATUS_S = 5.0

_PROCESSES = Path("/proc")


class ChildError(Exception):
    """A child could not be started, or the system killed it. Its file is not the cause.

    Args:
        is_killed: Whether it was killed, as the system does out of memory.
    """

    def __init__(self, *, is_killed: bool = False) -> None:
        super().__init__("killed" if is_killed else "not started")
        self.is_killed = is_killed


class Child:
    """A process that decodes one file.

    Args:
        output: Descriptor of the pipe with its messages.
        control: The control socket, see `child_server`.
    """

    def __init__(self, output: int, control: socket.socket) -> None:
        self.output = output
        self._control = control
        self._pid: int | None = None
        self._began = time.monotonic()
        control.setblocking(False)

    @property
    def is_started(self) -> bool:
        """Whether it was started.

        Raises:
            ChildError: It could not be.
        """
        if self._pid is None:
            with suppress(BlockingIOError):
                said = self._control.recv(PID.size)
                if len(said) < PID.size:
                    raise ChildError
                (self._pid,) = PID.unpack(said)
        return self._pid is not None

    def work_seconds(self) -> float:
        """Return the seconds of CPU time that it has used, or those since its start where the system does not tell."""
        try:
            # Fields 14 and 15 of proc(5)'s stat, of which the second is the program's name in parentheses.
            fields = (_PROCESSES / str(self._pid) / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            return time.monotonic() - self._began
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def check_end(self) -> None:
        """Wait for the exit status of a process that has closed its pipe.

        Raises:
            ChildError: The system killed it.
        """
        deadline = time.monotonic() + _STATUS_S
        while not self.is_started and time.monotonic() < deadline:
            is_readable(self._control.fileno(), _STATUS_S)
        if not is_readable(self._control.fileno(), max(0.0, deadline - time.monotonic())):
            return  # it goes on running without a pipe
        said = self._control.recv(STATUS.size)
        if len(said) < STATUS.size or -STATUS.unpack(said)[0] in _FOREIGN_SIGNALS:
            raise ChildError(is_killed=True)

    def close(self) -> None:
        """Kill the process and close its pipe."""
        self._control.close()
        os.close(self.output)


class Children:
    """Starts decoder processes, through a server that is started for the first of them.

    Args:
        server: Command line of the server.

    Attributes:
        slots: Limits how many decode at a time, to one for each core that this process may use.
    """

    def __init__(self, server: tuple[str, ...] = SERVER) -> None:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        self.slots = DecoderSlots(cores)
        self._command = server
        self._lock = threading.Lock()
        self._server: subprocess.Popen[bytes] | None = None
        self._requests: socket.socket | None = None

    @property
    def server_pid(self) -> int | None:
        """Process id of the server, or None while there is none."""
        return self._server.pid if self._server else None

    def start(self, demuxer: str, file: BinaryIO) -> Child:
        """Start a process for a file.

        Args:
            demuxer: FFmpeg's name of the file's format.
            file: The file. One in memory is copied to one that has a descriptor.

        Raises:
            ChildError: The system has no room for it.
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
        """End the server and the processes that it has started."""
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
                self._server = subprocess.Popen(  # noqa: S603 - our own program
                    self._command,
                    stdin=theirs.fileno(),
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    env=environment | _NO_THREADS,
                    start_new_session=True,  # Ctrl-C is for the worker, which then finishes its jobs
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
    """Wait for data or the end of a descriptor, and return whether one came within so many seconds."""
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(seconds * 1000))


def _with_descriptor(file: BinaryIO) -> BinaryIO:
    """Return a file with a descriptor and the same bytes: a duplicate, or a copy if the file is in memory."""
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
