from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from tone_voice import heard, pitch, tone_corpus
from training.recordings import Composer, Mix, Recording, cut_out, lengths
from training.voice import SAMPLE_RATE

CORPUS = tone_corpus(["a-first", "b-other", "c-other"], 12)
# Speech alone, not changed by a room, a background or a channel.
CLEAN = Mix(empty=0, cut=0, background=0, room=0, channel=0, other_pitch=0)


def compose(mix: Mix, seconds: float, seed: int, alone: bool = False) -> Recording:
    return Composer(CORPUS, "a-first", mix).compose(seconds, np.random.default_rng(seed), alone)


def root_mean_square(samples: np.ndarray) -> float:
    return float(np.sqrt(np.mean(samples**2))) if len(samples) else 0.0


def part(recording: Recording, start: float, end: float) -> np.ndarray:
    return recording.samples[round(start * SAMPLE_RATE) : round(end * SAMPLE_RATE)]


@pytest.mark.parametrize(
    ("mix", "count"),
    [(Mix(channel=0), 16), (Mix(empty=0, cut=1, channel=0), 16), (Mix(empty=0, cut=0, channel=1), 4)],
    ids=["mixed", "cut", "channel"],
)
def test_words_lie_in_the_recording_and_it_is_not_too_long(mix: Mix, count: int) -> None:
    for seed in range(count):
        seconds = (2.5, 4.0, 8.0, 20.0)[seed % 4]
        recording = compose(mix, seconds, seed)
        length = len(recording.samples) / SAMPLE_RATE
        assert length <= seconds + 1 / SAMPLE_RATE  # a cut is rounded at both ends
        assert recording.samples.dtype == np.float32
        assert np.isfinite(recording.samples).all()
        assert len(recording.words) == len(recording.times)
        bounds = [time for times in recording.times for time in times]
        assert bounds == sorted(bounds)
        assert not bounds or (bounds[0] >= 0 and bounds[-1] <= length + 1 / SAMPLE_RATE)


def test_each_word_is_heard_where_its_times_say() -> None:
    for seed in range(9):
        recording = compose(CLEAN, (4.0, 12.0, 25.0)[seed % 3], seed)
        assert recording.words
        outside = recording.samples.copy()
        for word, (start, end) in zip(recording.words, recording.times, strict=True):
            assert heard(part(recording, start, end)) == word
            assert root_mean_square(part(recording, start, end)) > 0.07  # 0.5 as a sine wave, at most 12 dB lower
            outside[round(start * SAMPLE_RATE) - 1 : round(end * SAMPLE_RATE) + 1] = 0
        assert np.abs(outside).max() < 1e-3


def test_a_voice_of_another_pitch_speaks_faster_or_slower_and_is_heard_where_its_times_say() -> None:
    factors = []
    for seed in range(9):
        recording = compose(replace(CLEAN, other_pitch=1, change_of_voice=0), 12.0, seed)
        outside = recording.samples.copy()
        for word, (start, end) in zip(recording.words, recording.times, strict=True):
            tone = np.abs(np.fft.rfft(part(recording, start, end), SAMPLE_RATE)).argmax()
            factors.append(tone / pitch(word))
            assert root_mean_square(part(recording, start, end)) > 0.07
            outside[round(start * SAMPLE_RATE) - 8 : round(end * SAMPLE_RATE) + 8] = 0
        assert np.ptp(factors[-len(recording.words) :]) < 0.02
        assert np.abs(outside).max() < 0.02
    assert min(factors) < 0.9
    assert max(factors) > 1.1
    assert 1 / 1.21 < min(factors) <= max(factors) < 1.21


def test_each_word_of_a_cut_recording_is_heard_where_its_times_say() -> None:
    partly = 0
    for seed in range(15):
        recording = compose(replace(CLEAN, cut=1), 9.0, seed)
        for word, (start, end) in zip(recording.words, recording.times, strict=True):
            assert heard(part(recording, start, end)) == word
            assert root_mean_square(part(recording, start, end)) > 0.07
            partly += end - start < 0.19
    assert partly


def test_a_cut_keeps_a_word_of_which_most_is_left() -> None:
    samples = np.arange(5 * SAMPLE_RATE, dtype=np.float32)
    recording = Recording(samples, ("one", "two", "three", "four"), ((0.0, 1.0), (1.5, 2.5), (3.0, 4.0), (4.0, 4.5)))
    cut = cut_out(recording, 0.25, 3.5)
    np.testing.assert_array_equal(cut.samples, samples[4_000:60_000])
    assert cut.words == ("one", "two", "three")
    assert cut.times == ((0.0, 0.75), (1.25, 2.25), (2.75, 3.5))


@pytest.mark.parametrize(("start", "seconds"), [(0.5, 2.5), (0.35, 3.25), (0.4, 10.0)])
def test_a_cut_drops_a_word_of_which_little_is_left(start: float, seconds: float) -> None:
    recording = Recording(np.zeros(4 * SAMPLE_RATE, np.float32), ("one", "two", "three"), ((0, 1), (1.5, 2.5), (3, 4)))
    expected = ("two",) if seconds < 4 else ("two", "three")
    assert cut_out(recording, start, seconds).words == expected


def test_a_cut_of_what_is_shorter_ends_with_it() -> None:
    recording = Recording(np.zeros(2 * SAMPLE_RATE, np.float32), ("one",), ((0.5, 1.5),))
    assert len(cut_out(recording, 1.0, 5.0).samples) == SAMPLE_RATE
    assert cut_out(recording, 3.0, 5.0).words == ()


def test_nobody_speaks_in_an_empty_recording() -> None:
    silent = 0
    for seed in range(10):
        recording = compose(Mix(empty=1, channel=0), 3.0, seed)
        assert not recording.words
        assert not recording.times
        assert len(recording.samples) == 3 * SAMPLE_RATE
        # 15 dB below 0.05, and a room may double it.
        assert root_mean_square(recording.samples) < 0.02
        silent += not recording.samples.any()
    assert 0 < silent < 10


def test_a_short_recording_has_one_sentence_and_a_long_one_several() -> None:
    sentences = {sentence.words for sentence in CORPUS}
    for seed in range(10):
        assert compose(CLEAN, 5.0, seed).words in sentences
        long = compose(CLEAN, 30.0, seed)
        assert len(long.words) > 6
        assert len(long.samples) > 20 * SAMPLE_RATE


def test_a_short_recording_is_filled_to_half_if_it_can_be() -> None:
    lengths = {sentence.words: sentence.seconds for sentence in CORPUS}
    assert min(lengths.values()) < 1.5
    assert min(lengths[compose(CLEAN, 3.0, seed).words] for seed in range(20)) >= 1.5


@pytest.mark.parametrize("effect", ["room", "background", "channel"])
def test_what_happens_to_the_sound_leaves_the_words(effect: str) -> None:
    for seed in range(4):
        clean, changed = compose(CLEAN, 8.0, seed), compose(replace(CLEAN, **{effect: 1.0}), 8.0, seed)
        assert (changed.words, changed.times) == (clean.words, clean.times)
        assert np.abs(changed.samples - clean.samples).max() > 1e-4


def test_pauses_and_silences_are_within_their_limits() -> None:
    longest = 0.0
    for seed in range(30):
        recording = compose(CLEAN, 20.0, seed)
        assert recording.times[0][0] <= CLEAN.most_silence + 0.3
        pauses = [after[0] - before[1] for before, after in pairwise(recording.times)]
        assert max(pauses) <= CLEAN.most_pause + 0.6  # and what is left of the silence around both sentences
        longest = max(longest, *pauses)
    assert longest > 1.5


def test_recordings_depend_on_the_draw_alone() -> None:
    for seed in range(4):
        one, again, other = (compose(Mix(), 6.0, number) for number in (seed, seed, seed + 100))
        np.testing.assert_array_equal(one.samples, again.samples)
        assert (one.words, one.times) == (again.words, again.times)
        assert not np.array_equal(one.samples, other.samples)


def test_order_of_the_voices_in_the_corpus_does_not_matter() -> None:
    mixed = sorted(CORPUS, key=lambda sentence: sentence.voice, reverse=True)
    other = Composer(mixed, "a-first", CLEAN).compose(20.0, np.random.default_rng(3))
    np.testing.assert_array_equal(other.samples, compose(CLEAN, 20.0, 3).samples)


def test_voices() -> None:
    only_others = replace(CLEAN, first_voice=0, change_of_voice=1)
    initials = {word[0] for seed in range(5) for word in compose(only_others, 20.0, seed).words}
    assert initials == {"b", "c"}
    voices = [len({word[0] for word in compose(only_others, 20.0, seed).words}) for seed in range(5)]
    assert max(voices) == 2
    one_voice = replace(only_others, change_of_voice=0)
    assert all(len({word[0] for word in compose(one_voice, 20.0, seed).words}) == 1 for seed in range(5))
    initials = {word[0] for seed in range(5) for word in compose(only_others, 20.0, seed, alone=True).words}
    assert initials == {"a"}


def test_lengths_are_those_of_sentences_and_windows() -> None:
    drawn = [lengths(np.random.default_rng(seed)) for seed in range(400)]
    assert 2.5 <= min(drawn) < 3.5
    assert 31 < max(drawn) <= 40
    assert 80 < sum(20 <= length <= 31 for length in drawn) < 140
