"""A worker that cannot serve says why, and exits before it takes a job."""

import asyncio
import json
import os
import shutil
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
import soundfile
import torch

from conftest import MODEL_DIR, ROOT
from parakeet_worker.model.card import Card
from parakeet_worker.model.engine import Engine
from parakeet_worker.model.files import ModelFiles
from parakeet_worker.model.fitness import CLIP, Unfit, agreement, check_words, warm_up
from parakeet_worker.model.hypothesis import Hypothesis
from parakeet_worker.model.prepare import Laps, prepare
from parakeet_worker.settings import Settings

SENTENCE = "The children must learn to reason."


class Hears:
    """A recognizer that hears the same in everything."""

    batch_seconds = 100.0

    def __init__(self, text: str) -> None:
        self.text = text
        self.batches: list[list[int]] = []

    def stage(self, samples):
        return samples

    def transcribe(self, batch):
        self.batches.append([len(signal) for signal in batch])
        return [Hypothesis(self.text, ()) for _ in batch]


@pytest.mark.parametrize("text", [SENTENCE, "The children must learn to season."])
def test_a_model_that_hears_the_clip_is_fit(text):
    check_words(Hears(text), SENTENCE)


@pytest.mark.parametrize("text", ["", "mm mm mm", "reason to learn must children The"])
def test_a_model_that_hears_something_else_is_not(text):
    with pytest.raises(Unfit, match="in the bundled clip, which says 'The children must"):
        check_words(Hears(text), SENTENCE)
    check_words(Hears(text), None)  # one that has not learned to transcribe


def test_agreement_is_between_nothing_and_everything():
    assert agreement("a b c", "a b c") == 1
    assert agreement("d", "a b c") == 0
    assert agreement("", "") == 1
    assert agreement("a c", "a b c") == pytest.approx(0.8)


def test_the_real_model_hears_the_clip(recognizer):
    check_words(recognizer, Card.read(MODEL_DIR).check)
    assert Card.read(MODEL_DIR).check == SENTENCE


def test_the_device_is_warmed_up_with_a_usual_batch():
    recognizer = Hears("")
    warm_up(recognizer)
    assert recognizer.batches == [[8 * 16_000] * 16]


def test_a_model_is_prepared_in_stages():
    settings, card, laps = Settings.from_env({}), Card.read(MODEL_DIR), Laps(time.monotonic())
    threads = torch.get_num_threads()
    try:
        recognizer = prepare(settings, card, ModelFiles(MODEL_DIR, card.files), laps)
    finally:
        torch.set_num_threads(threads)
    assert list(laps.seconds) == ["imports", "device", "build", "read", "copy", "warm-up"]
    assert all(seconds >= 0 for seconds in laps.seconds.values())
    assert recognizer.transcribe([soundfile.read(CLIP, dtype="float32")[0]])[0].text == SENTENCE


def test_the_model_loads_before_any_job_and_its_failure_is_told():
    loading = threading.Event()

    def load():
        loading.set()
        raise OSError("no such model")

    engine = Engine(load)
    engine.start()
    assert loading.wait(5)
    with pytest.raises(OSError, match="no such model"):
        asyncio.run(engine.ready())
    engine.close()


def test_closing_waits_for_what_is_asked_for():
    recognizer = Hears("yes")

    async def ask() -> Hypothesis:
        answer = engine.submit(np.zeros(16_000, np.float32))
        await asyncio.to_thread(engine.close)
        return answer.result(0).hypothesis

    engine = Engine(lambda: recognizer)
    assert asyncio.run(ask()).text == "yes"
    assert not any(thread.name == "model" and thread is engine._thread for thread in threading.enumerate())


def serve(server, **environ: str) -> subprocess.CompletedProcess:
    """Run the worker's real loop, against a platform that has no jobs."""
    environ = {
        "RUNPOD_WEBHOOK_GET_JOB": f"{server.url}/job-take/worker",
        "RUNPOD_SKIP_AUTO_SYSTEM_CHECKS": "true",
        "RUNPOD_SKIP_GPU_CHECK": "true",
        **environ,
    }
    return subprocess.run(
        [sys.executable, str(ROOT / "handler.py")],
        env=os.environ | environ,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def damaged(tmp_path):
    directory = shutil.copytree(MODEL_DIR, tmp_path / "model")
    with (directory / "model.safetensors").open("r+b") as file:
        file.seek(1_000_000)
        file.write(b"damage")
    return directory, "model.safetensors of the model is damaged"


def deaf(tmp_path):
    directory = shutil.copytree(MODEL_DIR, tmp_path / "model")
    card = json.loads((directory / "card.json").read_text())
    (directory / "card.json").write_text(json.dumps(card | {"check": "Something else entirely was said."}))
    return directory, "in the bundled clip, which says 'Something else"


@pytest.mark.parametrize("spoil", [damaged, deaf])
def test_an_unfit_worker_exits_before_it_takes_a_job(spoil, tmp_path, server):
    directory, reason = spoil(tmp_path)
    done = serve(server, PARAKEET_MODEL_DIR=str(directory))
    assert done.returncode == 1
    assert reason in done.stdout
    assert server.requests == []


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_worker_without_its_gpu_exits(server):
    done = serve(server, PARAKEET_DEVICE="cuda")
    assert done.returncode == 1
    assert "PARAKEET_DEVICE is cuda, and torch finds no GPU" in done.stdout
    assert server.requests == []
