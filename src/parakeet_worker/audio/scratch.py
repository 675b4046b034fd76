"""Temporary files for audio: without names, counted together, and clear about a disk or a file table that is full."""

import errno
import io
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import BinaryIO, TypeVar, cast

from parakeet_worker.audio.abort import Abort
from parakeet_worker.errors import Code, JobError
from parakeet_worker.exhaustion import causes, worker_busy

T = TypeVar("T")

# A disk, a quota or a limit of the process that is used up.
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

# The table of open files, of the process or of the system, is full.
_NO_DESCRIPTOR = (errno.EMFILE, errno.ENFILE)

# Jobs come and go in this time, and each gives back what it has open.
_PATIENCE_S, _INTERVAL_S = 10.0, 0.05


class Disk:
    """Bytes on the disk that all downloads share.

    A download that does not fit fails, rather than wait: those that it would wait for may wait for it.

    Args:
        max_bytes: How many there are.
    """

    def __init__(self, max_bytes: int) -> None:
        self._left = max_bytes
        self._lock = threading.Lock()

    def take(self, count: int) -> None:
        """Take bytes.

        Raises:
            JobError: There are not as many left.
        """
        with self._lock:
            if count > self._left:
                raise no_room()
            self._left -= count

    def give_back(self, count: int) -> None:
        """Give back bytes that were taken."""
        with self._lock:
            self._left += count


class Scratch:
    """A temporary file that has no name from the moment it exists, so that nothing is left of it however things end.

    Args:
        abort: Ends the wait for a file descriptor.
        disk: What its bytes are taken from, and given back to, or None for any.

    Attributes:
        size: Bytes that have been written.

    Raises:
        Aborted: The job is gone.
        JobError: There is no room, or no file descriptor.
    """

    def __init__(self, abort: Abort, disk: Disk | None = None) -> None:
        self.size = 0
        self._disk = disk
        self._taken = 0
        with filling():
            # Nothing is kept in memory that might fail to be written later.
            self._raw = patiently(lambda: tempfile.TemporaryFile(buffering=0, prefix="parakeet-"), abort)  # noqa: SIM115
        self._file: io.FileIO | io.BufferedRandom = self._raw

    def write(self, data: bytes) -> None:
        """Append bytes.

        Raises:
            JobError: There is no room for them.
        """
        if self._disk:
            self._disk.take(len(data))
            self._taken += len(data)
        left = memoryview(data)
        with filling():
            while left:
                left = left[self._raw.write(left) :]
        self.size += len(data)

    def clear(self) -> None:
        """Remove all that has been written."""
        self._raw.seek(0)
        self._raw.truncate()
        self.size = 0
        self._give_back()

    def open(self) -> BinaryIO:
        """Return the file, positioned at its first byte, for reading and small changes. It is closed by `close()`."""
        self._raw.seek(0)
        self._file = io.BufferedRandom(self._raw)
        return cast("BinaryIO", self._file)

    def close(self) -> None:
        """Let go of the file and of its room."""
        try:
            # What could not be written is not wanted any more.
            with suppress(OSError):
                self._file.close()
        finally:
            self._give_back()

    def _give_back(self) -> None:
        if self._disk:
            self._disk.give_back(self._taken)
            self._taken = 0


@contextmanager
def filling() -> Iterator[None]:
    """Write meanwhile: a disk that is full is said to be so.

    Raises:
        JobError: There is no room, or the disk fails.
    """
    try:
        yield
    except FileNotFoundError as error:  # tempfile tries several directories, and none of them can be written to
        raise no_room() from error
    except OSError as error:
        if error.errno in _FULL:
            raise no_room() from error
        if error.errno == errno.EIO:
            raise worker_busy() from error
        raise


def no_room() -> JobError:
    """Say that the disk is full."""
    return JobError(Code.WORKER_BUSY, "the worker has no room for it on its disk at the moment; send it again")


def patiently(opening: Callable[[], T], abort: Abort) -> T:
    """Open something, and wait for a file descriptor where there is none.

    Args:
        opening: Opens it.
        abort: Ends the wait when the job is gone.

    Raises:
        Aborted: The job is gone.
        JobError: No descriptor became free for a long time.
        OSError: It cannot be opened for another reason.
    """
    deadline = time.monotonic() + _PATIENCE_S
    while True:
        try:
            return opening()
        except OSError as error:
            if error.errno not in _NO_DESCRIPTOR:
                raise
            if time.monotonic() > deadline:
                raise worker_busy() from error
        abort.sleep(_INTERVAL_S)


def is_out_of_descriptors(error: BaseException) -> bool:
    """Return whether an exception, or one that it came from, is a lack of file descriptors."""
    return any(isinstance(cause, OSError) and cause.errno in _NO_DESCRIPTOR for cause in causes(error))
