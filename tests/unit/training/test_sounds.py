import numpy as np
import pytest
import soxr
from numpy.typing import NDArray
from scipy.signal import butter, fftconvolve, sosfilt

from training.sounds import (
    CHANNELS,
    Draw,
    Samples,
    _a_law,
    _through_codec,
    hum,
    mp3,
    noise,
    opus,
    room,
    telephone,
    tones,
)
from training.voice import SAMPLE_RATE


def draw(seed: int = 0) -> Draw:
    return np.random.default_rng(seed)


def speech_like(seconds: float) -> Samples:
    """Bursts of noise between 300 and 3,000 Hz."""
    count = round(seconds * SAMPLE_RATE)
    band = sosfilt(butter(4, [300, 3_000], "bandpass", fs=SAMPLE_RATE, output="sos"), draw().standard_normal(count))
    bursts = (np.arange(count) // 3_000 % 2) * (0.5 + 0.5 * np.sin(np.arange(count) / 700) ** 2)
    scaled: NDArray[np.float64] = 0.2 * band * bursts / np.std(band)
    return scaled.astype(np.float32)


def delay(given: Samples, found: Samples) -> int:
    """Return by how many samples the found ones come later, by the largest value of the cross-correlation."""
    correlation: NDArray[np.float64] = fftconvolve(found.astype(np.float64), given[::-1].astype(np.float64))
    return int(np.argmax(correlation)) - (len(given) - 1)


def level(samples: Samples, low: float, high: float) -> float:
    """Return the power between two frequencies in hertz, as a part of the whole."""
    power = np.abs(np.fft.rfft(samples)) ** 2
    frequencies = np.fft.rfftfreq(len(samples), 1 / SAMPLE_RATE)
    return float(power[(frequencies >= low) & (frequencies < high)].sum() / power.sum())


@pytest.mark.parametrize("channel", [*CHANNELS, room], ids=lambda channel: channel.__name__)
@pytest.mark.parametrize("seconds", [0.5, 2.0, 3.33333])
def test_a_channel_keeps_length_type_time_and_level(channel: object, seconds: float) -> None:
    given = speech_like(seconds)
    before = given.copy()
    for seed in (0, 1):
        found: Samples = channel(given, draw(seed))  # type: ignore[operator]
        assert found.dtype == np.float32
        assert found.shape == given.shape
        assert abs(delay(given, found)) <= 3  # samples: less than 0.2 ms
        assert 0.5 < np.std(found) / np.std(given) < 2
    np.testing.assert_array_equal(given, before)


@pytest.mark.parametrize(
    ("container", "codec", "kilobits"),
    [("mp3", "mp3", 16), ("mp3", "mp3", 48), ("ogg", "libopus", 8), ("ogg", "libopus", 24)],
)
def test_a_codec_changes_the_samples_but_no_times(container: str, codec: str, kilobits: int) -> None:
    given = speech_like(2.0)
    found = _through_codec(given, container, codec, kilobits)
    assert abs(delay(given, found)) <= 3
    assert np.abs(found - given).max() > 0.01
    assert np.corrcoef(found, given)[0, 1] > 0.2


@pytest.mark.parametrize("channel", [telephone, mp3, opus, room], ids=lambda channel: channel.__name__)
def test_silence_stays_silent_and_equal_draws_give_equal_samples(channel: object) -> None:
    silence = channel(np.zeros(8_000, np.float32), draw())  # type: ignore[operator]
    assert np.abs(silence).max() < 1e-3
    given = speech_like(0.5)
    one, again = (channel(given, draw(3)) for _ in range(2))  # type: ignore[operator]
    np.testing.assert_array_equal(one, again)


def test_a_telephone_has_no_high_frequencies() -> None:
    white = noise(SAMPLE_RATE, draw())
    found = [telephone((0.1 * white).astype(np.float32), draw(seed)) for seed in range(3)]
    assert level(white, 4_200, 8_000) > 0.01
    assert max(level(samples, 4_200, 8_000) for samples in found) < 1e-3


def test_only_some_telephones_have_8_bits() -> None:
    given = speech_like(1.0)
    narrow = soxr.resample(soxr.resample(given, SAMPLE_RATE, 8_000), 8_000, SAMPLE_RATE)
    errors = [float(np.abs(telephone(given, draw(seed)) - narrow).max()) for seed in range(20)]
    assert 8 <= sum(error > 1e-3 for error in errors) <= 19


@pytest.mark.parametrize(
    ("container", "codec", "low", "high"), [("mp3", "mp3", 16, 48), ("ogg", "libopus", 8, 24)], ids=["mp3", "opus"]
)
def test_a_lower_rate_loses_more(container: str, codec: str, low: int, high: int) -> None:
    given = speech_like(2.0)
    errors = [float(np.std(_through_codec(given, container, codec, rate) - given)) for rate in (low, high)]
    assert errors[0] > 1.5 * errors[1]


def test_a_law_rounds_quiet_samples_less_than_loud_ones() -> None:
    given = np.linspace(-1, 1, 10_001, dtype=np.float32)
    found = _a_law(given)
    error = np.abs(found - given)
    assert len(np.unique(found)) == 255
    assert error[np.abs(given) < 0.01].max() < 0.0005
    assert 0.005 < error.max() < 0.025
    np.testing.assert_allclose(found, -found[::-1], atol=1e-7)


def test_a_room_has_an_echo_that_fades() -> None:
    click = np.zeros(SAMPLE_RATE, np.float32)
    click[100] = 1
    for seed in range(5):
        found = room(click, draw(seed))
        assert np.abs(found[:100]).max() < 1e-6
        assert found[100] == pytest.approx(1, abs=1e-5)
        early, late = found[132 : 132 + 1_600], found[132 + 11_200 :]
        assert np.abs(early).max() > 1e-3
        assert np.sum(late**2) < 1e-5 * np.sum(early**2)
        echo = found[132 : np.flatnonzero(np.abs(found) > 2e-6)[-1] + 1]
        tenth = len(echo) // 10
        # By 60 dB over all of it, so by 54 between the middles of the first and the last tenth.
        fall = 10 * np.log10(np.sum(echo[:tenth] ** 2) / np.sum(echo[-tenth:] ** 2))
        assert fall == pytest.approx(54, abs=4)


@pytest.mark.parametrize("sound", [noise, hum, tones])
@pytest.mark.parametrize("count", [1_000, 30_001])
def test_a_background_has_the_level_one(sound: object, count: int) -> None:
    one, again, other = (sound(count, draw(seed)) for seed in (1, 1, 2))  # type: ignore[operator]
    assert one.dtype == np.float32
    assert one.shape == (count,)
    assert np.sqrt(np.mean(one.astype(np.float64) ** 2)) == pytest.approx(1, abs=1e-4)
    np.testing.assert_array_equal(one, again)
    assert not np.array_equal(one, other)


def test_noise_is_white_or_has_more_of_the_low_frequencies() -> None:
    low = [level(noise(SAMPLE_RATE, draw(seed)), 0, 1_000) for seed in range(20)]
    assert 0.1 < min(low) < 0.3
    assert max(low) > 0.9


def test_hum_has_the_frequency_of_the_mains_and_its_overtones() -> None:
    for seed in range(5):
        power = np.abs(np.fft.rfft(hum(SAMPLE_RATE, draw(seed)))) ** 2
        loud = np.flatnonzero(power > 1e-6 * power.max())
        assert any(not (loud % base).any() for base in (50, 60))
        assert loud.max() <= 11 * 60


def test_tones_fade() -> None:
    music = tones(SAMPLE_RATE * 5, draw(1))
    loudness = np.sqrt(np.mean(music[: len(music) // 800 * 800].reshape(-1, 800) ** 2, axis=1))
    assert loudness.min() < 0.4 * loudness.max()
