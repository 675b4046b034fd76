"""From a valid request to the fields of its result: the table of actions, and what each of them does."""

import asyncio
import tempfile
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from parakeet_worker.audio.sniff import SUPPORTED_FORMATS
from parakeet_worker.contract import Action, Request
from parakeet_worker.envelope import utc_timestamp
from parakeet_worker.model.card import Card, parameter_count
from parakeet_worker.progress import Progress, Report
from parakeet_worker.record import Record
from parakeet_worker.result import Fields, build_result
from parakeet_worker.threads import Threads
from parakeet_worker.transcription import Limits, SpeechModel, Transcription

# Cancelled downloads whose threads may hang on. The system gives up a look-up after half a minute or so.
_MOST_HANGING = 512


class Model(SpeechModel, Protocol):
    """What requests need of the model."""

    async def ready(self) -> None:
        """Wait until the model is loaded; raise what keeps it from that."""
        ...

    def close(self) -> None:
        """End, once what waits is answered."""
        ...


@dataclass(frozen=True)
class Caller:
    """Who a result is for.

    Attributes:
        max_bytes: Largest result that reaches them, as JSON.
        report: Tells them of the progress of a long recording.
    """

    max_bytes: int
    report: Report


class Dispatcher:
    """Answers requests.

    Args:
        model: What turns samples into a hypothesis.
        card: The model's description of itself.
        limits: What one recording may cost.
        concurrency: How many jobs are expected at a time.
    """

    def __init__(self, model: Model, card: Card, limits: Limits, concurrency: int) -> None:
        self._model = model
        self._card = card
        self._limits = limits
        # The directory is found by writing to it, which later may fail for a moment, of a full disk for one.
        with suppress(FileNotFoundError):
            tempfile.gettempdir()
        # A download may wait for long, and a cancelled one for a name that nobody resolves: no other needs its thread.
        self._downloads = Threads("download", concurrency + _MOST_HANGING)
        # A cancelled job may decode on for a moment, beside the one that takes its slot.
        self._decoders = ThreadPoolExecutor(2 * concurrency, thread_name_prefix="audio")
        self._actions: Mapping[Action, Callable[[Request, Caller, Record], Awaitable[Fields]]] = {
            "transcribe": self._transcribe,
            "model_info": self._model_info,
        }

    async def __call__(self, request: Request, caller: Caller, record: Record) -> Fields:
        """Carry out a request and return the fields of its result, without `status`.

        Args:
            request: What to do.
            caller: Whom for.
            record: Is told how long what took.

        Raises:
            JobError: It cannot be done, for a reason that the caller is told.
        """
        return await self._actions[request.action](request, caller, record)

    async def ready(self) -> None:
        """Wait until requests can be carried out at once.

        Raises:
            Exception: What kept the model from being loaded.
        """
        await self._model.ready()

    def close(self) -> None:
        """Let the model go, once what waits for it is answered."""
        self._model.close()

    async def _transcribe(self, request: Request, caller: Caller, record: Record) -> Fields:
        loop = asyncio.get_running_loop()
        transcription = Transcription(self._model, self._limits, Progress(caller.report), record)
        try:
            await asyncio.wrap_future(self._downloads.run(transcription.fetch, request.audio_url))
            recording = await loop.run_in_executor(self._decoders, transcription.decode)
            hypothesis = await transcription.hypothesis()
        except BaseException:
            transcription.abandon()
            raise
        build = partial(
            build_result,
            hypothesis,
            recording,
            record.seconds,
            timestamps=request.timestamps,
            max_bytes=caller.max_bytes,
        )
        # The words of hours take a second, which the event loop has for other jobs.
        result = await loop.run_in_executor(self._decoders, build) if transcription.is_cut else build()
        return result | {"timestamp": utc_timestamp()}

    async def _model_info(self, _: Request, __: Caller, ___: Record) -> Fields:
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
