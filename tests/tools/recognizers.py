"""A recognizer that needs no model, and a job's way through the scheduler."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from parakeet_worker.asr.scheduler import WINDOW_INTERVAL_S, Scheduler
from parakeet_worker.asr.types import BatchTime, Hypothesis, PaddedBatch, ReadHypothesis, Recognizer


class FakeRecognizer(Recognizer):
    """A recognizer that needs no model: `hear` returns what it hears in the windows of a batch."""

    batch_seconds = 100.0
    warm_up_times: Sequence[BatchTime] = ()
    device_name = "cpu"
    precision_name = "float32"

    def stage(self, samples: Any) -> Any:
        return samples

    def pad(self, batch: Any, options: Any = ()) -> PaddedBatch:
        return FakeBatch(self, batch)

    def hear(self, batch: Any) -> list[Hypothesis]:
        raise NotImplementedError


@dataclass
class FakeBatch:
    """A batch of a `FakeRecognizer`."""

    recognizer: FakeRecognizer
    windows: Any

    def transcribe(self, meanwhile: Callable[[], None] = lambda: None) -> list[ReadHypothesis]:
        return [partial(Hypothesis, heard.text, heard.tokens) for heard in self.recognizer.hear(self.windows)]


class Hears(FakeRecognizer):
    """A recognizer that hears the same in everything."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.batches: list[list[int]] = []

    def hear(self, batch: Any) -> list[Hypothesis]:
        self.batches.append([len(signal) for signal in batch])
        return [Hypothesis(self.text, ()) for _ in batch]


async def transcribe(engine: Scheduler, windows: Any) -> list[Hypothesis]:
    """Transcribe the windows of one recording, as a job does."""
    answers = [engine.submit(window, index * WINDOW_INTERVAL_S) for index, window in enumerate(windows)]
    try:
        return [heard.hypothesis for heard in await asyncio.gather(*map(asyncio.wrap_future, answers))]
    finally:
        engine.cancel(answers)
