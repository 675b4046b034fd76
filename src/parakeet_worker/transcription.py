"""One transcription: a recording on its way from its URL through the model."""

import asyncio
import math
import threading
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import BinaryIO, Protocol

import numpy as np
from numpy.typing import NDArray

from parakeet_worker.audio import SAMPLE_RATE
from parakeet_worker.audio.abort import Abort
from parakeet_worker.audio.decode import Sound, open_recording
from parakeet_worker.audio.download import DownloadLimits
from parakeet_worker.audio.source import open_audio
from parakeet_worker.audio.windows import Cutting, Stretch, cut
from parakeet_worker.errors import Code, JobError
from parakeet_worker.model.engine import WINDOW_INTERVAL_S, Heard
from parakeet_worker.model.hypothesis import Hypothesis, Signal
from parakeet_worker.model.stitching import stitch
from parakeet_worker.progress import Progress
from parakeet_worker.record import Record
from parakeet_worker.result import Recording


class SpeechModel(Protocol):
    """What a transcription needs of the model. All of it may be called on any thread. See `Engine`."""

    def stage(self, samples: NDArray[np.float32]) -> Signal:
        """Start to bring 16 kHz mono float32 samples, shape (samples,), to the device."""
        ...

    def submit(self, window: Signal, delay: float = 0.0) -> "Future[Heard]":
        """Queue a window."""
        ...

    def withdraw(self, answers: Iterable["Future[Heard]"]) -> None:
        """Take windows out of the queue."""
        ...

    def wait_for_room(self, abort: Abort) -> None:
        """Wait while the queue is long."""
        ...


@dataclass(frozen=True)
class Limits:
    """What one recording may cost, and how it is cut.

    Attributes:
        download: What its download may cost.
        max_seconds: Longest recording.
        cutting: How a long one is cut.
    """

    download: DownloadLimits
    max_seconds: float
    cutting: Cutting


class Transcription:
    """Transcribes one recording.

    A window is queued as soon as it is decoded, while the rest of a long recording is still to come.

    Args:
        model: Hears the windows.
        limits: What the recording may cost.
        progress: Is told of the windows that are done.
        record: Is told how long what took.
    """

    def __init__(self, model: SpeechModel, limits: Limits, progress: Progress, record: Record) -> None:
        self._model = model
        self._limits = limits
        self._progress = progress
        self._record = record
        self._abort = Abort()
        self._stretches: list[Stretch] = []
        self._answers: list[Future[Heard]] = []
        self._waited = 0.0
        self._lock = threading.Lock()
        self._files = ExitStack()
        self._file: BinaryIO

    @property
    def is_cut(self) -> bool:
        """Whether the recording has more than one window."""
        return len(self._answers) > 1

    def fetch(self, url: str) -> None:
        """Bring the recording here. Blocks while the server is slow: for a thread that nobody else needs.

        Raises:
            Aborted: `abandon()` was called.
            JobError: It cannot be had.
        """
        with ExitStack() as files, self._record.timing("download"):
            self._file = files.enter_context(open_audio(url, self._limits.download, self._abort))
            with self._lock:
                self._abort.check()
                self._files = files.pop_all()

    def decode(self) -> Recording:
        """Decode and queue the recording that was fetched. Blocks: for a thread.

        Raises:
            Aborted: `abandon()` was called.
            JobError: It is no audio, is too long, or a part of it could not be transcribed.
        """
        with self._take_files():
            began = time.monotonic()
            try:
                with open_recording(self._file, self._abort) as sound:
                    self._decode(sound)
            finally:
                self._record.add("decode", time.monotonic() - began - self._waited)
            self._record.audio_s = sound.decoded_seconds
            return Recording(sound.decoded_seconds, sound.sample_rate)

    def _decode(self, sound: Sound) -> None:
        if sound.declared_seconds is not None:
            self._check_length(sound.declared_seconds)
        for seconds in sound.lengths():
            self._check_length(seconds, "at least ")
        self._progress.total = sound.declared_seconds
        for stretch, samples in cut(self._checked(sound), self._limits.cutting):
            if self._answers:
                began = time.monotonic()
                self._model.wait_for_room(self._abort)
                self._waited += time.monotonic() - began
            self._queue(stretch, samples)
        self._progress.total = sound.decoded_seconds

    async def hypothesis(self) -> Hypothesis:
        """Wait for all windows, and join what was heard in them.

        Raises:
            JobError: A window could not be transcribed.
        """
        heard = await asyncio.gather(*map(asyncio.wrap_future, self._answers))
        self._record.hear(heard)
        parts = [(stretch, window.hypothesis) for stretch, window in zip(self._stretches, heard, strict=True)]
        return await asyncio.to_thread(stitch, parts) if self.is_cut else stitch(parts)

    def abandon(self) -> None:
        """Stop whatever is still going on. Windows leave the queue at once."""
        self._abort.set()
        self._model.withdraw(self._answers)
        self._take_files().close()

    def _take_files(self) -> ExitStack:
        """Return what is open. Who has it closes it, once."""
        with self._lock:
            return self._files.pop_all()

    def _queue(self, stretch: Stretch, samples: NDArray[np.float32]) -> None:
        self._abort.check()
        for earlier in self._answers:
            if earlier.done():
                earlier.result()  # raises what kept it from being transcribed
        answer = self._model.submit(self._model.stage(samples), len(self._answers) * WINDOW_INTERVAL_S)
        until = min(stretch.keep_until, stretch.start + len(samples) / SAMPLE_RATE)
        answer.add_done_callback(partial(self._count, until - stretch.keep_from))
        self._stretches.append(stretch)
        self._answers.append(answer)

    def _count(self, seconds: float, answer: "Future[Heard]") -> None:
        if not answer.cancelled():
            self._progress.add(seconds)

    def _checked(self, sound: Sound) -> Iterator[NDArray[np.float32]]:
        for block in sound.blocks():
            self._check_length(sound.decoded_seconds, "at least ")
            yield block

    def _check_length(self, seconds: float, least: str = "") -> None:
        if seconds > self._limits.max_seconds:
            raise JobError(
                Code.AUDIO_TOO_LONG,
                f"the audio lasts {least}{math.ceil(seconds * 10) / 10:.1f} seconds, "
                f"more than the {self._limits.max_seconds:g} that are taken: split it",
            )
