"""Characters, words and sentences from tokens."""

import math

import pytest

from parakeet_worker.asr.alignment import Span, align, mean_confidence
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


def segments(*words: tuple[str, float, float], pause: float = math.inf) -> list[tuple[str, float, float]]:
    tokens = [Token(f"▁{text}", start, end) for text, start, end in words]
    aligned = align(" ".join(text for text, _, _ in words), tokens, words[-1][2], pause)
    return [(segment.text, segment.start, segment.end) for segment in aligned.segments]


def test_a_segment_ends_before_a_long_pause() -> None:
    words = [("so", 0.0, 0.4), ("I", 2.4, 2.6), ("said.", 2.6, 3.0), ("no", 3.0, 3.2), ("more", 5.3, 5.6)]
    assert segments(*words, pause=2.0) == [("so I said.", 0.0, 3.0), ("no", 3.0, 3.2), ("more", 5.3, 5.6)]
    assert len(segments(*words, pause=1.9)) == 4
    assert len(segments(*words)) == 2


def test_a_pause_of_just_the_length_ends_no_segment() -> None:
    for frame in range(1, 1_000):
        words = [("so", (frame - 1) * 0.08, frame * 0.08), ("I", (frame + 5) * 0.08, (frame + 6) * 0.08)]
        assert len(segments(*words, pause=0.4)) == 1
        assert len(segments(*words, pause=0.399)) == 2


def test_no_segment_lasts_more_than_30_seconds() -> None:
    """It ends at the longest pause of its second half; the end of a clause counts as half a second."""
    words = [(f"w{index}", index * 0.5, index * 0.5 + 0.4) for index in range(400)]
    words[50] = ("w50,", 25.0, 25.4)
    words[10] = ("w10,", 5.0, 5.4)
    words[100:] = [(text, start + 0.2, end + 0.2) for text, start, end in words[100:]]
    found = segments(*words)
    assert [text.split()[-1] for text, _, _ in found][:2] == ["w50,", "w99"]
    assert " ".join(text for text, _, _ in found) == " ".join(text for text, _, _ in words)
    assert all(14 < end - start <= 30 for _, start, end in found[:-1])


def test_a_word_of_more_than_30_seconds_is_a_segment_that_is_cut() -> None:
    found = segments(("a", 0.0, 0.5), ("long", 0.5, 40.0), ("word", 40.0, 41.0))
    assert found == [("a", 0.0, 0.5), ("long", 0.5, 30.499), ("word", 40.0, 41.0)]


def test_confidence_of_words_and_segments() -> None:
    tokens = [
        Token("▁Pa", 0.0, 0.1, 0.9),
        Token("ra", 0.1, 0.2, 0.5),
        Token(".", 0.2, 0.3, 0.1),
        Token("▁No", 0.5, 0.6, 0.8),
    ]
    aligned = align("Para. No", tokens, 1.0)
    assert [word.confidence for word in aligned.words] == pytest.approx([0.5, 0.8])
    assert [segment.confidence for segment in aligned.segments] == pytest.approx([0.5, 0.8])
    assert mean_confidence(aligned.words) == pytest.approx(0.65)
    assert mean_confidence([]) is None


def test_without_confidence_there_is_none() -> None:
    aligned = align("No", [Token("▁No", 0.5, 0.6)], 1.0)
    assert aligned.words[0].confidence is None
    assert aligned.segments[0].confidence is None
