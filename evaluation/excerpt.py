"""What a page shows of an utterance: its scored words with their times, and the stretch in which most errors are."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from results import Outcome, WordTime
from scoring import Pair, align_words

LONGEST_S = 60.0
"""Longest stretch of a recording that is shown. What is no longer is shown whole."""

# Where neither the length of a recording nor a word's time is known: a slow speaker's seconds for each word.
_SECONDS_PER_WORD = 0.5

# Most words of a stretch. Ten a second are more than anyone says; a wrong text of a short recording can have more.
_MOST_PAIRS = 600

# What a word with its time is searched for by, whatever its case and punctuation are. The second apostrophe is U+2019.
_WORD = re.compile(r"[^\W_]+(?:['\u2019][^\W_]+)*")


class Kind(StrEnum):
    """What a pair counts as. The values are classes of the page's style."""

    CORRECT = "ok"
    SUBSTITUTED = "sub"
    DELETED = "del"
    INSERTED = "ins"


@dataclass(frozen=True)
class ScoredPair:
    """A pair with its times.

    Attributes:
        number: Its place in the alignment.
        kind: What it counts as.
        reference: The normalised word of the reference, or None.
        hypothesis: The normalised word of the hypothesis, or None.
        reference_index: Which of the reference's words with times it is of, or None.
        hypothesis_index: Which of the hypothesis' words with times it is of, or None.
        at: When it is said, in seconds: the start of its word, or between those of its neighbours.
    """

    number: int
    kind: Kind
    reference: str | None
    hypothesis: str | None
    reference_index: int | None
    hypothesis_index: int | None
    at: float


@dataclass(frozen=True)
class Excerpt:
    """The stretch of an utterance that is shown.

    Attributes:
        start: Where it starts in the recording, in seconds.
        end: Where it ends, in seconds.
        pairs: The pairs in it.
        errors: The number of errors in it.
        is_whole: Whether it is all of the utterance.
        has_times: Whether the times of its pairs are known, and not only guessed.
    """

    start: float
    end: float
    pairs: tuple[ScoredPair, ...]
    errors: int
    is_whole: bool
    has_times: bool


def kind_of(pair: Pair) -> Kind:
    """Return what a pair counts as."""
    if pair.reference is None:
        return Kind.INSERTED
    if pair.hypothesis is None:
        return Kind.DELETED
    return Kind.CORRECT if pair.is_match else Kind.SUBSTITUTED


def choose_excerpt(outcome: Outcome, pairs: Sequence[Pair]) -> Excerpt:
    """Choose what to show of an utterance: all of it, or the minute with the most errors.

    Args:
        outcome: The utterance.
        pairs: The alignment of its reference and its hypothesis.
    """
    reference = _find_times([pair.reference for pair in pairs], outcome.reference_words)
    hypothesis = _find_times([pair.hypothesis for pair in pairs], outcome.hypothesis_words)
    length = _length(outcome, len(pairs))
    starts = [_start(outcome, *indices) for indices in zip(reference, hypothesis, strict=True)]
    times = _interpolate(np.array(starts, float), length)
    scored = [
        ScoredPair(number, kind_of(pair), pair.reference, pair.hypothesis, first, second, float(at))
        for number, (pair, first, second, at) in enumerate(zip(pairs, reference, hypothesis, times, strict=True))
    ]
    start, end = 0.0, length
    if length > LONGEST_S:
        start = _densest(np.array([pair.at for pair in scored if pair.kind is not Kind.CORRECT]), length)
        end = start + LONGEST_S
        scored = [pair for pair in scored if start <= pair.at < end]
    shown = tuple(scored[:_MOST_PAIRS])
    return Excerpt(
        start,
        end,
        shown,
        errors=sum(pair.kind is not Kind.CORRECT for pair in shown),
        is_whole=length <= LONGEST_S and len(shown) == len(pairs),
        has_times=any(at is not None for at in starts),
    )


def _find_times(scored: Sequence[str | None], timed: Sequence[WordTime]) -> list[int | None]:
    """Return which of the words with times each scored word is of.

    Normalisation changes words, joins them and divides them ("twenty one" is 21, "don't" is "do not"), and drops some.
    The words that it left alone are found by their letters. Those between them are matched in their order.
    """
    found: list[int | None] = [None] * len(scored)
    places = [place for place, word in enumerate(scored) if word is not None]
    spoken = [(word, index) for index, each in enumerate(timed) for word in _WORD.findall(each.word.lower())]
    same, first, second = [(-1, -1)], 0, 0
    for pair in align_words(filter(None, scored), (word for word, _ in spoken)):
        if pair.is_match:
            same.append((first, second))
            found[places[first]] = spoken[second][1]
        first += pair.reference is not None
        second += pair.hypothesis is not None
    for (left, begin), (right, end) in pairwise([*same, (len(places), len(spoken))]):
        if end - begin > 1:
            for number in range(right - left - 1):
                index = begin + 1 + number * (end - begin - 1) // (right - left - 1)
                found[places[left + 1 + number]] = spoken[index][1]
    return found


def _start(outcome: Outcome, reference: int | None, hypothesis: int | None) -> float | None:
    """Return the start of a pair's word in seconds: that of the hypothesis, which shows what the model heard there."""
    if hypothesis is not None:
        return outcome.hypothesis_words[hypothesis].start
    return None if reference is None else outcome.reference_words[reference].start


def _length(outcome: Outcome, pairs: int) -> float:
    """Return the length of a recording in seconds, as well as it is known."""
    if outcome.duration is not None:
        return outcome.duration
    ends = [word.end for word in (*outcome.reference_words, *outcome.hypothesis_words)]
    return max(ends, default=pairs * _SECONDS_PER_WORD)


def _interpolate(starts: NDArray[np.float64], length: float) -> NDArray[np.float64]:
    """Return the times of all pairs in seconds, none before the one in front of it; those not known (NaN) are guessed.

    Args:
        starts: The starts of the pairs in seconds, of shape (pairs,).
        length: Length of the recording in seconds.
    """
    places = np.arange(len(starts))
    is_known = np.isfinite(starts)
    if not is_known.any():
        return np.asarray(places * (length / max(1, len(starts))), float)
    return np.maximum.accumulate(np.interp(places, places[is_known], starts[is_known]))


def _densest(errors: NDArray[np.float64], length: float) -> float:
    """Return the start of the stretch with the most errors, the first of several, with the errors in its middle.

    Args:
        errors: When each error is, in seconds and in order, of shape (errors,).
        length: Length of the recording in seconds.
    """
    if not len(errors):
        return 0.0
    last = np.searchsorted(errors, errors + LONGEST_S)  # the number of errors up to the end of a stretch from each
    first = int(np.argmax(last - np.arange(len(errors))))
    middle = (errors[first] + errors[last[first] - 1]) / 2
    return float(np.clip(middle - LONGEST_S / 2, 0, length - LONGEST_S))
