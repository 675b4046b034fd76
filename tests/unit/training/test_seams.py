from pathlib import Path

import numpy as np
import pytest
import soundfile

from parakeet_worker.audio.chunking import ChunkingConfig
from results import WordTime
from training.seams import JoinedClips, Transcribed, errors_by_word, find_seams, is_near, measure_joined, split_words


def said(text: str, start: float = 0.0) -> list[WordTime]:
    """Words of half a second each, one after the other."""
    return [
        WordTime(word, start + 0.5 * number, start + 0.5 * number + 0.5) for number, word in enumerate(text.split())
    ]


def test_words_are_compared_in_the_normalised_spelling() -> None:
    words = split_words([WordTime("I'm,", 0.0, 0.4), WordTime("uh", 0.5, 0.6), WordTime("Colour.", 0.7, 1.0)])
    assert words == [WordTime("i", 0.0, 0.4), WordTime("am", 0.0, 0.4), WordTime("color", 0.7, 1.0)]


@pytest.mark.parametrize(
    ("hypothesis", "errors"),
    [
        ("a b c d", [0, 0, 0, 0]),
        ("a x c d", [0, 1, 0, 0]),
        ("a b d", [0, 0, 1, 0]),
        ("a b c d e f", [0, 0, 0, 2]),
        ("e a b c d", [1, 0, 0, 0]),
        ("", [1, 1, 1, 1]),
    ],
)
def test_errors_stand_at_their_words(hypothesis: str, errors: list[int]) -> None:
    assert errors_by_word(said("a b c d"), said(hypothesis)).tolist() == errors


@pytest.mark.parametrize(("start", "errors"), [(1.2, [1, 0]), (8.8, [0, 1])])
def test_added_word_is_an_error_of_the_nearer_word(start: float, errors: list[int]) -> None:
    reference = [WordTime("a", 0.0, 0.5), WordTime("b", 9.5, 10.0)]
    hypothesis = [reference[0], WordTime("x", start, start + 0.1), reference[1]]
    assert errors_by_word(reference, hypothesis).tolist() == errors


def test_near_is_decided_by_the_middle_of_a_word() -> None:
    words = [WordTime("a", 8.0, 8.4), WordTime("b", 8.4, 9.0), WordTime("c", 11.2, 11.8), WordTime("d", 29.0, 29.2)]
    assert is_near(words, [10.0, 30.0], 1.5).tolist() == [False, True, False, True]
    assert is_near(words, [], 1.5).tolist() == [False] * 4


def test_errors_near_seams_are_compared_with_the_same_words_alone() -> None:
    clips = [Transcribed(said("a b c d"), said("a b c x")), Transcribed(said("e f g h"), said("e f g h"))]
    # The order is 0, 1, 0, at 0, 2 and 4 s; the seam is at 4 s, between h and a.
    reference = [*said("a b c d"), *said("e f g h", 2.0), *said("a b c d", 4.0)]
    hypothesis = [*said("a b c x"), *said("e f g", 2.0), *said("a b c x", 4.0)]
    joined = JoinedClips((0, 1, 0), Transcribed(reference, hypothesis), [4.0])
    found = measure_joined(clips, [joined], near_seconds=1.0)
    assert (found.words, found.seams, found.words_near) == (12, 1, 4)
    assert (found.alone, found.joined) == (2 / 12, 3 / 12)
    assert (found.near_alone, found.near, found.elsewhere_alone, found.elsewhere) == (0, 1 / 4, 2 / 8, 2 / 8)
    assert found.beyond_alone.points == pytest.approx(100 / 12)
    assert found.near_beyond_elsewhere
    assert found.near_beyond_elsewhere.points == pytest.approx(0)
    assert found.caused_by_seams
    assert found.caused_by_seams.points == pytest.approx(25)
    assert found.beyond_alone.low == pytest.approx(0)  # if only the first sentence is drawn
    assert found.beyond_alone.high == pytest.approx(25)


def test_recordings_are_measured_together() -> None:
    clips = [Transcribed(said("a b"), said("a b")), Transcribed(said("c d"), said("c d"))]
    one = JoinedClips((0, 1), Transcribed(said("a b c d"), said("x b c d")), [0.0])
    other = JoinedClips((1,), Transcribed(said("c d"), said("c d x")), [100.0])
    found = measure_joined(clips, [one, other], near_seconds=0.5)
    assert (found.words, found.seams, found.words_near) == (6, 2, 1)
    assert (found.joined, found.near, found.elsewhere) == (2 / 6, 1, 1 / 5)
    assert found.caused_by_seams
    assert found.caused_by_seams.points == pytest.approx(80)


def test_without_seams_nothing_is_near_one() -> None:
    clip = Transcribed(said("a b"), said("a b"))
    found = measure_joined([clip], [JoinedClips((0,), clip, [])])
    assert (found.words_near, found.near_beyond_elsewhere, found.caused_by_seams) == (0, None, None)


def test_seams_are_where_the_worker_divides(tmp_path: Path) -> None:
    samples = np.random.default_rng(1).uniform(-0.5, 0.5, 16_000 * 30)
    samples[16_000 * 12 : 16_000 * 13] = 0
    path = tmp_path / "joined.flac"
    soundfile.write(path, samples, 16_000)
    seams = find_seams(path, ChunkingConfig(20.0, 10.0, 15.0, 2.0))
    assert len(seams) == 2
    assert seams[0] == pytest.approx(12.5, abs=0.03)
