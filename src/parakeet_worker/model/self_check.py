"""Checking before the first job that a loaded model transcribes correctly, and warming up the device."""

import time
from collections.abc import Callable, Sequence
from difflib import SequenceMatcher
from pathlib import Path

import numpy as np
import soundfile
import torch
from numpy.typing import NDArray

from parakeet_worker.asr.types import SAMPLE_RATE, BatchTime, Recognizer

CLIP = Path(__file__).with_name("check.flac")
"""A spoken sentence of two seconds, 16 kHz mono. A model's card has the transcript by NeMo's own `transcribe()`."""

# The batches of the warm-up, in recordings and seconds of each: up to one that saturates most GPUs.
_WARM_UPS = ((1, 2), (1, 8), (4, 8), (16, 8), (64, 8))

# Longest time that the next of them may be expected to take, in seconds.
_LONGEST_WARM_UP_S = 0.1

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


def warm_up(recognizer: Recognizer, clock: Callable[[], float] = time.perf_counter) -> list[BatchTime]:
    """Transcribe up to five batches, so that memory, kernels and CUDA graphs are ready for the first job.

    They also tell the scheduler what batches cost. Those that would take too long or too much memory are
    left out, such as the last two on a CPU.

    Args:
        recognizer: The loaded model.
        clock: Returns seconds that never go back.

    Returns:
        What they took.
    """
    speech = clip()
    times: list[BatchTime] = []
    for recordings, seconds in _WARM_UPS:
        padded = recordings * seconds
        if times and (padded > recognizer.batch_seconds or _expected(times, padded) > _LONGEST_WARM_UP_S):
            break
        try:
            batch = recognizer.pad([recognizer.stage(np.resize(speech, seconds * SAMPLE_RATE))] * recordings)
            started = clock()
            batch.transcribe()
        except (torch.OutOfMemoryError, MemoryError):
            # The limit on batches is an estimate, or a setting. Serving decodes in parts what is too large.
            break
        times.append(BatchTime(recordings, seconds, clock() - started))
    return times


def _expected(times: Sequence[BatchTime], padded: float) -> float:
    """Return what a batch of some padded seconds takes, if the time goes on to grow as it did with the last one."""
    *earlier, last = times
    grown = max(0.0, last.seconds - earlier[-1].seconds) if earlier else 0.0
    return last.seconds + grown * padded / (last.windows * last.longest)


def word_agreement(text: str, expected: str) -> float:
    """Return the share of words that two texts have in common, in order: from 0 (none) to 1 (equal)."""
    return SequenceMatcher(None, text.split(), expected.split(), autojunk=False).ratio()


def clip() -> NDArray[np.float32]:
    """Return the samples of the bundled clip, shape (samples,)."""
    samples: NDArray[np.float32] = soundfile.read(CLIP, dtype="float32")[0]
    return samples
