"""Temporary files for audio, with a common limit on the disk space that they use."""

import io
import tempfile
import threading
from contextlib import suppress
from typing import BinaryIO, cast

from parakeet_worker.cancellation import CancellationToken
from parakeet_worker.exhaustion import disk_full, explain_full_disk, wait_for_descriptor


class DiskBudget:
    """Disk space that all downloads share. Safe on any thread.

    A download that does not fit fails at once. If downloads waited for space, each could wait for the others.

    Args:
        max_bytes: Size of the space, in bytes.
    """

    def __init__(self, max_bytes: int) -> None:
        self._left = max_bytes
        self._lock = threading.Lock()

    def take(self, count: int) -> None:
        """Reserve bytes.

        Raises:
            JobError: Fewer bytes are left.
        """
        with self._lock:
            if count > self._left:
                raise disk_full()
            self._left -= count

    def give_back(self, count: int) -> None:
        """Release bytes that were reserved."""
        with self._lock:
            self._left += count


class ScratchFile:
    """A temporary file without a name, which the system removes even if the process is killed.

    Args:
        cancellation: Stops the wait for a file descriptor when the job is cancelled.
        disk: Space that its bytes are reserved in, or None for no limit.

    Attributes:
        size: Number of bytes written.

    Raises:
        JobCancelledError: The job was cancelled.
        JobError: There is no disk space or no file descriptor.
    """

    def __init__(self, cancellation: CancellationToken, disk: DiskBudget | None = None) -> None:
        self.size = 0
        self._disk = disk
        self._taken = 0
        with explain_full_disk():
            # Unbuffered, so that a full disk is noticed by `write` and not later.
            self._raw = wait_for_descriptor(
                lambda: tempfile.TemporaryFile(buffering=0, prefix="parakeet-"),  # noqa: SIM115 - close() does
                cancellation,
            )
        self._file: io.FileIO | io.BufferedRandom = self._raw

    def write(self, data: bytes) -> None:
        """Append bytes.

        Raises:
            JobError: There is no disk space for them.
        """
        if self._disk:
            self._disk.take(len(data))
            self._taken += len(data)
        left = memoryview(data)
        with explain_full_disk():
            while left:
                left = left[self._raw.write(left) :]
        self.size += len(data)

    def clear(self) -> None:
        """Remove all bytes and release their space."""
        self._raw.seek(0)
        self._raw.truncate()
        self.size = 0
        self._give_back()

    def open(self) -> BinaryIO:
        """Return the file, readable and writable, positioned at its first byte. `close()` closes it."""
        self._raw.seek(0)
        self._file = io.BufferedRandom(self._raw)
        return cast("BinaryIO", self._file)

    def close(self) -> None:
        """Close the file and release its space."""
        try:
            # Closing writes buffered changes, which are not needed any more.
            with suppress(OSError):
                self._file.close()
        finally:
            self._give_back()

    def _give_back(self) -> None:
        if self._disk:
            self._disk.give_back(self._taken)
            self._taken = 0
