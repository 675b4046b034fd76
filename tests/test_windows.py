"""Cutting long recordings: every moment kept once, ends where nobody speaks, every word given once."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audio_files import tone
from parakeet_worker.audio.windows import Cutting, Stretch, cut
from parakeet_worker.model.hypothesis import Hypothesis
from parakeet_worker.model.stitching import stitch
from parakeet_worker.model.timestamps import Token

RATE = 16_000
CUTTING = Cutting(whole=60, shortest=20, longest=30, overlap=3)


def blocks(samples: np.ndarray, size: int = 100_000):
    return (samples[start : start + size] for start in range(0, len(samples), size))


def noise(seconds: float, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 0.1, int(seconds * RATE)).astype(np.float32)


def speech(seconds: float, pauses: list[float], length: float = 0.5) -> np.ndarray:
    """Noise, with pauses that begin at the given seconds."""
    samples = noise(seconds)
    for start in pauses:
        samples[int(start * RATE) : int((start + length) * RATE)] *= 1e-4
    return samples


def test_a_short_recording_stays_whole():
    samples = noise(60)
    ((stretch, window),) = cut(blocks(samples), CUTTING)
    assert stretch == Stretch(0.0, 0.0, math.inf)
    assert np.array_equal(window, samples)


@pytest.mark.parametrize("given_blocks", [[], [np.empty(0, np.float32)]])
def test_nothing_is_one_empty_window(given_blocks):
    ((stretch, window),) = cut(given_blocks, CUTTING)
    assert (stretch, len(window)) == (Stretch(), 0)


@settings(max_examples=40, deadline=None)
@given(
    seconds=st.floats(0, 40),
    size=st.integers(1_000, 200_000),
    whole=st.floats(1, 12),
    shortest=st.floats(1, 4),
    more=st.floats(0.5, 3),
    overlap=st.floats(0, 1),
)
def test_windows_tile_the_recording(seconds, size, whole, shortest, more, overlap):
    samples = noise(seconds)
    cutting = Cutting(whole, shortest, shortest + more, overlap)
    windows = list(cut(blocks(samples, size), cutting))
    assert windows[0][0].keep_from == 0
    assert windows[-1][0].keep_until == math.inf
    for (before, _), (after, _) in itertools.pairwise(windows):
        assert before.keep_until == after.keep_from
        assert shortest - 0.03 <= before.keep_until - before.keep_from <= shortest + more
        assert after.keep_from - after.start == pytest.approx(overlap, abs=1e-3)
    for stretch, window in windows:
        start = round(stretch.start * RATE)
        assert np.array_equal(window, samples[start : start + len(window)])
        end = min(stretch.keep_until + overlap, len(samples) / RATE)
        assert stretch.start + len(window) / RATE == pytest.approx(end, abs=1e-3)


def test_a_window_ends_in_the_first_pause_after_its_shortest_length():
    samples = speech(100, [10, 22, 25, 47.5, 60])
    ends = [stretch.keep_until for stretch, _ in cut(blocks(samples), CUTTING)]
    assert ends[0] == pytest.approx(22.25, abs=0.05)
    assert ends[1] == pytest.approx(47.75, abs=0.05)


def test_without_a_pause_it_ends_where_it_is_quietest():
    samples = noise(100)
    samples[int(27 * RATE) : int(27.4 * RATE)] *= 0.3
    first, *_ = cut(blocks(samples), CUTTING)
    assert first[0].keep_until == pytest.approx(27.2, abs=0.1)


def test_the_stop_of_a_consonant_is_no_pause():
    samples = speech(100, [21.0], length=0.12)
    samples[int(28 * RATE) : int(28.5 * RATE)] *= 1e-4
    first, *_ = cut(blocks(samples), CUTTING)
    assert first[0].keep_until == pytest.approx(28.25, abs=0.05)


@pytest.mark.parametrize("samples", [np.zeros(100 * RATE, np.float32), tone(100), tone(100) * 0 + 1e-30])
def test_silence_and_tones_are_cut_too(samples):
    windows = list(cut(blocks(samples), CUTTING))
    assert 3 <= len(windows) <= 5
    assert all(len(window) <= 36 * RATE for _, window in windows)


def test_no_more_is_held_than_a_window_needs():
    given_seconds = 0.0

    def counted():
        nonlocal given_seconds
        for block in blocks(noise(300), RATE):
            given_seconds += 1
            yield block

    for stretch, _ in itertools.islice(cut(counted(), CUTTING), 5):
        assert given_seconds <= max(61, stretch.start + 40)


@pytest.mark.parametrize("lengths", [(20, 10, 3), (20, 20, 3), (2, 30, 3), (20, 30, -1)])
def test_contradictory_lengths_are_refused(lengths):
    with pytest.raises(ValueError, match="in this order"):
        Cutting(60, *lengths)


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


def hear(stretch: Stretch, end: float, shift: float = 0.0, words=WORDS) -> Hypothesis:
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
def test_every_word_is_given_once(seam, shift):
    first, second = Stretch(0.0, 0.0, seam), Stretch(seam - 3, seam, math.inf)
    joined = stitch([(first, hear(first, seam + 3)), (second, hear(second, 16, shift))])
    assert joined.text == " ".join(text for text, _ in WORDS)
    starts = [token.start for token in joined.tokens]
    assert starts == sorted(starts)
    assert "".join(token.piece for token in joined.tokens).replace("▁", " ").strip() == joined.text


def test_a_word_that_is_said_twice_is_given_twice():
    words = [("that", 9.75), ("that", 10.1), ("is", 10.5)]
    first, second = Stretch(0.0, 0.0, 9.9), Stretch(6.9, 9.9, math.inf)
    joined = stitch([(first, hear(first, 12.9, words=words)), (second, hear(second, 16, words=words))])
    assert joined.text == "that that is"


def test_a_mark_that_comes_late_stays_with_its_word():
    tokens = (Token("▁so", 4.4, 4.6), Token(".", 6.0, 6.0))
    joined = stitch(
        [(Stretch(0.0, 0.0, 5.0), Hypothesis("so.", tokens)), (Stretch(2.0, 5.0, math.inf), Hypothesis("", ()))]
    )
    assert joined.text == "so."


def test_one_window_is_as_it_was():
    hypothesis = Hypothesis("as  it is", ())
    assert stitch([(Stretch(), hypothesis)]) is hypothesis
    assert stitch([(Stretch(0, 0, 5), Hypothesis("", ())), (Stretch(2, 5), Hypothesis("", ()))]) == Hypothesis("", ())
