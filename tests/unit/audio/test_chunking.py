"""Chunking long recordings: every moment kept once, ends where nobody speaks, every word given once."""

import itertools
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audio_files import tone
from parakeet_worker.asr.types import WindowSpan
from parakeet_worker.audio.chunking import ChunkingConfig, chunk

RATE = 16_000
CUTTING = ChunkingConfig(whole=60, shortest=20, longest=30, overlap=3)


def blocks(samples: np.ndarray, size: int = 100_000) -> Any:
    return (samples[start : start + size] for start in range(0, len(samples), size))


def noise(seconds: float, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 0.1, int(seconds * RATE)).astype(np.float32)


def speech(seconds: float, pauses: list[float], length: float = 0.5) -> np.ndarray:
    """Noise, with pauses that begin at the given seconds."""
    samples = noise(seconds)
    for start in pauses:
        samples[int(start * RATE) : int((start + length) * RATE)] *= 1e-4
    return samples


def test_a_short_recording_stays_whole() -> None:
    samples = noise(60)
    ((stretch, window),) = chunk(blocks(samples), CUTTING)
    assert stretch == WindowSpan(0.0, 0.0, math.inf)
    assert np.array_equal(window, samples)


@pytest.mark.parametrize("given_blocks", [[], [np.empty(0, np.float32)]])
def test_nothing_is_one_empty_window(given_blocks: Any) -> None:
    ((stretch, window),) = chunk(given_blocks, CUTTING)
    assert (stretch, len(window)) == (WindowSpan(), 0)


@settings(max_examples=40)
@given(
    seconds=st.floats(0, 40),
    size=st.integers(1_000, 200_000),
    whole=st.floats(1, 12),
    shortest=st.floats(1, 4),
    more=st.floats(0.5, 3),
    overlap=st.floats(0, 1),
)
def test_windows_tile_the_recording(
    seconds: Any, size: Any, whole: Any, shortest: Any, more: Any, overlap: Any
) -> None:
    samples = noise(seconds)
    cutting = ChunkingConfig(whole, shortest, shortest + more, overlap)
    windows = list(chunk(blocks(samples, size), cutting))
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


def test_a_window_ends_in_the_first_pause_after_its_shortest_length() -> None:
    samples = speech(100, [10, 22, 25, 47.5, 60])
    ends = [stretch.keep_until for stretch, _ in chunk(blocks(samples), CUTTING)]
    assert ends[0] == pytest.approx(22.25, abs=0.05)
    assert ends[1] == pytest.approx(47.75, abs=0.05)


def test_without_a_pause_it_ends_where_it_is_quietest() -> None:
    samples = noise(100)
    samples[int(27 * RATE) : int(27.4 * RATE)] *= 0.3
    first, *_ = chunk(blocks(samples), CUTTING)
    assert first[0].keep_until == pytest.approx(27.2, abs=0.1)


def test_the_stop_of_a_consonant_is_no_pause() -> None:
    samples = speech(100, [21.0], length=0.12)
    samples[int(28 * RATE) : int(28.5 * RATE)] *= 1e-4
    first, *_ = chunk(blocks(samples), CUTTING)
    assert first[0].keep_until == pytest.approx(28.25, abs=0.05)


@pytest.mark.parametrize("samples", [np.zeros(100 * RATE, np.float32), tone(100), tone(100) * 0 + 1e-30])
def test_silence_and_tones_are_cut_too(samples: Any) -> None:
    windows = list(chunk(blocks(samples), CUTTING))
    assert 3 <= len(windows) <= 5
    assert all(len(window) <= 36 * RATE for _, window in windows)


def test_no_more_is_held_than_a_window_needs() -> None:
    given_seconds = 0.0

    def counted() -> Iterator[Any]:
        nonlocal given_seconds
        for block in blocks(noise(300), RATE):
            given_seconds += 1
            yield block

    for stretch, _ in itertools.islice(chunk(counted(), CUTTING), 5):
        assert given_seconds <= max(61, stretch.start + 40)


def test_what_is_no_longer_than_a_window_is_never_cut() -> None:
    assert ChunkingConfig(10, 20, 30, 3).longest_pass == 33
    assert ChunkingConfig(60, 20, 30, 3).longest_pass == 60
    assert len(list(chunk([np.zeros(33 * 16_000, np.float32)], ChunkingConfig(10, 20, 30, 3)))) == 1


@pytest.mark.parametrize("lengths", [(20, 10, 3), (20, 20, 3), (2, 30, 3), (20, 30, -1)])
def test_contradictory_lengths_are_refused(lengths: Any) -> None:
    with pytest.raises(ValueError, match="in this order"):
        ChunkingConfig(60, *lengths)
