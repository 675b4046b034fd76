"""Merging the hypotheses of windows."""

import math
from typing import Any

import pytest

from parakeet_worker.asr.alignment import align
from parakeet_worker.asr.merging import merge_windows
from parakeet_worker.asr.types import Hypothesis, Token, WindowSpan

WORDS = [
    ("Tea", 0.5),
    ("is", 0.9),
    ("served.", 1.4),
    ("Is", 9.6),
    ("it?", 9.9),
    ("It", 10.2),
    ("is.", 10.6),
    ("So", 15.0),
]


def hear(stretch: WindowSpan, end: float, shift: float = 0.0, words: Any = WORDS) -> Hypothesis:
    """What a model hears in a stretch that ends at `end`: whole words, each 0.2 s long, in tokens of one letter."""
    tokens: list[Token] = []
    heard = [(text, at + shift - stretch.start) for text, at in words if stretch.start <= at - 0.1 and at + 0.1 <= end]
    for text, at in heard:
        letters = [f"▁{text[0]}", *text[1:]]
        step = 0.2 / len(letters)
        tokens += [Token(x, at - 0.1 + i * step, at - 0.1 + (i + 1) * step) for i, x in enumerate(letters)]
    return Hypothesis(" ".join(text for text, _ in heard), tuple(tokens))


@pytest.mark.parametrize("seam", [5.0, 9.6, 9.75, 9.9, 10.0, 10.2, 10.31, 12.0])
@pytest.mark.parametrize("shift", [-0.12, 0.0, 0.12])
def test_every_word_is_given_once(seam: Any, shift: Any) -> None:
    first, second = WindowSpan(0.0, 0.0, seam), WindowSpan(seam - 3, seam, math.inf)
    joined = merge_windows([(first, hear(first, seam + 3)), (second, hear(second, 16, shift))])
    assert joined.text == " ".join(text for text, _ in WORDS)
    starts = [token.start for token in joined.tokens]
    assert starts == sorted(starts)
    assert "".join(token.piece for token in joined.tokens).replace("▁", " ").strip() == joined.text


def test_a_word_that_is_said_twice_is_given_twice() -> None:
    words = [("that", 9.75), ("that", 10.1), ("is", 10.5)]
    first, second = WindowSpan(0.0, 0.0, 9.9), WindowSpan(6.9, 9.9, math.inf)
    joined = merge_windows([(first, hear(first, 12.9, words=words)), (second, hear(second, 16, words=words))])
    assert joined.text == "that that is"


def test_a_mark_that_comes_late_stays_with_its_word() -> None:
    tokens = (Token("▁so", 4.4, 4.6), Token(".", 6.0, 6.0))
    joined = merge_windows(
        [(WindowSpan(0.0, 0.0, 5.0), Hypothesis("so.", tokens)), (WindowSpan(2.0, 5.0, math.inf), Hypothesis("", ()))]
    )
    assert joined.text == "so."


def test_one_window_is_as_it_was() -> None:
    hypothesis = Hypothesis("as  it is", ())
    assert merge_windows([(WindowSpan(), hypothesis)]) is hypothesis
    assert merge_windows(
        [(WindowSpan(0, 0, 5), Hypothesis("", ())), (WindowSpan(2, 5), Hypothesis("", ()))]
    ) == Hypothesis("", ())


def test_no_window_has_no_words() -> None:
    assert merge_windows([]) == Hypothesis("", ())


def test_the_only_window_with_sound_is_timed_from_the_start_of_the_recording() -> None:
    heard = Hypothesis("so it is", (Token("▁so", 0.1, 0.3), Token("▁it", 3.1, 3.3), Token("▁is", 9.0, 9.2)))
    merged = merge_windows([(WindowSpan(20.0, 23.0, 28.0), heard)])
    assert merged.text == "it"
    assert merged.tokens == (Token("▁it", pytest.approx(23.1), pytest.approx(23.3)),)  # type: ignore[arg-type]


def test_windows_with_silence_between_them_have_no_word_in_common() -> None:
    first = WindowSpan(0.0, 0.0, 10.0), Hypothesis("go", (Token("▁go", 9.8, 9.98),))
    second = WindowSpan(10.1, 10.1, math.inf), Hypothesis("go", (Token("▁go", 0.02, 0.2),))
    assert merge_windows([first, second]).text == "go go"


def heard(*pieces: str) -> Hypothesis:
    """A hypothesis of pieces, each a second after the other and half a second long."""
    tokens = tuple(Token(piece, index + 0.25, index + 0.75) for index, piece in enumerate(pieces))
    return Hypothesis("".join(pieces).replace("▁", " ").strip(), tokens)


def texts(hypothesis: Hypothesis) -> list[str]:
    """The text of a hypothesis: its own, and those of its pieces and its timestamps, which must be the same."""
    aligned = align(hypothesis.text, hypothesis.tokens, 100.0)
    assert "".join(token.piece for token in hypothesis.tokens).replace("▁", " ").strip() == hypothesis.text
    assert " ".join(span.text for span in aligned.words) == hypothesis.text
    assert " ".join(span.text for span in aligned.segments) == hypothesis.text
    assert "".join(span.text for span in aligned.chars) == hypothesis.text
    return [span.text for span in aligned.segments]


@pytest.mark.parametrize(
    ("pieces", "segments"),
    [
        (["▁hel", "lo", "▁.", "▁world"], ["hello.", "world"]),
        (["▁hel", "lo", "▁", ".", "▁world"], ["hello.", "world"]),
        (["▁hello", "▁.", "▁.", "▁world", "▁?"], ["hello.", "world?"]),
        (["▁hello.", "▁.", "▁world"], ["hello.", "world"]),
        (["▁hello", "▁!", "▁?", "▁world"], ["hello!?", "world"]),
        (["▁.", "▁hello", "▁,", "▁world"], ["hello, world"]),
        (["▁", ".", "▁,", "▁hello"], ["hello"]),
        (["▁this", "▁&", "▁that", "▁%"], ["this & that %"]),
        (["▁this", "▁⁇", "▁that"], ["this ⁇ that"]),
        (["▁well", "▁-", "▁you", "▁–", "▁know"], ["well - you – know"]),
        (["▁."], []),
        (["▁.", "▁."], []),
    ],
)
def test_a_mark_that_stands_alone_joins_the_word_before_it(pieces: Any, segments: Any) -> None:
    assert texts(merge_windows([(WindowSpan(), heard(*pieces))])) == segments


def test_a_mark_that_stands_alone_takes_the_end_of_its_word() -> None:
    merged = merge_windows([(WindowSpan(), heard("▁hello", "▁", ".", "▁world"))])
    words = align(merged.text, merged.tokens, 100.0).words
    assert [(word.text, word.start, word.end) for word in words] == [("hello.", 0.25, 0.75), ("world", 3.25, 3.75)]


@pytest.mark.parametrize(
    ("first", "second", "text"),
    [
        (["▁hello"], ["▁.", "▁world"], "hello. world"),
        (["▁hello", "."], ["▁.", "▁world"], "hello. world"),
        (["▁.", "▁hello"], ["▁,", "▁."], "hello,."),
        (["▁hello", "."], ["▁,", "▁world"], "hello. world"),
        (["▁hello", "!"], ["▁;", "▁world"], "hello! world"),
        (["▁."], ["▁.", "▁world"], "world"),
        ([], ["▁.", "▁world"], "world"),
        (["▁."], ["▁?"], ""),
    ],
)
def test_a_mark_at_the_start_of_a_window_joins_the_word_before_the_window(first: Any, second: Any, text: Any) -> None:
    windows = [(WindowSpan(0.0, 0.0, 10.0), heard(*first)), (WindowSpan(10.0, 10.0, math.inf), heard(*second))]
    merged = merge_windows(windows)
    assert merged.text == text
    texts(merged)


def test_a_mark_that_stands_alone_and_comes_late_stays_with_its_word() -> None:
    first = WindowSpan(0.0, 0.0, 5.0), Hypothesis("so .", (Token("▁so", 4.4, 4.6), Token("▁.", 6.0, 6.0)))
    second = WindowSpan(2.0, 5.0, math.inf), Hypothesis("it", (Token("▁it", 5.0, 5.2),))
    assert merge_windows([first, second]).text == "so. it"


def test_a_word_without_tokens_stays_with_the_one_before_it() -> None:
    first = WindowSpan(0.0, 0.0, 5.0), Hypothesis("so it", (Token("▁so▁it", 1.0, 1.5),))
    second = WindowSpan(5.0, 5.0, math.inf), Hypothesis("is", (Token("▁is", 1.0, 1.5),))
    assert merge_windows([first, second]).text == "so it is"
