"""From a valid request to the fields of its response: the table of actions, and what each of them does."""

import asyncio
import math
import tempfile
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field

from parakeet_worker import __version__
from parakeet_worker.asr.types import CompiledTerms, DecodingOptions, KeyTerm, UncoveredTermError
from parakeet_worker.audio.formats.sniff import SUPPORTED_FORMATS
from parakeet_worker.errors import Code, JobError
from parakeet_worker.job.metrics import JobMetrics
from parakeet_worker.job.progress import Progress, ProgressCallback
from parakeet_worker.job.request import Action, Request, quote
from parakeet_worker.job.response import Fields, build_response, fit, with_address
from parakeet_worker.job.threads import Threads
from parakeet_worker.job.transcribe import Limits, SpeechModel, Transcription
from parakeet_worker.model.card import Card, parameter_count

# Cancelled downloads whose threads may hang on. The system gives up a look-up of a name after half a minute or so.
_MOST_HANGING = 512

# What every engine can do, and what only the plain one can: a field of the request, and its name among the features.
_FEATURES = ("Captions (SRT, VTT)",)
_PLAIN_FEATURES = {"confidence": "Confidence scores", "keyterms": "Key terms"}

CompileTerms = Callable[[Sequence[KeyTerm]], CompiledTerms]
"""Compiles key terms. Raises UncoveredTermError."""

Store = Callable[[Fields], Awaitable[str | None]]
"""Puts a whole response where its caller can download it, and returns the address, or None if that failed."""


@dataclass(frozen=True)
class JobContext:
    """What an action needs to know of a job beside its request.

    Attributes:
        max_bytes: Largest response that reaches the caller, as JSON, in bytes.
        progress_callback: Called with the progress of a long recording.
        metrics: Filled in by the action.
        store: Stores a response that is larger than `max_bytes`. None if there is no place for it.
    """

    max_bytes: int
    progress_callback: ProgressCallback
    metrics: JobMetrics = field(default_factory=JobMetrics)
    store: Store | None = None


class Actions:
    """Carries out requests.

    Args:
        model: Transcribes windows of audio.
        card: The model's card.
        limits: Limits on one recording.
        concurrency: Number of jobs that are expected at a time.
        segment_pause: Pause that ends a segment, in seconds, where a request does not say.
        engine: What runs the model, `plain` or `nemo`.
        compile_terms: Compiles key terms, if the engine serves them.

    Attributes:
        model: Transcribes windows of audio.
    """

    def __init__(
        self,
        model: SpeechModel,
        card: Card,
        limits: Limits,
        concurrency: int,
        segment_pause: float = math.inf,
        engine: str = "plain",
        compile_terms: CompileTerms | None = None,
    ) -> None:
        self.model = model
        self._card = card
        self._limits = limits
        self._segment_pause = segment_pause
        self._engine = engine
        self._compile_terms = compile_terms
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
        self._check_options(request)
        loop = asyncio.get_running_loop()
        progress = Progress(context.progress_callback)
        options = await self._options(request)
        transcription = Transcription(self.model, self._limits, progress, context.metrics, options)
        try:
            await asyncio.wrap_future(self._downloads.run(transcription.fetch, request.audio_url, request.audio_base64))
            recording = await loop.run_in_executor(self._decoders, transcription.decode)
            hypothesis = await transcription.hypothesis()
        except BaseException:
            transcription.cancel()
            raise
        processing_time = context.metrics.timer.elapsed
        pause = self._segment_pause if request.segment_pause is None else request.segment_pause

        def build() -> tuple[Fields, Fields]:
            whole = build_response(request, hypothesis, recording, processing_time, pause)
            return whole, fit(whole, context.max_bytes)

        # The timestamps of hours take a second, captions of minutes 10 ms, which the event loop has for other jobs.
        is_long = transcription.is_chunked or request.captions is not None
        whole, fitted = await loop.run_in_executor(self._decoders, build) if is_long else build()
        if "notice" not in fitted or context.store is None:
            return fitted
        url = await context.store(whole)
        if url is None:
            return fitted
        return await loop.run_in_executor(self._decoders, fit, with_address(whole, url), context.max_bytes)

    async def _options(self, request: Request) -> DecodingOptions:
        """Return what a request wants of decoding.

        Raises:
            JobError: The model cannot write one of its key terms.
        """
        terms: CompiledTerms | None = None
        if request.key_terms:
            assert self._compile_terms  # noqa: S101 - the engine serves them
            loop = asyncio.get_running_loop()
            try:
                terms = await loop.run_in_executor(self._decoders, self._compile_terms, request.key_terms)
            except UncoveredTermError as error:
                raise JobError(
                    Code.INVALID_KEYTERMS,
                    f"keyterms has {quote(error.term)}, with a character that the model cannot write: "
                    "leave the term out, or write it in another way",
                ) from error
        return DecodingOptions(request.has_confidence, terms)

    def _check_options(self, request: Request) -> None:
        """Check that the engine can do what a request asks for.

        Raises:
            JobError: It cannot.
        """
        wanted = {"confidence": request.has_confidence, "keyterms": bool(request.key_terms)}
        if self._engine != "plain" and (refused := [name for name in _PLAIN_FEATURES if wanted[name]]):
            names, verb, them = " and ".join(refused), *(("is", "it") if len(refused) == 1 else ("are", "them"))
            raise JobError(
                Code.UNSUPPORTED_OPTION,
                f"{names} {verb} not available with this worker's engine ({self._engine}): leave {them} out",
            )

    async def _model_info(self, _: Request, __: JobContext) -> Fields:
        card, limits = self._card, self._limits
        recognizer = await self.model.loaded()
        features = [*card.features, *(_PLAIN_FEATURES.values() if self._engine == "plain" else ()), *_FEATURES]
        return {
            "model": card.name,
            "parameters": parameter_count(card.parameters),
            "architecture": card.architecture,
            "supported_formats": list(SUPPORTED_FORMATS),
            "sample_rate": f"{card.sample_rate / 1000:g}kHz",
            "max_duration": f"{_in_words(limits.chunking.longest_pass)} per pass",
            "max_pass_seconds": limits.chunking.longest_pass,
            "max_request_duration": f"{_in_words(limits.max_seconds)} per request",
            "max_request_seconds": limits.max_seconds,
            "features": list(dict.fromkeys(features)),
            "license": card.license,
            "version": __version__,
            "engine": self._engine,
            "device": recognizer.device_name,
            "precision": recognizer.precision_name,
        }


def _in_words(seconds: float) -> str:
    """Return a time in minutes if it is whole minutes, else in seconds: `5 minutes`, `1 minute`, `90 seconds`."""
    number, unit = (seconds / 60, "minute") if seconds % 60 == 0 else (seconds, "second")
    return f"{number:g} {unit}{'' if number == 1 else 's'}"
