"""The bundled speech with what is said in it, distorted in ways that are always the same, and the bundled model."""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from clips import read_speech
from parakeet_worker.model.card import Card
from parakeet_worker.model.device import Plan, use_plan
from parakeet_worker.model.files import ModelFiles
from parakeet_worker.model.prepare import load
from parakeet_worker.model.recognizer import PlainRecognizer
from parakeet_worker.stage_timer import StageTimer

MODEL = Path(__file__).parents[1] / "models" / "parakeet-tdt-mini"


@dataclass(frozen=True)
class Speech:
    """16 kHz mono samples, and what is said in them."""

    samples: NDArray[np.float32]
    text: str


def load_embedded() -> PlainRecognizer:
    """Load the bundled model on the CPU, for one thread."""
    plan = Plan(torch.device("cpu"), torch.float32, batch_seconds=1e9)
    use_plan(plan, cpu_threads=1)
    return load(ModelFiles(MODEL, Card.read(MODEL).files), plan, StageTimer().stage)


def read_clips() -> list[Speech]:
    """Return the bundled clips."""
    return [Speech(samples, text) for samples, text in read_speech("float32")]


def add_noise(speech: Speech, level_db: float, draw: np.random.Generator) -> Speech:
    """Add white noise, so many decibels below the speech."""
    scale = math.sqrt(float(np.mean(speech.samples**2))) * 10 ** (-level_db / 20)
    noise = draw.normal(0, scale, len(speech.samples))
    return Speech((speech.samples + noise).astype(np.float32), speech.text)


def plain_words(text: str) -> list[str]:
    """Return the words of a text in lower case, without punctuation marks at their ends."""
    return [word for word in (part.lower().strip(".,?!") for part in text.split()) if word]
