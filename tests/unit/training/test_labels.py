import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.labels import FRAME, LONGEST_STEP, Steps, frames, steps
from training.recordings import Recording

BLANK = 53
MARK = 52  # the mark of a word's start as a token of its own, as a byte pair encoding may have it


class Letters:
    """A token for each letter, and others for a letter with the mark of a word's start before it."""

    def encode(self, text: str) -> list[int]:
        """A capital is encoded as the mark and the letter; "Ab" as three tokens."""
        first = [MARK, ord(text[0]) - ord("A") + 26] if text[0].isupper() else [ord(text[0]) - ord("a")]
        return first + [ord(letter) - ord("a") + 26 for letter in text[1:]]

    def id_to_piece(self, token: int) -> str:
        """The letter, with or without the mark."""
        if token == MARK:
            return "\N{LOWER ONE EIGHTH BLOCK}"
        letter = chr(ord("a") + token % 26)
        return letter if token >= 26 else f"\N{LOWER ONE EIGHTH BLOCK}{letter}"


def rows(samples: int, *words: tuple[str, float, float]) -> list[tuple[int, int, int, int]]:
    """Return frame, tokens said, label and duration of each decision."""
    made = steps(recording(samples, *words), Letters(), BLANK)
    return list(zip(*(column.tolist() for column in (made.frame, made.said, made.label, made.duration)), strict=True))


def recording(samples: int, *words: tuple[str, float, float]) -> Recording:
    return Recording(
        np.zeros(samples, np.float32), tuple(word[0] for word in words), tuple((word[1], word[2]) for word in words)
    )


A, B, C = 0, 27, 28  # "a" at the start of a word, "b" and "c" within it


def test_a_word_and_silence_around_it() -> None:
    assert rows(12_960, ("ab", 0.16, 0.48)) == [
        (0, 0, BLANK, 2),
        (1, 0, BLANK, 1),
        (2, 0, A, 2),
        (3, 1, BLANK, 1),
        (3, 0, A, 1),  # one frame late
        (4, 1, B, 2),
        (5, 2, BLANK, 4),
        (5, 1, B, 1),  # one frame late
        (6, 2, BLANK, 4),
        (7, 2, BLANK, 4),
        (8, 2, BLANK, 3),
        (9, 2, BLANK, 2),
        (10, 2, BLANK, 1),
    ]


def test_tokens_of_one_frame_have_no_duration_but_the_last() -> None:
    assert rows(1_440, ("abc", 0.0, 0.08)) == [(0, 0, A, 0), (0, 1, B, 1), (1, 2, C, 1)]
    # Within 20 ms all three start at the frame 1; the last takes a frame, though it ends before that.
    assert rows(4_000, ("abc", 0.08, 0.1)) == [
        (0, 0, BLANK, 1),
        (1, 0, A, 0),
        (1, 1, B, 0),
        (1, 2, C, 1),
        (2, 3, BLANK, 2),
        (2, 2, C, 1),  # one frame late
        (3, 3, BLANK, 1),
    ]


def test_a_long_token_takes_four_frames() -> None:
    found = rows(12_960, ("a", 0.0, 0.8))
    assert found[:3] == [(0, 0, A, 4), (1, 1, BLANK, 4), (1, 0, A, 4)]


def test_a_token_ends_before_a_pause() -> None:
    found = rows(16_000, ("a", 0.0, 0.16), ("a", 0.8, 0.96))
    assert found[0] == (0, 0, A, 2)
    assert (2, 1, BLANK, 4) in found
    assert (6, 1, BLANK, 4) in found
    assert (7, 1, BLANK, 3) in found
    assert (10, 1, A, 2) in found


def test_time_is_divided_by_letters_and_the_mark_alone_takes_none() -> None:
    made = steps(recording(16_000, ("Abc", 0.0, 0.96)), Letters(), BLANK)
    assert made.tokens.tolist() == [MARK, 26, B, C]
    on_time = [row for row in rows(16_000, ("Abc", 0.0, 0.96)) if row[2] != BLANK][:2]
    assert on_time == [(0, 0, MARK, 0), (0, 1, 26, 4)]
    assert {(4, 2, B, 4), (8, 3, C, 4)} <= set(rows(16_000, ("Abc", 0.0, 0.96)))


def test_a_word_at_the_very_end_is_said_at_the_last_frame() -> None:
    assert frames(1_600) == 2
    assert rows(1_600, ("a", 0.095, 0.1)) == [(0, 0, BLANK, 1), (1, 0, A, 1)]
    assert rows(1_600, ("a", 0.16, 0.2)) == [(0, 0, BLANK, 1), (1, 0, A, 1)]


def test_an_empty_recording_has_blanks_alone() -> None:
    assert rows(6_400) == [(0, 0, BLANK, 4), (1, 0, BLANK, 4), (2, 0, BLANK, 3), (3, 0, BLANK, 2), (4, 0, BLANK, 1)]
    assert steps(recording(6_400), Letters(), BLANK).tokens.dtype == np.int64


@pytest.mark.parametrize(
    ("samples", "count"), [(0, 1), (1_280, 1), (1_439, 1), (1_440, 2), (16_000, 13), (640_000, 500)]
)
def test_frames(samples: int, count: int) -> None:
    assert frames(samples) == count


@st.composite
def recordings(draw: st.DrawFn) -> Recording:
    words = []
    now = draw(st.floats(0, 1))
    for _ in range(draw(st.integers(0, 6))):
        length = draw(st.floats(0.01, 0.8))
        words.append((draw(st.sampled_from("abcABC")) + draw(st.text("abc", max_size=5)), now, now + length))
        now += length + draw(st.sampled_from([0.0, 0.0, 0.05, 0.3, 1.0]))
    return recording(round(now * 16_000) + draw(st.integers(0, 16_000)), *words)


def table(made: Steps) -> dict[tuple[int, int], tuple[int, int]]:
    """Return label and duration for each frame and number of tokens said."""
    keys = list(zip(made.frame.tolist(), made.said.tolist(), strict=True))
    assert len(set(keys)) == len(keys)
    return dict(zip(keys, zip(made.label.tolist(), made.duration.tolist(), strict=True), strict=True))


def on_time(made: Steps) -> list[tuple[int, int, int]]:
    """Return frame, label and duration of the decisions that are not late, in order."""
    found = []
    said = 0
    for frame, before, label, duration in zip(made.frame, made.said, made.label, made.duration, strict=True):
        if before == said:
            found.append((int(frame), int(label), int(duration)))
            said += label != BLANK
        else:
            assert before == said - 1
            assert label != BLANK
    return found


@given(recordings())
def test_every_token_is_said_once_in_order_near_its_start(given: Recording) -> None:
    made = steps(given, Letters(), BLANK)
    tokens = [token for word in given.words for token in Letters().encode(word)]
    assert made.tokens.tolist() == tokens
    said = [(frame, label) for frame, label, _ in on_time(made) if label != BLANK]
    assert [label for _, label in said] == tokens
    first = 0
    for word, (start, _) in zip(given.words, given.times, strict=True):
        last = frames(len(given.samples)) - 1
        assert abs(said[first][0] - min(last, start / FRAME)) <= 0.5 + 1e-9
        first += len(Letters().encode(word))


@given(recordings())
def test_a_blank_lasts_until_the_next_token(given: Recording) -> None:
    made = steps(given, Letters(), BLANK)
    assert set(made.duration.tolist()) <= set(range(LONGEST_STEP + 1))
    found = on_time(made)
    starts = [frame for frame, label, _ in found if label != BLANK] + [frames(len(given.samples))]
    for frame, label, duration in found:
        following = min(start for start in starts if start > frame)
        if label == BLANK:
            assert duration == min(LONGEST_STEP, following - frame)
        else:
            assert frame + duration <= following


@given(recordings(), st.randoms(use_true_random=False))
def test_a_search_that_decides_so_says_exactly_the_tokens(given: Recording, draw: st.DataObject) -> None:
    """A greedy search takes the decisions of the table, and may go one frame too far wherever the table goes on."""
    made = steps(given, Letters(), BLANK)
    decisions = table(made)
    total = frames(len(given.samples))
    for slips in (False, True):
        frame, said = 0, list[int]()
        while frame < total:
            label, duration = decisions[frame, len(said)]
            if label != BLANK:
                said.append(label)
            frame += duration
            if slips and (frame + 1, len(said)) in decisions and draw.random() < 0.5:  # type: ignore[attr-defined]
                frame += 1
        assert frame == total
        assert said == made.tokens.tolist()
