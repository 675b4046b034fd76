"""Windows without sound: found whatever the recording's level is, and no quiet word among them."""

import itertools
from typing import Any

import numpy as np
import pytest
import soundfile

from parakeet_worker.asr.types import WindowSpan
from parakeet_worker.audio.chunking import ChunkingConfig, chunk
from parakeet_worker.audio.silence import find_silence

RATE = 16_000


GAP = np.zeros(RATE, np.float32)


def noise(level: float, seconds: float = 2.0) -> np.ndarray:
    """A square wave of a level in dB of full scale, with half a second of nothing before and after it."""
    wave = 10 ** (level / 20) * np.resize([1, 1, -1, -1], int(seconds * RATE))
    return np.pad(wave, RATE // 2).astype(np.float32)


def silences(*windows: np.ndarray) -> list[bool]:
    """Which of the windows are silent."""
    spans = [WindowSpan(float(index), float(index), float(index + 1)) for index in range(len(windows))]
    found = list(find_silence(zip(spans, windows, strict=True)))
    assert [span for span, _, _ in found] == spans
    assert all(given is samples for given, (_, samples, _) in zip(windows, found, strict=True))
    return [is_silent for _, _, is_silent in found]


@pytest.mark.parametrize("length", [0, 1, 319, 320, 321, 100_000])
def test_zeros_are_silent(length: Any) -> None:
    assert silences(np.zeros(length, np.float32)) == [True]


@pytest.mark.parametrize("length", [1, 319, 320, 321, 100_000])
def test_the_last_samples_are_heard(length: Any) -> None:
    samples = np.zeros(length, np.float32)
    samples[-1] = 0.1
    assert silences(samples) == [False]


def test_a_last_step_that_is_shorter_has_its_own_level() -> None:
    assert silences(np.append(GAP[:320], np.float32(0.0015))) == [False]


def test_before_anything_loud_only_the_absolute_level_counts() -> None:
    assert silences(noise(-81)) == [True]
    assert silences(noise(-79)) == [False]
    assert silences(noise(-85), noise(-70), noise(-85)) == [True, False, True]


@pytest.mark.parametrize(
    ("loud", "sound", "silence"), [(0, -59, -61), (15, -59, -61), (-20, -69, -72), (-30, -79, -81), (-45, -79, -81)]
)
def test_the_level_follows_the_recordings_own(loud: Any, sound: Any, silence: Any) -> None:
    assert silences(noise(loud, 60), noise(sound), noise(silence)) == [False, False, True]


def test_a_clap_does_not_set_the_level() -> None:
    clap = np.append(noise(-30, 60), noise(0, 0.5))
    assert silences(clap, noise(-75)) == [False, False]


def test_very_loud_samples_are_sound() -> None:
    with np.errstate(all="raise"):
        assert silences(np.full(RATE, 3e38, np.float32), GAP, noise(-59), noise(-62)) == [False, False, False, True]


@pytest.mark.parametrize("start", [0, 1, 8_000, 27_000, 31_680])
def test_one_step_of_sound_makes_a_window_sound(start: Any) -> None:
    window = np.zeros(2 * RATE, np.float32)
    window[start : start + 320] = 0.0015
    assert silences(noise(0, 60), window) == [False, False]


def test_a_word_may_fade_beyond_its_window() -> None:
    early, late = np.zeros(2 * RATE, np.float32), np.zeros(2 * RATE, np.float32)
    early[RATE // 4 : RATE] = late[RATE : -RATE // 4] = 0.1
    assert silences(late, GAP, GAP) == [False, False, True]
    assert silences(GAP, GAP, early) == [True, False, False]
    assert silences(early, GAP, late) == [False, True, False]


def test_a_window_with_sound_waits_for_no_other() -> None:
    windows = iter([(WindowSpan(), each) for each in (noise(-20), noise(-20), GAP, GAP)])
    found = find_silence(windows)
    assert [next(found)[2], next(found)[2]] == [False, False]
    assert len(list(itertools.islice(found, 1))) == 1
    assert list(windows) == []


@pytest.mark.parametrize("config", [ChunkingConfig(10, 0.5, 8, 0), ChunkingConfig(10, 4, 8, 1)])
def test_no_quiet_word_is_in_a_silent_window(clips: Any, config: Any) -> None:
    """A clip of three is 35 to 40 dB quieter than the others, and pauses of up to ten seconds have noise at -85 dB."""
    draw = np.random.default_rng(0)
    parts: list[np.ndarray] = []
    words, length = [], 0
    for index, clip in enumerate([*clips, *clips]):
        is_quiet = index % 3 == 2
        samples = soundfile.read(clip.path, dtype="float32")[0] * (
            10 ** (-draw.uniform(35, 40) / 20) if is_quiet else 1
        )
        words += [(length / RATE + word["start"], length / RATE + word["end"]) for word in clip.words]
        parts += [samples, np.zeros(int(draw.uniform(0.3, 10) * RATE))]
        length += len(parts[-2]) + len(parts[-1])
    recording = (np.concatenate(parts) + draw.normal(0, 10 ** (-85 / 20), length)).astype(np.float32)
    found = list(find_silence(chunk(np.array_split(recording, 50), config)))
    silent = [span for span, _, is_silent in found if is_silent]
    assert len(silent) > len(found) / 10
    for span in silent:
        assert not [word for word in words if word[0] < span.keep_until and span.keep_from < word[1]]
