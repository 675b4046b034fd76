"""Whether two results differ by more than chance: the paired bootstrap of Bisani and Ney (ICASSP 2004)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from results import Outcome, without_secrets
from scoring import WordErrors, count_errors

RESAMPLES = 10_000
_SEED = 2004

# At most this many drawn numbers are held at a time, in 32 MB, and as much again for each value that they select.
_DRAWN = 4_000_000

# At most this many of the utterances that only one result has are named.
_NAMED = 3


class ComparisonError(ValueError):
    """Two results are not of the same utterances. The message says which differ."""


@dataclass(frozen=True)
class Comparison:
    """Two word error rates, and how sure their difference is. Rates are errors for each word of the references.

    Attributes:
        utterances: Number of utterances that have words, the same in both.
        words: Number of words of their references.
        first: Rate of the first result.
        second: Rate of the second.
        low: Lower end of the 95 percent interval of the difference, second minus first.
        high: Upper end of it.
        improvement: Part of the resamples in which the second has fewer errors.
        p_value: How often chance alone would give a difference that large, if there were none. Two-sided.
    """

    utterances: int
    words: int
    first: float
    second: float
    low: float
    high: float
    improvement: float
    p_value: float

    @property
    def difference(self) -> float:
        """Second rate minus first."""
        return self.second - self.first


def errors_of(outcome: Outcome) -> WordErrors:
    """Return the word errors of an outcome. One without a transcript has missed all words."""
    return count_errors(outcome.reference, outcome.hypothesis or "")


def compare(first: Sequence[Outcome], second: Sequence[Outcome], *, resamples: int = RESAMPLES) -> Comparison:
    """Compare two results of the same utterances.

    Args:
        first: Outcomes.
        second: Those of the same utterances, in any order.
        resamples: How often the utterances are drawn anew.

    Raises:
        ComparisonError: The utterances or their references differ, or have no words.
    """
    pairs = _paired({outcome.id: outcome for outcome in first}, {outcome.id: outcome for outcome in second})
    counted = [(errors_of(one), errors_of(other)) for one, other in pairs]
    scored = [(one.total, other.total, one.words) for one, other in counted if one.words]
    if not scored:
        raise ComparisonError("there are no words in the references")
    errors_a, errors_b, words = np.array(scored, dtype=np.int64).T
    total = int(words.sum())
    drawn = resampled_sums(np.stack([errors_b - errors_a, words]), resamples)
    differences = drawn[0] / drawn[1]
    low, high = np.percentile(differences, [2.5, 97.5]).tolist()
    # One more on both sides of the fraction: no number of resamples shows that chance is impossible.
    tails = [(int((differences <= 0).sum()) + 1), (int((differences >= 0).sum()) + 1)]
    return Comparison(
        utterances=len(scored),
        words=total,
        first=int(errors_a.sum()) / total,
        second=int(errors_b.sum()) / total,
        low=low,
        high=high,
        improvement=float((differences < 0).mean()),
        p_value=min(1.0, 2 * min(tails) / (resamples + 1)),
    )


def rate_interval(errors: Sequence[WordErrors], *, resamples: int = RESAMPLES) -> tuple[float, float] | None:
    """Return the 95 percent interval of the word error rate of utterances; None if their references have no words."""
    scored = np.array([(each.total, each.words) for each in errors if each.words], dtype=np.int64)
    if not len(scored):
        return None
    drawn = resampled_sums(scored.T, resamples)
    low, high = np.percentile(drawn[0] / drawn[1], [2.5, 97.5]).tolist()
    return low, high


def resampled_sums(values: NDArray[np.int64], resamples: int) -> NDArray[np.int64]:
    """Return sums over utterances that are drawn with replacement, always the same.

    Args:
        values: Of each utterance, shape (values, utterances).
        resamples: How often as many utterances are drawn.

    Returns:
        Shape (values, resamples).
    """
    draw = np.random.default_rng(_SEED)
    count = values.shape[1]
    at_a_time = max(1, _DRAWN // count)
    sums = [
        values[:, draw.integers(count, size=(min(at_a_time, resamples - done), count))].sum(axis=2)
        for done in range(0, resamples, at_a_time)
    ]
    return np.concatenate(sums, axis=1)


def _paired(first: Mapping[str, Outcome], second: Mapping[str, Outcome]) -> list[tuple[Outcome, Outcome]]:
    if first.keys() != second.keys():
        only = [("first", first.keys() - second.keys()), ("second", second.keys() - first.keys())]
        said = [f"{_named(ids)} only in the {name}" for name, ids in only if ids]
        raise ComparisonError(f"the results have other utterances: {', and '.join(said)}")
    if other := {id_ for id_, outcome in first.items() if outcome.reference != second[id_].reference}:
        raise ComparisonError(f"the references differ: those of {_named(other)}")
    return [(first[id_], second[id_]) for id_ in first]


def _named(ids: set[str]) -> str:
    named = ", ".join(map(without_secrets, sorted(ids)[:_NAMED]))
    return named if len(ids) <= _NAMED else f"{named} and {len(ids) - _NAMED} more"
