"""Merging the hypotheses of windows."""

import math
from typing import Any

import pytest

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
