"""How far the confidence of words tells the wrong ones, on the bundled model and clips, and distorted forms of them.

    python benchmarks/confidence.py

The recordings are the bundled clips as they are, with white noise of five levels, and joined by three. A word is right
if the alignment with what was said pairs it with the same word, without regard to case and punctuation.

Prints a table of ways to make one confidence of a word's tokens. Writes it and the calibration of the one that the
worker uses, the mean, to `benchmarks/results/`, and the chart of that to `docs/confidence.svg`.
"""

import json
import math
import statistics
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import kaldialign
import numpy as np

from chart import CALIBRATION, CONFIDENCE, calibration
from parakeet_worker.asr.alignment import group_by_word
from parakeet_worker.asr.types import DecodingOptions, Hypothesis, Recognizer
from speech import Speech, add_noise, load_embedded, plain_words, read_clips

# Levels of the noise below that of the speech, in decibels.
_LEVELS_DB = (25, 20, 15, 10, 5)

# Recordings that are joined clips.
_JOINED = 60

_BATCH = 32

WAYS: dict[str, Callable[[Sequence[float]], float]] = {"mean": statistics.fmean, "min": min, "product": math.prod}
"""Ways to make one confidence of those of a word's tokens."""


@dataclass(frozen=True)
class Word:
    """A word that was recognized: whether it is right, and the confidences of its tokens."""

    is_right: bool
    confidences: tuple[float, ...]


def make_recordings() -> Iterator[Speech]:
    """Yield the clips, and distorted forms of them: always the same."""
    draw, clips = np.random.default_rng(0), read_clips()
    yield from clips
    for level in _LEVELS_DB:
        for clip in clips:
            yield add_noise(clip, level, draw)
    for _ in range(_JOINED):
        parts = [clips[index] for index in draw.integers(len(clips), size=3)]
        yield Speech(np.concatenate([part.samples for part in parts]), " ".join(part.text for part in parts))


def align(hypothesis: Hypothesis, text: str) -> list[Word]:
    """Return the words of a hypothesis, compared with what was said."""
    groups = [word for word in group_by_word(hypothesis.text, hypothesis.tokens) if plain_words(word.text)]
    found = [plain_words(word.text)[0] for word in groups]
    pairs = kaldialign.align(plain_words(text), found, "*")
    is_right = [said == word for said, word in pairs if word != "*"]
    confidences = [tuple(token.confidence for token in word.tokens if token.confidence is not None) for word in groups]
    return [Word(*each) for each in zip(is_right, confidences, strict=True)]


def measure(recognizer: Recognizer, recordings: Iterable[Speech]) -> list[Word]:
    """Return the words of recordings."""
    recordings = sorted(recordings, key=lambda each: len(each.samples))
    words: list[Word] = []
    for first in range(0, len(recordings), _BATCH):
        batch = recordings[first : first + _BATCH]
        options = [DecodingOptions(has_confidence=True)] * len(batch)
        found = recognizer.transcribe([each.samples for each in batch], options)
        for hypothesis, each in zip(found, batch, strict=True):
            words += align(hypothesis, each.text)
    return words


def separation(words: Sequence[Word], way: Callable[[Sequence[float]], float]) -> float:
    """Return how many times as often the tenth of the words with the least confidence is wrong as the rest."""
    confidences = np.array([way(word.confidences) for word in words])
    is_wrong = np.array([not word.is_right for word in words])
    is_low = confidences < np.quantile(confidences, 0.1)
    return float(is_wrong[is_low].mean() / is_wrong[~is_low].mean())


def ranking(words: Sequence[Word], way: Callable[[Sequence[float]], float]) -> float:
    """Return how often a right word has more confidence than a wrong one (the area under the ROC curve)."""
    right, wrong = (
        [way(word.confidences) for word in words if word.is_right is is_right] for is_right in (True, False)
    )
    below = np.searchsorted(np.sort(wrong), right, "left") + np.searchsorted(np.sort(wrong), right, "right")
    return float(below.mean() / 2 / len(wrong))


def calibrate(words: Sequence[Word], way: Callable[[Sequence[float]], float]) -> list[dict[str, float]]:
    """Return the words by tenths of the confidence: their number, mean confidence, and the share that is right."""
    bins: list[list[tuple[float, bool]]] = [[] for _ in range(10)]
    for word in words:
        confidence = way(word.confidences)
        bins[min(9, int(confidence * 10))].append((confidence, word.is_right))
    return [
        {
            "words": len(found),
            "confidence": round(statistics.fmean(confidence for confidence, _ in found), 4),
            "right": round(statistics.fmean(is_right for _, is_right in found), 4),
        }
        for found in bins
        if found
    ]


def summarize(words: Sequence[Word]) -> dict[str, Any]:
    """Return what is written as JSON."""
    ways = {
        name: {"ratio": round(separation(words, way), 2), "ranking": round(ranking(words, way), 4)}
        for name, way in WAYS.items()
    }
    return {
        "words": len(words),
        "wrong": round(statistics.fmean(not word.is_right for word in words), 4),
        "ways": ways,
        "bins": calibrate(words, WAYS["mean"]),
    }


def main() -> None:
    """Measure, print and write everything."""
    recognizer = load_embedded()
    result = summarize(measure(recognizer, make_recordings()))
    clean = summarize(measure(recognizer, read_clips()))
    result["clips"] = {key: clean[key] for key in ("words", "wrong", "ways")}
    for about, found in (("all recordings", result), ("the clips alone", clean)):
        print(f"{about}: {found['words']} words, {found['wrong']:.1%} wrong")
        for name, way in found["ways"].items():
            print(f"  {name:8} lowest tenth wrong {way['ratio']:.1f} times as often; ranking {way['ranking']:.3f}")
    CONFIDENCE.write_text(json.dumps(result, indent=1) + "\n")
    CALIBRATION.write_text(calibration(result))


if __name__ == "__main__":
    main()
