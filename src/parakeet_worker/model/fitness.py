"""Whether a loaded model hears what it should, found out before the first job, which also warms the device up."""

from difflib import SequenceMatcher
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray

from parakeet_worker.audio import SAMPLE_RATE
from parakeet_worker.model.hypothesis import Recognizer

CLIP = Path(__file__).with_name("check.flac")
"""A spoken sentence of two seconds, 16 kHz mono. A model's card says what NeMo's own `transcribe()` makes of it."""

# A batch of usual size: 16 recordings of 8 seconds.
_USUAL_RECORDINGS, _USUAL_SECONDS = 16, 8

# 16-bit arithmetic may change a word. What is broken changes them all.
_LEAST_AGREEMENT = 0.75


class Unfit(Exception):  # noqa: N818 - what is the matter, not a mistake
    """The model that was loaded does not transcribe as it should."""


def check_words(recognizer: Recognizer, expected: str | None) -> None:
    """Transcribe the bundled clip, the first batch that the device sees.

    Args:
        recognizer: What was loaded.
        expected: The words that it should hear; None for a model that has not learned to transcribe.

    Raises:
        Unfit: It hears something else.
    """
    (hypothesis,) = recognizer.transcribe([_clip()])
    if expected is not None and agreement(hypothesis.text, expected) < _LEAST_AGREEMENT:
        raise Unfit(f"the model hears {hypothesis.text!r} in the bundled clip, which says {expected!r}")


def warm_up(recognizer: Recognizer) -> None:
    """Transcribe a batch of usual size, so that the device has its memory, its kernels and its graphs for one."""
    clip = _clip()
    recording = np.tile(clip, -(-_USUAL_SECONDS * SAMPLE_RATE // len(clip)))[: _USUAL_SECONDS * SAMPLE_RATE]
    recognizer.transcribe([recognizer.stage(recording) for _ in range(_USUAL_RECORDINGS)])


def agreement(text: str, expected: str) -> float:
    """Return how much two texts agree, word by word and in order: from 0 for not at all to 1 for equal."""
    return SequenceMatcher(None, text.split(), expected.split(), autojunk=False).ratio()


def _clip() -> NDArray[np.float32]:
    samples: NDArray[np.float32] = soundfile.read(CLIP, dtype="float32")[0]
    return samples
