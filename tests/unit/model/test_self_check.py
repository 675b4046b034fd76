"""A worker that cannot serve says why, and exits before it takes a job."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from loopback import LoopbackServer
from parakeet_worker.asr.types import Hypothesis
from parakeet_worker.model.self_check import SelfCheckError, check_transcript, warm_up, word_agreement
from project import MODEL_DIR, ROOT

SENTENCE = "The children must learn to reason."


class Hears:
    """A recognizer that hears the same in everything."""

    batch_seconds = 100.0

    def __init__(self, text: str) -> None:
        self.text = text
        self.batches: list[list[int]] = []

    def stage(self, samples: Any) -> Any:
        return samples

    def transcribe(self, batch: Any) -> Any:
        self.batches.append([len(signal) for signal in batch])
        return [Hypothesis(self.text, ()) for _ in batch]


@pytest.mark.parametrize("text", [SENTENCE, "The children must learn to season."])
def test_a_model_that_hears_the_clip_is_fit(text: Any) -> None:
    check_transcript(Hears(text), SENTENCE)


@pytest.mark.parametrize("text", ["", "mm mm mm", "reason to learn must children The"])
def test_a_model_that_hears_something_else_is_not(text: Any) -> None:
    with pytest.raises(SelfCheckError, match="for the bundled clip, instead of 'The children must"):
        check_transcript(Hears(text), SENTENCE)
    check_transcript(Hears(text), None)  # one that has not learned to transcribe


def test_agreement_is_between_nothing_and_everything() -> None:
    assert word_agreement("a b c", "a b c") == 1
    assert word_agreement("d", "a b c") == 0
    assert word_agreement("", "") == 1
    assert word_agreement("a c", "a b c") == pytest.approx(0.8)


def test_the_device_is_warmed_up_with_a_usual_batch() -> None:
    recognizer = Hears("")
    warm_up(recognizer)
    assert recognizer.batches == [[8 * 16_000] * 16]


def serve(server: LoopbackServer, **environ: str) -> subprocess.CompletedProcess[str]:
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


def damaged(tmp_path: Path) -> Any:
    directory = shutil.copytree(MODEL_DIR, tmp_path / "model")
    with (directory / "model.safetensors").open("r+b") as file:
        file.seek(1_000_000)
        file.write(b"damage")
    return directory, "model.safetensors of the model is damaged"
