"""Sound tracks of containers, decoded by FFmpeg (through PyAV) in a process of their own.

Decoders of many formats have many faults. A file that finds one ends a process that had nothing but the file.
"""

import json
import os
import time
from collections.abc import Iterator
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from parakeet_worker.audio.abort import Abort
from parakeet_worker.audio.budget import TooMuchWork
from parakeet_worker.audio.children import Child, ChildError, Children, is_readable
from parakeet_worker.audio.messages import BLOCK, END, FAILED, HEADER
from parakeet_worker.exhaustion import out_of_memory, worker_busy

# A file on which a child works for so long without a message is damaged. A message takes some milliseconds.
_SILENCE_S = 10.0

# A child that gets no processor for so long will not get one.
_STALL_S = 120.0

# How soon it is seen that a job is gone.
_ABORT_INTERVAL_S = 0.1

# How often a child is started for a file, where the system ends it.
_TRIES = 2

# A message holds a second of samples, or one packet of the file where that is longer.
_SAMPLE_BYTES, _MOST_BYTES = 4, 256 << 20

CHILDREN = Children()
"""The processes of this worker. They are started when they are needed."""


class ContainerError(Exception):
    """A container cannot be decoded. Its argument is the reason: `no_sound`, `codec`, `truncated` or `damaged`."""


class ContainerFile:
    """A container's sound track, open for one pass; see `Sound`.

    A child that the system ends (where memory is short) is started once more, and what has been handed out already is
    left out: decoding gives the same samples again.

    Args:
        file: The container.
        demuxer: FFmpeg's name of its kind.
        abort: Ends the pass when its job is gone.
        children: Start the process that decodes.

    Raises:
        Aborted: The job is gone.
        ContainerError: It cannot be decoded. Reading may raise that too.
        JobError: There is no room for it now. Reading may raise that too.
        TooMuchWork: It has more samples than a file of its size may have. Reading may raise that too.
    """

    def __init__(self, file: BinaryIO, demuxer: str, abort: Abort, children: Children = CHILDREN) -> None:
        self._file = file
        self._demuxer = demuxer
        self._abort = abort
        self._children = children
        self._child: Child | None = None
        self._tries = 0
        self._frames = 0
        try:
            self._open()
        except BaseException:
            self.close()
            raise

    @property
    def decoded_seconds(self) -> float:
        """Length of what has been decoded so far."""
        return self._frames / self.sample_rate

    def blocks(self) -> Iterator[NDArray[np.float32]]:
        """Decode: 16 kHz mono float32 blocks, each of shape (samples,), in order."""
        given = position = 0
        while True:
            try:
                kind, content, frames = self._message()
            except ChildError as error:
                self._again(error)
                self._open()
                position = 0
                continue
            if kind not in (BLOCK, END) or len(content) % _SAMPLE_BYTES:
                raise ContainerError("damaged")
            self._frames = max(self._frames, frames)
            if kind == END:
                return
            block = np.frombuffer(content, np.float32)
            new = block[max(0, given - position) :]
            position += len(block)
            if len(new):
                given += len(new)
                self._children.turns.leave(self)
                yield new

    def close(self) -> None:
        """End the child."""
        self._children.turns.end(self)
        if self._child:
            self._child.close()
            self._child = None

    def _open(self) -> None:
        """Start a child, and read what it says of the file."""
        while True:
            self._tries += 1
            self._children.turns.take(self, self._abort)
            try:
                self._child = self._children.start(self._demuxer, self._file)
                _, opened, _ = self._message()
                break
            except ChildError as error:
                self._again(error)
        try:
            said = json.loads(opened)
            self.sample_rate = int(said["sample_rate"])
            declared = said["declared_seconds"]
            self.declared_seconds = None if declared is None else float(declared)
        except (ValueError, KeyError, TypeError) as error:  # a child that a file has taken over may say anything
            raise ContainerError("damaged") from error

    def _again(self, error: ChildError) -> None:
        """Return if a child may be started once more."""
        self.close()
        if self._tries < _TRIES:
            return
        raise (out_of_memory() if error.is_killed else worker_busy()) from error

    def _message(self) -> tuple[bytes, bytearray, int]:
        self._children.turns.take(self, self._abort)
        kind, length, frames = HEADER.unpack(self._read(HEADER.size))
        if length > _MOST_BYTES:
            raise ContainerError("damaged")
        content = self._read(length)
        if kind == FAILED and content == b"memory":
            raise ChildError(is_killed=True)
        if kind == FAILED and content == b"too_much_work":
            raise TooMuchWork
        if kind == FAILED:
            raise ContainerError(content.decode("ascii", "replace"))
        return kind, content, frames

    def _read(self, count: int) -> bytearray:
        """Read from the child, into memory that torch may use as it is: it warns of what cannot be written to.

        Raises:
            ChildError: The system ended it, or gives it nothing to run on.
            ContainerError: It has died of the file, or finds no end in it.
        """
        assert self._child  # noqa: S101 - it was started
        read = bytearray()
        last_s, worked_s = time.monotonic(), None
        while len(read) < count:
            self._abort.check()
            if is_readable(self._child.output, _ABORT_INTERVAL_S):
                piece = os.read(self._child.output, count - len(read))
                if not piece:
                    self._child.check_end()
                    raise ContainerError("damaged")
                read += piece
                last_s, worked_s = time.monotonic(), None
            elif self._child.is_started:
                worked_s = self._child.work_seconds() if worked_s is None else worked_s
                if self._child.work_seconds() - worked_s > _SILENCE_S:
                    raise ContainerError("damaged")
            if time.monotonic() - last_s > _STALL_S:
                raise ChildError
        return read
