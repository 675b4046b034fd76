import numpy as np
import pytest

pytest.importorskip("hibari", reason="the packages of the training are not installed")

from training.hibari_voice import HibariVoice
from training.voice import SAMPLE_RATE, Speech

SENTENCES = [["Many", "years", "ago,", "all", "was", "well."], ["He", "saw", "the", "end", "of", "an", "apple."]]


def level(spoken: Speech, start: float, end: float) -> float:
    part = spoken.audio[round(start * SAMPLE_RATE) : round(end * SAMPLE_RATE)]
    return float(np.sqrt(np.mean(part**2)))


@pytest.fixture(scope="module")
def voice() -> HibariVoice:
    return HibariVoice()


def test_words_are_where_the_sound_is(voice: HibariVoice) -> None:
    spoken = list(voice.speak_many(SENTENCES, [1.0, 1.0]))
    for words, each in zip(SENTENCES, spoken, strict=True):
        assert each is not None
        assert len(each.words) == len(words)
        length = len(each.audio) / SAMPLE_RATE
        times = [0.0, *(time for word in each.words for time in word), length]
        assert times == sorted(times)
        quietest = min(level(each, start, end) for start, end in each.words)
        assert level(each, 0, each.words[0][0] - 0.05) < quietest / 4


def test_pause_after_a_comma_belongs_to_no_word(voice: HibariVoice) -> None:
    (spoken,) = voice.speak_many(SENTENCES[:1], [1.0])
    assert spoken
    assert spoken.words[3][0] - spoken.words[2][1] > 0.05


def test_the_pace_moves_the_words(voice: HibariVoice) -> None:
    slow, fast, again = voice.speak_many([SENTENCES[1]] * 3, [0.9, 1.25, 1.25])
    assert slow
    assert fast
    assert again
    # Each sound has a whole number of frames, so the length does not follow the pace exactly.
    assert slow.words[-1][1] / fast.words[-1][1] == pytest.approx(1.25 / 0.9, rel=0.15)
    assert again.words == fast.words
    assert np.array_equal(again.audio, fast.audio)


def test_words_that_it_reads_as_several_are_refused(voice: HibariVoice) -> None:
    assert list(voice.speak_many([["Since", "1991", "it", "is."]], [1.0])) == [None]
