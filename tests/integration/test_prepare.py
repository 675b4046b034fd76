"""Preparing the model: loaded in stages, checked with the bundled clip, closed once its queue is decoded."""

import asyncio
import subprocess
import sys
import threading
from functools import partial
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from cpu import CPU
from parakeet_worker.asr.scheduler import Scheduler
from parakeet_worker.asr.types import Hypothesis
from parakeet_worker.model import prepare as plain
from parakeet_worker.model.card import Card
from parakeet_worker.model.files import ModelFiles
from parakeet_worker.model.self_check import CLIP, check_transcript
from parakeet_worker.nemo import prepare as nemo
from parakeet_worker.stage_timer import StageTimer
from project import MODEL_DIR, TEXT, Clip
from recognizers import Hears


def test_the_real_model_hears_the_clip(recognizer: Any, clips: list[Clip]) -> None:
    check_transcript(recognizer, Card.read(MODEL_DIR).check)
    assert clips[2].path.read_bytes() == CLIP.read_bytes()
    assert clips[2].text == TEXT


@pytest.mark.parametrize(
    ("prepare", "stages"),
    [
        (plain.prepare, ["device", "read", "build", "copy", "warm-up"]),
        (partial(nemo.prepare, MODEL_DIR), ["device", "imports", "build", "read", "copy", "warm-up"]),
    ],
    ids=["plain", "nemo"],
)
def test_a_model_is_prepared_in_stages(prepare: Any, stages: Any) -> None:
    card, timer = Card.read(MODEL_DIR), StageTimer()
    threads = torch.get_num_threads()
    try:
        files = ModelFiles(MODEL_DIR, card.files)
        recognizer = prepare(files, card, CPU, cpu_threads=1, stage=timer.stage)
    finally:
        torch.set_num_threads(threads)
    assert list(timer.seconds) == stages
    assert all(seconds >= 0 for seconds in timer.seconds.values())
    assert recognizer.transcribe([soundfile.read(CLIP, dtype="float32")[0]])[0].text == TEXT


LOAD = """
import sys
from pathlib import Path
from parakeet_worker.model.card import Card
from parakeet_worker.model.device import make_plan
from parakeet_worker.model.files import ModelFiles
from parakeet_worker.model.prepare import prepare
from parakeet_worker.stage_timer import StageTimer
directory = Path(sys.argv[1])
card = Card.read(directory)
plan = make_plan("cpu", "float32", None, card.parameters)
prepare(ModelFiles(directory, card.files), card, plan, cpu_threads=1, stage=StageTimer().stage)
print(*sys.modules)
"""


def test_the_plain_engine_imports_neither_nemo_nor_torchs_compiler() -> None:
    done = subprocess.run(
        [sys.executable, "-c", LOAD, MODEL_DIR], capture_output=True, text=True, timeout=60, check=True
    )
    modules = set(done.stdout.split())
    assert "sentencepiece" in modules
    assert not modules & {"nemo", "omegaconf", "torch._dynamo", "torch._inductor", "sympy", "scipy", "safetensors"}
    assert len(modules) < 1_500


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
