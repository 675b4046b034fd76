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

from parakeet_worker.asr.merging import merge_windows
from parakeet_worker.asr.scheduler import WINDOW_INTERVAL_S
from parakeet_worker.asr.types import (
    NO_OPTIONS,
    SAMPLE_RATE,
    DecodingOptions,
    Hypothesis,
    Recognizer,
    Signal,
    WindowResult,
    WindowSpan,
)
from parakeet_worker.audio.chunking import ChunkingConfig, chunk
from parakeet_worker.audio.decode import AudioReader, open_reader
from parakeet_worker.audio.fetch.download import DownloadLimits
from parakeet_worker.audio.fetch.source import open_audio, open_base64
from parakeet_worker.audio.silence import find_silence
from parakeet_worker.cancellation import CancellationToken
from parakeet_worker.errors import Code, JobError
from parakeet_worker.job.metrics import JobMetrics
from parakeet_worker.job.progress import Progress
from parakeet_worker.job.response import Recording


class SpeechModel(Protocol):
    """What jobs need of the scheduler. Safe on any thread. See `Scheduler` for what each method does."""

    def stage(self, samples: NDArray[np.float32]) -> Signal:
        """Start to copy a window to the device: 16 kHz mono float32 samples, shape (samples,)."""
        ...

    def submit(
        self, window: Signal, delay: float = 0.0, options: DecodingOptions = NO_OPTIONS
    ) -> "Future[WindowResult]":
        """Queue a window and return the future of its result."""
        ...

    def cancel(self, results: Iterable["Future[WindowResult]"]) -> None:
        """Take windows out of the queue."""
        ...

    def wait_for_room(self, cancellation: CancellationToken) -> None:
        """Wait while the queue is long."""
        ...

    async def ready(self) -> None:
        """Wait until the model is loaded, and raise if it cannot be."""
        ...

    async def loaded(self) -> Recognizer:
        """Wait until the model is loaded, and return it."""
        ...

    def close(self) -> None:
        """Decode what is queued, and end."""
        ...


@dataclass(frozen=True)
class Limits:
    """Limits on one recording.

    Attributes:
        download: Limits on its download.
        max_seconds: Longest recording, in seconds.
        chunking: Lengths of the windows of a long one.
    """

    download: DownloadLimits
    max_seconds: float
    chunking: ChunkingConfig


class Transcription:
    """Transcribes one recording.

    A window is queued as soon as it is decoded, while the rest of a long recording is still to be decoded. One without
    sound is not queued.

    Args:
        model: Transcribes the windows.
        limits: Limits on the recording.
        progress: Is given the seconds that are transcribed.
        metrics: Is given the length of the recording and the stages.
        options: What the job wants of decoding.
    """

    def __init__(
        self,
        model: SpeechModel,
        limits: Limits,
        progress: Progress,
        metrics: JobMetrics,
        options: DecodingOptions = NO_OPTIONS,
    ) -> None:
        self._model = model
        self._limits = limits
        self._progress = progress
        self._metrics = metrics
        self._options = options
        self._cancellation = CancellationToken()
        self._spans: list[WindowSpan] = []
        self._results: list[Future[WindowResult]] = []
        self._waited_s = 0.0
        self._lock = threading.Lock()
        self._files = ExitStack()
        self._file: BinaryIO

    @property
    def is_chunked(self) -> bool:
        """Whether the recording has more than one window with sound."""
        return len(self._results) > 1

    def fetch(self, url: str, audio_base64: str = "") -> None:
        """Download the recording, or decode its base64.

        Blocks as long as the server does: call it on a thread of its own.

        Args:
            url: An `http:`, `https:` or `data:` URL. Not used if there is base64.
            audio_base64: The audio file in base64, or empty.

        Raises:
            JobCancelledError: `cancel()` was called.
            JobError: It could not be downloaded, or is not base64.
        """
        limits = self._limits.download
        with ExitStack() as files, self._metrics.timer.stage("download"):
            if audio_base64:
                self._file = files.enter_context(open_base64(audio_base64, limits))
            else:
                self._file = files.enter_context(open_audio(url, limits, self._cancellation))
            with self._lock:
                self._cancellation.check()
                self._files = files.pop_all()

    def decode(self) -> Recording:
        """Decode the recording that was fetched, and queue its windows with sound. Blocks: call it on a thread.

        Raises:
            JobCancelledError: `cancel()` was called.
            JobError: It is not audio, is too long, or one of its windows could not be transcribed.
        """
        with self._take_files():
            began = time.monotonic()
            try:
                with open_reader(self._file, self._cancellation) as reader:
                    self._decode(reader)
            finally:
                self._metrics.timer.add("decode", time.monotonic() - began - self._waited_s)
            self._metrics.audio_s = reader.decoded_seconds
            return Recording(reader.decoded_seconds, reader.sample_rate)

    async def hypothesis(self) -> Hypothesis:
        """Wait for the results of all windows, and merge them.

        Raises:
            JobError: A window could not be transcribed.
        """
        results = await asyncio.gather(*map(asyncio.wrap_future, self._results))
        self._metrics.add_windows(results)

        def merge() -> Hypothesis:
            return merge_windows((span, result.hypothesis) for span, result in zip(self._spans, results, strict=True))

        # Milliseconds for minutes of audio: too long for the event loop.
        return await asyncio.to_thread(merge) if self.is_chunked else merge()

    def cancel(self) -> None:
        """Stop fetching and decoding, and take the windows out of the queue."""
        self._cancellation.cancel()
        self._model.cancel(self._results)
        self._take_files().close()

    def _decode(self, reader: AudioReader) -> None:
        if reader.declared_seconds is not None:
            self._check_length(reader.declared_seconds)
        for seconds in reader.lengths():
            self._check_length(seconds, "at least ")
        self._progress.total = reader.declared_seconds
        for span, samples, is_silent in find_silence(chunk(self._checked_blocks(reader), self._limits.chunking)):
            if self._results and not is_silent:
                began = time.monotonic()
                self._model.wait_for_room(self._cancellation)
                self._waited_s += time.monotonic() - began
            self._queue(span, samples, is_silent=is_silent)
        self._progress.total = reader.decoded_seconds

    def _take_files(self) -> ExitStack:
        """Return the open files, once: whoever has them closes them."""
        with self._lock:
            return self._files.pop_all()

    def _queue(self, span: WindowSpan, samples: NDArray[np.float32], *, is_silent: bool) -> None:
        self._cancellation.check()
        for earlier in self._results:
            if earlier.done():
                earlier.result()  # raises if it could not be transcribed
        seconds = min(span.keep_until, span.start + len(samples) / SAMPLE_RATE) - span.keep_from
        if is_silent:
            self._progress.add(seconds)
            return
        delay = len(self._results) * WINDOW_INTERVAL_S
        result = self._model.submit(self._model.stage(samples), delay, self._options)
        result.add_done_callback(partial(self._add_progress, seconds))
        self._spans.append(span)
        self._results.append(result)

    def _add_progress(self, seconds: float, result: "Future[WindowResult]") -> None:
        if not result.cancelled():
            self._progress.add(seconds)

    def _checked_blocks(self, reader: AudioReader) -> Iterator[NDArray[np.float32]]:
        for block in reader.blocks():
            self._check_length(reader.decoded_seconds, "at least ")
            yield block

    def _check_length(self, seconds: float, least: str = "") -> None:
        if seconds > self._limits.max_seconds:
            raise JobError(
                Code.AUDIO_TOO_LONG,
                f"the audio lasts {least}{math.ceil(seconds * 10) / 10:.1f} seconds, "
                f"more than the {self._limits.max_seconds:g} that are taken: split it",
            )
