"""Checking before the first job that a loaded model transcribes correctly, and warming up the device."""

from difflib import SequenceMatcher
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray

from parakeet_worker.asr.types import SAMPLE_RATE, Recognizer

CLIP = Path(__file__).with_name("check.flac")
"""A spoken sentence of two seconds, 16 kHz mono. A model's card has the transcript by NeMo's own `transcribe()`."""

# The batch of the warm-up: a typical one of 16 recordings of 8 seconds.
_USUAL_RECORDINGS, _USUAL_SECONDS = 16, 8

# Not 1: 16-bit arithmetic may change a word. With damaged weights or a broken device no words are right.
_LEAST_AGREEMENT = 0.75


class SelfCheckError(Exception):
    """The model that was loaded does not transcribe as it should."""


def check_transcript(recognizer: Recognizer, expected: str | None) -> None:
    """Transcribe the bundled clip, as the first batch on the device, and compare the words.

    Args:
        recognizer: The loaded model.
        expected: The expected transcript, or None to compare nothing, for a model with untrained weights.

    Raises:
        SelfCheckError: Fewer than three quarters of the words agree.
    """
    (hypothesis,) = recognizer.transcribe([clip()])
    if expected is not None and word_agreement(hypothesis.text, expected) < _LEAST_AGREEMENT:
        raise SelfCheckError(f"the model returns {hypothesis.text!r} for the bundled clip, instead of {expected!r}")


def transcribe_clip(recognizer: Recognizer) -> str:
    """Return the transcript of the bundled clip by a model whose expected text is not known.

    Raises:
        SelfCheckError: It is empty.
    """
    (hypothesis,) = recognizer.transcribe([clip()])
    if not hypothesis.text:
        raise SelfCheckError("the model returns no words for the bundled clip")
    return hypothesis.text


def warm_up(recognizer: Recognizer) -> None:
    """Transcribe a batch of typical size, so that memory, kernels and CUDA graphs are ready for the first job."""
    speech = clip()
    recording = np.tile(speech, -(-_USUAL_SECONDS * SAMPLE_RATE // len(speech)))[: _USUAL_SECONDS * SAMPLE_RATE]
    recognizer.transcribe([recognizer.stage(recording) for _ in range(_USUAL_RECORDINGS)])


def word_agreement(text: str, expected: str) -> float:
    """Return the share of words that two texts have in common, in order: from 0 (none) to 1 (equal)."""
    return SequenceMatcher(None, text.split(), expected.split(), autojunk=False).ratio()


def clip() -> NDArray[np.float32]:
    """Return the samples of the bundled clip, shape (samples,)."""
    samples: NDArray[np.float32] = soundfile.read(CLIP, dtype="float32")[0]
    return samples
