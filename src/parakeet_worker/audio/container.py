"""Sound tracks of containers, decoded by FFmpeg (through PyAV) in a process of their own.

Decoders of many formats have many faults. A file that finds one ends a process that had nothing but the file.
"""

import json
import os
import selectors
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import IO, BinaryIO

import numpy as np
from numpy.typing import NDArray

from parakeet_worker.audio.abort import Abort
from parakeet_worker.audio.messages import BLOCK, END, FAILED, HEADER

# A child that has said nothing for so long will not.
_SILENCE_S = 10.0

# How soon it is seen that a job is gone.
_ABORT_INTERVAL_S = 0.1

# A message holds a second of samples, or one packet of the file where that is longer.
_SAMPLE_BYTES, _MOST_BYTES = 4, 256 << 20

# What the child needs of this process's environment, which may hold secrets.
_ENVIRONMENT = ("PATH", "PYTHONPATH", "LD_LIBRARY_PATH", "LANG")

CHILD = (sys.executable, "-m", "parakeet_worker.audio.container_child")


class ContainerError(Exception):
    """A container cannot be decoded. Its argument is the reason: `no_sound`, `codec` or `damaged`."""


class ContainerFile:
    """A container's sound track, open for one pass; see `Sound`.

    Args:
        file: The container, from its start.
        demuxer: FFmpeg's name of its kind.
        abort: Ends the pass when its job is gone.
        command: The program that decodes.

    Raises:
        ContainerError: It cannot be decoded. Reading may raise that too.
    """

    def __init__(self, file: BinaryIO, demuxer: str, abort: Abort, command: tuple[str, ...] = CHILD) -> None:
        self._abort = abort
        self._child = _start((*command, demuxer), file)
        assert self._child.stdout  # noqa: S101 - it is a pipe
        self._output: IO[bytes] = self._child.stdout
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._output, selectors.EVENT_READ)
        self._frames = 0
        try:
            _, opened, _ = self._message()
            said = json.loads(opened)
            self.sample_rate = int(said["sample_rate"])
            declared = said["declared_seconds"]
            self.declared_seconds = None if declared is None else float(declared)
        except (ValueError, KeyError, TypeError) as error:  # a child that a file has taken over may say anything
            self.close()
            raise ContainerError("damaged") from error
        except BaseException:
            self.close()
            raise

    @property
    def decoded_seconds(self) -> float:
        """Length of what has been decoded so far."""
        return self._frames / self.sample_rate

    def blocks(self) -> Iterator[NDArray[np.float32]]:
        """Decode: 16 kHz mono float32 blocks, each of shape (samples,), in order."""
        while True:
            kind, content, self._frames = self._message()
            if kind == END:
                return
            if kind != BLOCK or len(content) % _SAMPLE_BYTES:
                raise ContainerError("damaged")
            yield np.frombuffer(content, np.float32)

    def close(self) -> None:
        """End the child."""
        self._child.kill()
        self._child.wait()
        self._selector.close()
        self._output.close()

    def _message(self) -> tuple[bytes, bytes, int]:
        kind, length, frames = HEADER.unpack(self._read(HEADER.size))
        if length > _MOST_BYTES:
            raise ContainerError("damaged")
        content = self._read(length)
        if kind == FAILED:
            raise ContainerError(content.decode("ascii", "replace"))
        return kind, content, frames

    def _read(self, count: int) -> bytes:
        read = bytearray()
        deadline = time.monotonic() + _SILENCE_S
        while len(read) < count:
            self._abort.check()
            if self._selector.select(_ABORT_INTERVAL_S):
                piece = os.read(self._output.fileno(), count - len(read))
                if not piece:  # it has died, of a fault or of its limits
                    raise ContainerError("damaged")
                read += piece
                deadline = time.monotonic() + _SILENCE_S
            elif time.monotonic() > deadline:
                raise ContainerError("damaged")
        return bytes(read)


def _start(command: tuple[str, ...], file: BinaryIO) -> "subprocess.Popen[bytes]":
    environment = {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}
    with _with_descriptor(file) as given:
        return subprocess.Popen(  # noqa: S603 - its own program
            command,
            stdin=given,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
            bufsize=0,
        )


def _with_descriptor(file: BinaryIO) -> BinaryIO:
    """Return a file that a child can inherit, with the same bytes: a duplicate, or a copy of what is in memory."""
    with suppress(OSError):
        file.flush()
        return os.fdopen(os.dup(file.fileno()), "rb")
    copy = tempfile.TemporaryFile(prefix="parakeet-")  # noqa: SIM115 - the caller closes it
    file.seek(0)
    shutil.copyfileobj(file, copy)
    copy.flush()
    return copy
