"""Preparing the model: loaded in stages, checked with the bundled clip, closed once its queue is decoded."""

import asyncio
import threading
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from cpu import CPU
from parakeet_worker.asr.scheduler import Scheduler
from parakeet_worker.asr.types import Hypothesis
from parakeet_worker.model.card import Card
from parakeet_worker.model.files import ModelFiles
from parakeet_worker.model.self_check import CLIP, check_transcript
from parakeet_worker.nemo.prepare import prepare
from parakeet_worker.stage_timer import StageTimer
from project import MODEL_DIR
from recognizers import SENTENCE, Hears


def test_the_real_model_hears_the_clip(recognizer: Any) -> None:
    check_transcript(recognizer, Card.read(MODEL_DIR).check)
    assert Card.read(MODEL_DIR).check == SENTENCE


def test_a_model_is_prepared_in_stages() -> None:
    card, timer = Card.read(MODEL_DIR), StageTimer()
    threads = torch.get_num_threads()
    try:
        files = ModelFiles(MODEL_DIR, card.files)
        recognizer = prepare(MODEL_DIR, card, files, CPU, cpu_threads=1, is_lean=True, stage=timer.stage)
    finally:
        torch.set_num_threads(threads)
    assert list(timer.seconds) == ["device", "imports", "build", "read", "copy", "warm-up"]
    assert all(seconds >= 0 for seconds in timer.seconds.values())
    assert recognizer.transcribe([soundfile.read(CLIP, dtype="float32")[0]])[0].text == SENTENCE


def test_the_model_loads_before_any_job_and_its_failure_is_told() -> None:
    loading = threading.Event()

    def load() -> None:
        loading.set()
        raise OSError("no such model")

    engine = Scheduler(load)  # type: ignore[arg-type]
    engine.start()
    assert loading.wait(5)
    with pytest.raises(OSError, match="no such model"):
        asyncio.run(engine.ready())
    engine.close()


def test_closing_waits_for_what_is_asked_for() -> None:
    recognizer = Hears("yes")

    async def ask() -> Hypothesis:
        answer = engine.submit(np.zeros(16_000, np.float32))
        await asyncio.to_thread(engine.close)
        return answer.result(0).hypothesis

    others = {thread for thread in threading.enumerate() if thread.name == "model"}
    engine = Scheduler(lambda: recognizer)
    assert asyncio.run(ask()).text == "yes"
    assert {thread for thread in threading.enumerate() if thread.name == "model"} <= others
