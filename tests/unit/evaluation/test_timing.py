import pytest

from outcomes import outcome
from results import WordTime
from timing import TimingErrors, match_words, measure_timing


def words(*spoken: tuple[str, float, float]) -> tuple[WordTime, ...]:
    return tuple(WordTime(*each) for each in spoken)


def test_words_are_matched_through_the_alignment() -> None:
    reference = words(("The", 0.0, 0.1), ("cat", 0.2, 0.4), ("uh", 0.4, 0.5), ("won't", 0.6, 0.8), ("the", 0.9, 1.0))
    heard = [("the", 0.1, 0.2), ("cap", 0.2, 0.4), ("won't,", 0.6, 0.9), ("see", 0.9, 0.95), ("The.", 1.0, 1.1)]
    hypothesis = words(*heard)
    assert match_words(reference, hypothesis) == [
        (reference[0], hypothesis[0]),
        (reference[3], hypothesis[2]),
        (reference[4], hypothesis[4]),
    ]
    assert match_words(reference, ()) == []


def test_medians_and_percentiles() -> None:
    spoken = [(f"word{chr(97 + n % 26)}{chr(97 + n // 26)}", float(n), n + 0.5) for n in range(101)]
    # The starts are off by 0 to 100 ms in both directions, the ends by 20 ms.
    heard = [(word, start + (-1) ** n * n / 1000, end - 0.02) for n, (word, start, end) in enumerate(spoken)]
    outcomes = [
        outcome("a", reference_words=words(*spoken), hypothesis_words=words(*heard)),
        # Nobody can hear a word of which normalising leaves nothing.
        outcome("b", reference_words=words(("missed", 0.0, 1.0), ("uh", 1.0, 1.1)), hypothesis=None),
        outcome("c", hypothesis_words=words(("untimed", 0.0, 1.0))),
    ]
    found = measure_timing(outcomes)
    assert found
    assert (found.words, found.matched) == (102, 101)
    errors = [found.start_median, found.start_p95, found.end_median, found.end_p95]
    assert errors == pytest.approx([50, 95, 20, 20])


def test_without_times_there_is_no_figure() -> None:
    assert measure_timing([outcome(hypothesis_words=words(("a", 0.0, 0.1)))]) is None
    assert isinstance(
        measure_timing([outcome(reference_words=words(("a", 0, 1)), hypothesis_words=words(("A", 0, 1)))]), TimingErrors
    )
