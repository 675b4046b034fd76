import kaldialign
import numpy as np
import pytest

import compare as module
from compare import ComparisonError, compare, rate_interval
from outcomes import outcome
from results import Outcome
from scoring import count_errors

WORDS = ["ten", "boats", "sail", "past", "our", "quiet", "town"]


def corpus(rate: float, seed: int, count: int = 150) -> list[Outcome]:
    """Utterances of which a part of the words is misheard."""
    draw, same = np.random.default_rng(seed), np.random.default_rng(0)
    outcomes = []
    for number in range(count):
        reference = [WORDS[index] for index in same.integers(len(WORDS), size=int(same.integers(3, 20)))]
        heard = [word if draw.random() > rate else "wrong" for word in reference]
        outcomes.append(outcome(f"{number}", " ".join(reference), " ".join(heard)))
    return outcomes


def test_a_large_difference_is_clear() -> None:
    found = compare(corpus(0.2, 1), corpus(0.1, 2))
    assert found.first == pytest.approx(0.2, abs=0.03)
    assert found.second == pytest.approx(0.1, abs=0.03)
    assert found.low < found.difference < found.high < 0
    assert found.improvement == 1
    assert found.p_value == pytest.approx(2 / 10_001)


def test_two_draws_of_the_same_rate_do_not_differ() -> None:
    found = compare(corpus(0.1, 1), corpus(0.1, 2))
    assert found.low < 0 < found.high
    assert found.p_value > 0.05


def test_a_result_and_itself() -> None:
    found = compare(corpus(0.1, 1), corpus(0.1, 1)[::-1])
    assert (found.difference, found.low, found.high, found.improvement, found.p_value) == (0, 0, 0, 0, 1)


def test_chance_alone_is_called_clear_about_once_in_twenty() -> None:
    pairs = [(corpus(0.1, number, 30), corpus(0.1, 1000 + number, 30)) for number in range(40)]
    clear = sum(compare(*pair, resamples=400).p_value < 0.05 for pair in pairs)
    assert clear <= 6


def test_another_program_says_the_same() -> None:
    first, second = corpus(0.12, 1), corpus(0.1, 2)
    texts = [[each.reference.split() for each in first]]
    texts += [[str(each.hypothesis).split() for each in outcomes] for outcomes in (first, second)]
    theirs = kaldialign.bootstrap_wer_ci(*texts, replications=10_000, seed=1)["p_s2_improv_over_s1"]
    assert compare(first, second).improvement == pytest.approx(theirs, abs=0.01)


def test_the_interval_is_that_of_the_theory() -> None:
    """The standard error of a ratio of sums, which a normal distribution makes an interval of."""
    errors = [count_errors(each.reference, str(each.hypothesis)) for each in corpus(0.12, 1, 600)]
    words = sum(each.words for each in errors)
    rate = sum(each.total for each in errors) / words
    deviation = np.sqrt(sum((each.total - rate * each.words) ** 2 for each in errors)) / words
    assert rate_interval(errors) == pytest.approx((rate - 1.96 * deviation, rate + 1.96 * deviation), abs=0.001)
    assert rate_interval([count_errors("", "a")]) is None


def test_a_failed_utterance_has_missed_all_words() -> None:
    first, second = corpus(0.0, 1, 4), corpus(0.0, 1, 4)
    second[1] = outcome("1", second[1].reference, None)
    found = compare(first, second)
    assert found.second == pytest.approx(len(second[1].reference.split()) / found.words)


def test_utterances_are_drawn_in_parts_where_there_are_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_DRAWN", 7 * 40)
    found = compare(corpus(0.2, 1, 40), corpus(0.1, 2, 40), resamples=1000)
    assert found.p_value == pytest.approx(2 / 1001, abs=0.01)


def test_only_results_of_the_same_utterances_are_compared() -> None:
    with pytest.raises(ComparisonError, match=r"0, 1, 2 and 7 more only in the first, and x only in the second"):
        compare(corpus(0, 1, 10), [outcome("x", "a", "a")])
    with pytest.raises(ComparisonError, match="the references differ: those of a"):
        compare([outcome("a", "one", "one")], [outcome("a", "two", "two")])
    with pytest.raises(ComparisonError, match="only in the first, and https://h/a only in the second") as raised:
        compare([outcome("data:audio/flac;base64,abcd", "a", "a")], [outcome("https://me:pw@h/a?key=1", "a", "a")])
    assert not any(secret in str(raised.value) for secret in ("abcd", "pw", "key"))
    with pytest.raises(ComparisonError, match="there are no words"):
        compare([outcome("a", "", "one")], [outcome("a", "", "")])
