"""How far the times of words are from those of the reference."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from results import Outcome, WordTime
from scoring import align_words, normalise


@dataclass(frozen=True)
class TimingErrors:
    """Distances between the times of words and those of the reference, in milliseconds.

    Attributes:
        words: Words of the references that have times, without those that normalising drops.
        matched: Those of them that were heard, which the distances are about.
        start_median: Median distance of the starts.
        start_p95: The distance that 95 percent of the starts do not exceed.
        end_median: Median distance of the ends.
        end_p95: The distance that 95 percent of the ends do not exceed.
    """

    words: int
    matched: int
    start_median: float
    start_p95: float
    end_median: float
    end_p95: float


def measure_timing(outcomes: Iterable[Outcome]) -> TimingErrors | None:
    """Return the timing errors of transcripts; None if no word with times was heard."""
    words = 0
    distances: list[tuple[float, float]] = []
    for outcome in outcomes:
        words += len(_normalised(outcome.reference_words))
        for expected, found in match_words(outcome.reference_words, outcome.hypothesis_words):
            distances.append((abs(found.start - expected.start), abs(found.end - expected.end)))
    if not distances:
        return None
    in_ms: NDArray[np.float64] = np.array(distances) * 1000
    (start_median, end_median), (start_p95, end_p95) = np.percentile(in_ms, [50, 95], axis=0).tolist()
    return TimingErrors(words, len(distances), start_median, start_p95, end_median, end_p95)


def match_words(reference: Sequence[WordTime], hypothesis: Sequence[WordTime]) -> list[tuple[WordTime, WordTime]]:
    """Return the words of a reference that were heard, each with the word of the transcript that it was aligned with.

    Two words match if their normalised forms are equal. So `twenty one` is not found in `21`.
    """
    expected, found = _normalised(reference), _normalised(hypothesis)
    matches = []
    left, right = iter(expected), iter(found)
    for pair in align_words([text for text, _ in expected], [text for text, _ in found]):
        one = next(left)[1] if pair.reference is not None else None
        other = next(right)[1] if pair.hypothesis is not None else None
        if one and other and pair.is_match:
            matches.append((one, other))
    return matches


def _normalised(words: Iterable[WordTime]) -> list[tuple[str, WordTime]]:
    """Return the words with their normalised texts, without those of which nothing is left, such as `uh`."""
    texts = [(normalise(word.word), word) for word in words]
    return [(text, word) for text, word in texts if text]
