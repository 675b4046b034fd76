"""What is shown of an utterance: which word's times a scored word has, and which stretch of a long recording."""

import itertools
from collections.abc import Sequence

import pytest

from excerpt import Excerpt, Kind, choose_excerpt
from results import Outcome, WordTime
from scoring import align


def outcome(
    reference: Sequence[WordTime], hypothesis: Sequence[WordTime], duration: float | None, *, is_timed: bool = True
) -> Outcome:
    texts = [" ".join(word.word for word in words) for words in (reference, hypothesis)]
    times = (tuple(reference), tuple(hypothesis)) if is_timed else ((), ())
    return Outcome("id", "/audio.wav", texts[0], duration, texts[1], None, *times, 1.0, 1.0)


def spoken(text: str, step: float = 1.0) -> list[WordTime]:
    """The words of a text, each half a step long."""
    return [WordTime(word, index * step, (index + 0.5) * step) for index, word in enumerate(text.split())]


# A thousand words that normalisation leaves alone.
DIFFERENT = [f"z{''.join(letters)}" for letters in itertools.product("abcdefghij", repeat=3)]


def choose(outcome: Outcome) -> Excerpt:
    return choose_excerpt(outcome, align(outcome.reference, outcome.hypothesis or ""))


def test_each_pair_has_its_kind_and_its_words() -> None:
    found = choose(outcome(spoken("The cat sat down."), spoken("a cat down there"), 5.0))
    assert [(pair.kind, pair.reference_index, pair.hypothesis_index) for pair in found.pairs] == [
        (Kind.SUBSTITUTED, 0, 0),
        (Kind.CORRECT, 1, 1),
        (Kind.DELETED, 2, None),
        (Kind.CORRECT, 3, 2),
        (Kind.INSERTED, None, 3),
    ]
    assert [pair.at for pair in found.pairs] == [0.0, 1.0, 2.0, 2.0, 3.0]
    assert (found.start, found.end, found.errors, found.is_whole, found.has_times) == (0.0, 5.0, 3, True, True)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        # The words as they are scored, and which word of the text each is of.
        ("We don't know", [("we", 0), ("do", 1), ("not", 1), ("know", 2)]),
        ("the twenty one birds", [("the", 0), ("21", 1), ("birds", 3)]),
        ("the twenty-one birds", [("the", 0), ("21", 1), ("birds", 2)]),
        ("so uh we know", [("so", 0), ("we", 2), ("know", 3)]),
        ("a well-known colour", [("a", 0), ("well", 1), ("known", 1), ("color", 2)]),
        ("It\u2019s Mr. Smith", [("it", 0), ("s", 0), ("mister", 1), ("smith", 2)]),
        ("- he said, -", [("he", 1), ("said", 2)]),
    ],
)
def test_normalised_words_keep_the_times_of_their_words(text: str, expected: list[tuple[str, int]]) -> None:
    found = choose(outcome(spoken(text), spoken(text), 9.0))
    assert [(pair.reference, pair.reference_index) for pair in found.pairs] == expected
    assert [(pair.hypothesis, pair.hypothesis_index) for pair in found.pairs] == expected


def test_words_without_times_are_between_their_neighbours() -> None:
    heard = [WordTime("two", 1.0, 1.2), WordTime("fish", 4.0, 4.2)]
    whole = Outcome("id", "/a", "two red blue fish", 6.0, "two fish", None, (), tuple(heard), 1.0, 1.0)
    assert [pair.at for pair in choose(whole).pairs] == [1.0, 2.0, 3.0, 4.0]


def test_no_word_is_before_the_one_in_front_of_it() -> None:
    reference = [WordTime("two", 1.0, 1.2), WordTime("red", 5.0, 5.2), WordTime("fish", 6.0, 6.2)]
    heard = [WordTime("two", 1.0, 1.2), WordTime("fish", 4.0, 4.2)]
    assert [pair.at for pair in choose(outcome(reference, heard, 7.0)).pairs] == [1.0, 5.0, 5.0]


def test_without_any_times_they_are_guessed_and_said_to_be() -> None:
    found = choose(outcome(spoken("red green blue white"), spoken("red green"), 8.0, is_timed=False))
    assert [pair.at for pair in found.pairs] == [0.0, 2.0, 4.0, 6.0]
    assert not found.has_times


@pytest.mark.parametrize("is_timed", [True, False])
def test_the_stretch_with_the_most_errors_is_shown(is_timed: bool) -> None:
    words = spoken(" ".join(DIFFERENT))
    wrong = {5, 6, 7, 300, 310, 320, 330, 700}
    heard = [WordTime("other" if index in wrong else w.word, w.start, w.end) for index, w in enumerate(words)]
    found = choose(outcome(words, heard, 1000.0, is_timed=is_timed))
    assert (found.start, found.end) == (285.0, 345.0)
    assert [pair.number for pair in found.pairs] == list(range(285, 345))
    assert (found.errors, found.is_whole) == (4, False)


@pytest.mark.parametrize(("wrong", "start"), [(0, 0.0), (999, 940.0)])
def test_a_stretch_stays_in_the_recording(wrong: int, start: float) -> None:
    words = spoken(" ".join(DIFFERENT))
    heard = [WordTime("other" if index == wrong else w.word, w.start, w.end) for index, w in enumerate(words)]
    found = choose(outcome(words, heard, 1000.0))
    assert (found.start, found.end, found.errors) == (start, start + 60, 1)


def test_what_is_no_longer_than_a_minute_is_whole() -> None:
    words = spoken("red green blue", 20.0)
    assert choose(outcome(words, [], 60.0)).is_whole
    assert not choose(outcome(words, [], 60.1)).is_whole


def test_a_length_that_is_not_known_is_that_of_the_words() -> None:
    assert choose(outcome(spoken("red green blue"), spoken("red green"), None)).end == 2.5
    assert choose(outcome(spoken("red green blue"), spoken("red green"), None, is_timed=False)).end > 0


def test_more_words_than_anyone_says_are_not_all_shown() -> None:
    found = choose(outcome([], spoken("word " * 10_000, 0.001), 10.0))
    assert len(found.pairs) == 600
    assert not found.is_whole


def test_nothing_said_and_nothing_heard_is_empty() -> None:
    assert choose(outcome([], [], 400.0)).pairs == ()
