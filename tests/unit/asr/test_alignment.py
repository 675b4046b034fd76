"""Characters, words and sentences from tokens."""

import pytest

from parakeet_worker.asr.alignment import Span, align
from parakeet_worker.asr.types import Token


def test_words_sentences_and_characters() -> None:
    tokens = [Token("▁Ye", 0.1, 0.3), Token("s", 0.3, 0.4), Token(".", 1.2, 1.4), Token("▁No", 2.0, 2.2)]
    aligned = align("Yes. No", tokens, 3.0)
    assert aligned.words == (Span("Yes.", 0.1, 0.4), Span("No", 2.0, 2.2))
    assert aligned.segments == (Span("Yes.", 0.1, 0.4), Span("No", 2.0, 2.2))
    assert [char.text for char in aligned.chars] == list("Yes. No")
    assert [char.start for char in aligned.chars] == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.4, 2.0, 2.1])
    assert [char.end for char in aligned.chars] == pytest.approx([0.2, 0.3, 0.4, 0.4, 2.0, 2.1, 2.2])


def test_silence_has_no_times() -> None:
    assert align("", [], 1.0).words == ()


def test_no_time_passes_the_end_of_the_audio() -> None:
    aligned = align("Go on", [Token("▁Go", 0.8, 1.2), Token("▁on", 1.2, 1.6)], 1.0)
    assert aligned.words == (Span("Go", 0.8, 1.0), Span("on", 1.0, 1.0))


def test_a_lone_space_token_belongs_to_the_next_word() -> None:
    aligned = align("a zoo", [Token("▁a", 0.0, 0.1), Token("▁", 0.2, 0.3), Token("zoo", 0.3, 0.5)], 1.0)
    assert aligned.words[1] == Span("zoo", 0.2, 0.5)


def test_a_spoken_mark_keeps_its_time() -> None:
    aligned = align("50%", [Token("▁50", 0.0, 0.4), Token("%", 0.4, 0.9)], 1.0)
    assert aligned.words == (Span("50%", 0.0, 0.9),)


def test_a_space_before_punctuation_that_the_text_leaves_out() -> None:
    aligned = align("Oh, no", [Token("▁Oh", 0.0, 0.2), Token("▁,", 0.5, 0.6), Token("▁no", 0.8, 1.0)], 2.0)
    assert aligned.words == (Span("Oh,", 0.0, 0.2), Span("no", 0.8, 1.0))


def test_a_text_that_does_not_fit_its_tokens_still_has_times() -> None:
    aligned = align("abcd ef", [Token("▁ab", 0.0, 0.2)], 1.0)
    assert [word.text for word in aligned.words] == ["abcd", "ef"]
