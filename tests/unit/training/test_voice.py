import numpy as np
import pytest

from training.voice import MissingProgramError, is_plain, speech


@pytest.mark.parametrize("words", [["The", "children,", "left."], ["I", "don't!"], ["'Tis", "James'", "etc.,"]])
def test_plain_words(words: list[str]) -> None:
    assert is_plain(words)


@pytest.mark.parametrize("words", [[], [""], ["a", ","], ["well-cut"], ["No", "7."], ["two words"], ['a"'], ["café"]])
def test_other_words(words: list[str]) -> None:
    assert not is_plain(words)


def test_speech_is_16_khz_and_keeps_its_times() -> None:
    rate = 22_050
    samples = np.zeros(rate, np.int16)
    samples[rate // 2] = 30_000
    spoken = speech(samples, rate, [(0.25, 0.5), (0.5, 1.0001)])
    assert spoken.audio.dtype == np.float32
    assert spoken.audio.shape == (16_000,)
    assert abs(int(np.abs(spoken.audio).argmax()) - 8_000) <= 1
    assert spoken.words == ((0.25, 0.5), (0.5, 1.0))


def test_loud_speech_stays_within_the_range() -> None:
    square = np.where(np.arange(22_050) // 50 % 2, 32_767, -32_768).astype(np.int16)
    assert np.abs(speech(square, 22_050, []).audio).max() == 1.0


def test_message_names_the_packages() -> None:
    error = MissingProgramError("Festival's voice kal_diphone", "festival", "festvox-kallpc16k")
    assert "apt-get install festival festvox-kallpc16k" in str(error)
