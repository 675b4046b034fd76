"""From a valid request to the fields of its result: the table of actions, and what each of them does."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from parakeet_worker.audio.abort import Abort
from parakeet_worker.audio.decode import SUPPORTED_FORMATS, Audio, decode
from parakeet_worker.audio.source import DownloadLimits, open_audio
from parakeet_worker.contract import Action, Request
from parakeet_worker.envelope import utc_timestamp
from parakeet_worker.model.card import Card, parameter_count
from parakeet_worker.model.hypothesis import Hypothesis, Signal
from parakeet_worker.model.timestamps import Span, align

Fields = dict[str, Any]


class Transcriber(Protocol):
    """What transcribing needs of the model."""

    def stage(self, samples: NDArray[np.float32]) -> Signal:
        """Start to bring 16 kHz mono float32 samples, shape (samples,), to the device. Safe on any thread."""
        ...

    async def ready(self) -> None:
        """Wait until the model is loaded; raise what keeps it from that."""
        ...

    def close(self) -> None:
        """End, once what waits is answered."""
        ...

    async def transcribe(self, windows: Sequence[Signal]) -> list[Hypothesis]:
        """Transcribe windows of one recording, staged or not."""
        ...


class Dispatcher:
    """Answers requests.

    Args:
        transcriber: What turns samples into a hypothesis.
        card: The model's description of itself.
        limits: What one download may cost.
        concurrency: How many jobs are expected at a time.
    """

    def __init__(self, transcriber: Transcriber, card: Card, limits: DownloadLimits, concurrency: int) -> None:
        self._transcriber = transcriber
        self._card = card
        self._limits = limits
        # Most of a download is waiting. A cancelled one may wait on for a moment, beside the one that takes its slot.
        self._loaders = ThreadPoolExecutor(2 * concurrency, thread_name_prefix="audio")
        self._actions: Mapping[Action, Callable[[Request], Awaitable[Fields]]] = {
            "transcribe": self._transcribe,
            "model_info": self._model_info,
        }

    async def __call__(self, request: Request) -> Fields:
        """Carry out a request and return the fields of its result, without `status`.

        Raises:
            JobError: It cannot be done, for a reason that the caller is told.
        """
        return await self._actions[request.action](request)

    async def ready(self) -> None:
        """Wait until requests can be carried out at once.

        Raises:
            Exception: What kept the model from being loaded.
        """
        await self._transcriber.ready()

    def close(self) -> None:
        """Let the model go, once what waits for it is answered."""
        self._transcriber.close()

    async def _transcribe(self, request: Request) -> Fields:
        started = time.monotonic()
        abort = Abort()
        try:
            loading = asyncio.get_running_loop().run_in_executor(self._loaders, self._load, request.audio_url, abort)
            audio, signal = await loading
        except asyncio.CancelledError:
            abort.set()
            raise
        (hypothesis,) = await self._transcriber.transcribe([signal])
        result: Fields = {
            "text": hypothesis.text,
            "duration": _milliseconds(audio.duration) or 0.001,
            "processing_time": _milliseconds(time.monotonic() - started),
            "sample_rate": audio.sample_rate,
        }
        if request.timestamps:
            aligned = align(hypothesis.text, hypothesis.tokens, audio.duration)
            result["timestamps"] = {
                "word": [_entry("word", span) for span in aligned.words],
                "segment": [_entry("segment", span) for span in aligned.segments],
                "char": [_entry("char", span) for span in aligned.chars],
            }
        result["timestamp"] = utc_timestamp()
        return result

    def _load(self, url: str, abort: Abort) -> tuple[Audio, Signal]:
        with open_audio(url, self._limits, abort) as file:
            audio = decode(file, self._card.max_duration, abort)
        return audio, self._transcriber.stage(audio.samples)

    async def _model_info(self, _: Request) -> Fields:
        card = self._card
        return {
            "model": card.name,
            "parameters": parameter_count(card.parameters),
            "architecture": card.architecture,
            "supported_formats": list(SUPPORTED_FORMATS),
            "sample_rate": f"{card.sample_rate / 1000:g}kHz",
            "max_duration": f"{card.max_duration / 60:g} minutes per pass",
            "features": list(card.features),
            "license": card.license,
        }


def _entry(kind: str, span: Span) -> Fields:
    return {"start": _milliseconds(span.start), "end": _milliseconds(span.end), kind: span.text}


def _milliseconds(seconds: float) -> float:
    """Round to milliseconds: the model's own resolution is 80 of them."""
    return round(seconds, 3)
