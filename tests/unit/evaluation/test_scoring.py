import pytest
from hypothesis import given
from hypothesis import strategies as st

from scoring import Pair, WordErrors, align, align_words, count_errors, normalise

TEXTS = st.lists(st.sampled_from(["a", "b", "c", "d"]), max_size=12)


def distance(reference: list[str], hypothesis: list[str]) -> int:
    """The edit distance of two sequences, by the textbook."""
    row = list(range(len(hypothesis) + 1))
    for i, one in enumerate(reference, 1):
        before, row = row, [i]
        for j, other in enumerate(hypothesis, 1):
            row.append(min(before[j] + 1, row[j - 1] + 1, before[j - 1] + (one != other)))
    return row[-1]


@given(TEXTS, TEXTS)
def test_the_fewest_errors_are_counted(reference: list[str], hypothesis: list[str]) -> None:
    errors = count_errors(" ".join(reference), " ".join(hypothesis))
    assert errors.total == distance(reference, hypothesis)
    assert errors.words == len(reference)
    assert errors.insertions - errors.deletions == len(hypothesis) - len(reference)


@given(TEXTS, TEXTS)
def test_an_alignment_has_all_words_and_the_fewest_errors(reference: list[str], hypothesis: list[str]) -> None:
    pairs = align_words(reference, hypothesis)
    assert [pair.reference for pair in pairs if pair.reference is not None] == reference
    assert [pair.hypothesis for pair in pairs if pair.hypothesis is not None] == hypothesis
    assert sum(not pair.is_match for pair in pairs) == distance(reference, hypothesis)


def test_the_kinds_of_errors() -> None:
    assert count_errors("one small step for a man", "a small step for man kind") == WordErrors(1, 1, 1, 6)
    assert align("A small step.", "a tall step up") == (
        Pair("a", "a"),
        Pair("small", "tall"),
        Pair("step", "step"),
        Pair(None, "up"),
    )


@pytest.mark.parametrize(
    ("reference", "hypothesis"),
    [
        ("It's the colour of Mr. Brown's car.", "it is the color of mister brown is car"),
        ("twenty-one dollars", "$21"),
        ("uh we can't [laughs]", "We can not"),
        ("CAFÉ", "cafe"),
    ],
)
def test_what_the_leaderboard_takes_for_the_same(reference: str, hypothesis: str) -> None:
    assert normalise(reference) == normalise(hypothesis)
    assert count_errors(reference, hypothesis).total == 0


def test_the_rate_of_a_corpus_weighs_words_not_utterances() -> None:
    errors = count_errors("a b c d e f g h", "a b c d e f g h") + count_errors("a b", "")
    assert errors == WordErrors(0, 2, 0, 10)
    assert errors.rate == 0.2
    assert count_errors("", "a b") == WordErrors(0, 0, 2, 0)
    assert WordErrors(insertions=2).rate is None
