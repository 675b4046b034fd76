"""From a valid request to the fields of its response: the table of actions, and what each of them does."""

import asyncio
import tempfile
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial

from parakeet_worker.audio.formats.sniff import SUPPORTED_FORMATS
from parakeet_worker.job.metrics import JobMetrics
from parakeet_worker.job.progress import Progress, ProgressCallback
from parakeet_worker.job.request import Action, Request
from parakeet_worker.job.response import Fields, build_response
from parakeet_worker.job.threads import Threads
from parakeet_worker.job.transcribe import Limits, SpeechModel, Transcription
from parakeet_worker.model.card import Card, parameter_count

# Cancelled downloads whose threads may hang on. The system gives up a look-up of a name after half a minute or so.
_MOST_HANGING = 512


@dataclass(frozen=True)
class JobContext:
    """What an action needs to know of a job beside its request.

    Attributes:
        max_bytes: Largest response that reaches the caller, as JSON, in bytes.
        progress_callback: Called with the progress of a long recording.
        metrics: Filled in by the action.
    """

    max_bytes: int
    progress_callback: ProgressCallback
    metrics: JobMetrics = field(default_factory=JobMetrics)


class Actions:
    """Carries out requests.

    Args:
        model: Transcribes windows of audio.
        card: The model's card.
        limits: Limits on one recording.
        concurrency: Number of jobs that are expected at a time.

    Attributes:
        model: Transcribes windows of audio.
    """

    def __init__(self, model: SpeechModel, card: Card, limits: Limits, concurrency: int) -> None:
        self.model = model
        self._card = card
        self._limits = limits
        # The directory is found by writing to it, which may fail for a moment later, for one on a full disk.
        with suppress(FileNotFoundError):
            tempfile.gettempdir()
        # A thread for each download: it may wait for long, a cancelled one for a name that never resolves.
        self._downloads = Threads("download", concurrency + _MOST_HANGING)
        # A cancelled job may decode on for a moment, beside the one that takes its slot.
        self._decoders = ThreadPoolExecutor(2 * concurrency, thread_name_prefix="audio")
        self._actions: Mapping[Action, Callable[[Request, JobContext], Awaitable[Fields]]] = {
            "transcribe": self._transcribe,
            "model_info": self._model_info,
        }

    async def run(self, request: Request, context: JobContext) -> Fields:
        """Carry out a request and return the fields of its response, without `status` and `timestamp`.

        Raises:
            JobError: It cannot be carried out, for a reason that the caller is told.
        """
        return await self._actions[request.action](request, context)

    async def ready(self) -> None:
        """Wait until the model is loaded.

        Raises:
            Exception: It could not be loaded.
        """
        await self.model.ready()

    def close(self) -> None:
        """Close the model, once the windows that it has queued are decoded."""
        self.model.close()

    async def _transcribe(self, request: Request, context: JobContext) -> Fields:
        loop = asyncio.get_running_loop()
        progress = Progress(context.progress_callback)
        transcription = Transcription(self.model, self._limits, progress, context.metrics)
        try:
            await asyncio.wrap_future(self._downloads.run(transcription.fetch, request.audio_url))
            recording = await loop.run_in_executor(self._decoders, transcription.decode)
            hypothesis = await transcription.hypothesis()
        except BaseException:
            transcription.cancel()
            raise
        processing_time = context.metrics.timer.elapsed
        build = partial(build_response, request, hypothesis, recording, processing_time, context.max_bytes)
        # The timestamps of hours take a second, which the event loop has for other jobs.
        return await loop.run_in_executor(self._decoders, build) if transcription.is_chunked else build()

    async def _model_info(self, _: Request, __: JobContext) -> Fields:
        card = self._card
        return {
            "model": card.name,
            "parameters": parameter_count(card.parameters),
            "architecture": card.architecture,
            "supported_formats": list(SUPPORTED_FORMATS),
            "sample_rate": f"{card.sample_rate / 1000:g}kHz",
            "max_duration": f"{card.max_duration / 60:g} minutes per pass",
            "max_request_duration": f"{self._limits.max_seconds / 60:g} minutes per request",
            "features": list(card.features),
            "license": card.license,
        }
