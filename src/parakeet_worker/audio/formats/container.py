"""Decoding the audio tracks of containers with FFmpeg (through PyAV), in one child process for each file.

Decoders of many formats have many bugs. A file that triggers one crashes only its own process, which has access to
nothing but that file.
"""

import json
import os
import time
from collections.abc import Iterator
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from parakeet_worker.audio.formats.budget import TooManySamplesError
from parakeet_worker.audio.formats.children import Child, ChildError, Children, is_readable
from parakeet_worker.audio.formats.messages import BLOCK, END, FAILED, HEADER
from parakeet_worker.cancellation import CancellationToken
from parakeet_worker.exhaustion import out_of_memory, worker_busy

# A file is damaged if its child uses this much CPU time without sending a message. A message takes some milliseconds.
SILENCE_S = 10.0

# A child that sends nothing for this long, and has used less CPU time than that, is starved of CPU and is replaced.
STALL_S = 120.0

# How often cancellation is checked for.
_CANCELLATION_INTERVAL_S = 0.1

# Most children that are started for one file, if the system kills them.
_MAX_ATTEMPTS = 2

# A message contains a second of samples, or one packet of the file if that is longer.
_SAMPLE_BYTES, _MAX_MESSAGE_BYTES = 4, 256 << 20

CHILDREN = Children()
"""The decoder processes of this worker. None is started before the first file that needs one."""


class ContainerError(Exception):
    """A container cannot be decoded. The argument says why: `no_audio_track`, `codec`, `truncated` or `damaged`."""


class ContainerFile:
    """The audio track of a container, which is decoded once from start to end; see `AudioReader`.

    If the system kills the child, as it does when memory is short, one more is started. Decoding is deterministic, so
    the samples that were yielded already are skipped.

    Args:
        file: The container.
        demuxer: FFmpeg's name of its demuxer, or `LIBSNDFILE`.
        cancellation: Stops the decoding when the job is cancelled.
        children: Starts the child processes.

    Raises:
        JobCancelledError: The job was cancelled. `blocks` may raise that too, as all of the following.
        ContainerError: The file cannot be decoded.
        JobError: There are not enough resources to decode it at the moment.
        TooManySamplesError: It has more samples than are allowed for its size.
    """

    def __init__(
        self, file: BinaryIO, demuxer: str, cancellation: CancellationToken, children: Children = CHILDREN
    ) -> None:
        self._file = file
        self._demuxer = demuxer
        self._cancellation = cancellation
        self._children = children
        self._child: Child | None = None
        self._attempts = 0
        self._frames = 0
        try:
            self._open()
        except BaseException:
            self.close()
            raise

    @property
    def decoded_seconds(self) -> float:
        """Length decoded so far, in seconds."""
        return self._frames / self.sample_rate

    def blocks(self) -> Iterator[NDArray[np.float32]]:
        """Decode and yield blocks in order: 16 kHz mono float32, each of shape (samples,)."""
        # Counts of samples: yielded so far, and received from the present child.
        yielded = position = 0
        while True:
            try:
                message_type, content, frames = self._message()
            except ChildError as error:
                self._check_attempts(error)
                self._open()
                position = 0
                continue
            if message_type not in (BLOCK, END) or len(content) % _SAMPLE_BYTES:
                raise ContainerError("damaged")
            self._frames = max(self._frames, frames)
            if message_type == END:
                return
            block = np.frombuffer(content, np.float32)
            new = block[max(0, yielded - position) :]
            position += len(block)
            if len(new):
                yielded += len(new)
                self._children.slots.pause(self)
                yield new

    def close(self) -> None:
        """Kill the child and release the slot."""
        self._children.slots.release(self)
        if self._child:
            self._child.close()
            self._child = None

    def _open(self) -> None:
        """Start a child, and read the sample rate and the declared length from it."""
        while True:
            self._attempts += 1
            self._children.slots.acquire(self, self._cancellation)
            try:
                self._child = self._children.start(self._demuxer, self._file)
                _, opened, _ = self._message()
                break
            except ChildError as error:
                self._check_attempts(error)
        try:
            properties = json.loads(opened)
            self.sample_rate = int(properties["sample_rate"])
            declared = properties["declared_seconds"]
            self.declared_seconds = None if declared is None else float(declared)
        except (ValueError, KeyError, TypeError) as error:  # a file may have taken the child over
            raise ContainerError("damaged") from error

    def _check_attempts(self, error: ChildError) -> None:
        """Close the failed child, and return if one more may be started.

        Raises:
            JobError: No more may be started.
        """
        self.close()
        if self._attempts < _MAX_ATTEMPTS:
            return
        raise (out_of_memory() if error.is_killed else worker_busy()) from error

    def _message(self) -> tuple[bytes, bytearray, int]:
        """Return the type of the child's next message, its content, and the frames decoded so far.

        Raises:
            JobCancelledError: The job was cancelled.
            ChildError: The system killed the child or gives it no CPU time or memory.
            ContainerError: The file cannot be decoded.
            TooManySamplesError: It has more samples than are allowed for its size.
        """
        self._children.slots.acquire(self, self._cancellation)
        message_type, length, frames = HEADER.unpack(self._read(HEADER.size))
        if length > _MAX_MESSAGE_BYTES:
            raise ContainerError("damaged")
        content = self._read(length)
        if message_type == FAILED and content == b"memory":
            raise ChildError(is_killed=True)
        if message_type == FAILED and content == b"too_much_work":
            raise TooManySamplesError
        if message_type == FAILED:
            raise ContainerError(content.decode("ascii", "replace"))
        return message_type, content, frames

    def _read(self, count: int) -> bytearray:
        """Read bytes from the child. They are writable, since torch warns about arrays that are not.

        Raises:
            JobCancelledError: The job was cancelled.
            ChildError: The system killed the child or gives it no CPU time.
            ContainerError: The child crashed, or used too much CPU time without sending a message.
        """
        assert self._child  # noqa: S101 - it was started
        read = bytearray()
        last_s, worked_s = time.monotonic(), None
        while len(read) < count:
            self._cancellation.check()
            if is_readable(self._child.output, _CANCELLATION_INTERVAL_S):
                piece = os.read(self._child.output, count - len(read))
                if not piece:
                    self._child.check_end()
                    raise ContainerError("damaged")
                read += piece
                last_s, worked_s = time.monotonic(), None
            elif self._child.is_started:
                worked_s = self._child.work_seconds() if worked_s is None else worked_s
                if self._child.work_seconds() - worked_s > SILENCE_S:
                    raise ContainerError("damaged")
            if time.monotonic() - last_s > STALL_S:
                raise ChildError
        return read
