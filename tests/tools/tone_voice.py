"""A voice of tones: each word is a tone of its own pitch, so that a test can hear where it is."""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from training.corpus import Spoken
from training.voice import SAMPLE_RATE, Speech

WORDS = tuple(f"{first}{second}" for first in "abcde" for second in "mnoprst")
_WORD_S, _PAUSE_S = 0.25, 0.1


def pitch(word: str) -> float:
    """The frequency of a word's tone, in hertz."""
    return 400.0 + 80.0 * WORDS.index(word.strip(",.?!").lower())


def heard(samples: NDArray[np.float32]) -> str:
    """The word whose tone is the loudest."""
    spectrum = np.abs(np.fft.rfft(samples, SAMPLE_RATE))  # one value for each hertz
    return max(WORDS, key=lambda word: float(spectrum[round(pitch(word))]))


class ToneVoice:
    """Says the words of `WORDS`; the item `None` of the speech stands for each sentence with another word."""

    name = "tones"

    def speak_many(self, sentences: Sequence[Sequence[str]], paces: Sequence[float]) -> Iterator[Speech | None]:
        """Say each sentence at its pace."""
        for words, pace in zip(sentences, paces, strict=True):
            known = all(word.strip(",.?!").lower() in WORDS for word in words)
            yield _speech(words, pace) if known else None


def _speech(words: Sequence[str], pace: float) -> Speech:
    length, pause = round(_WORD_S / pace * SAMPLE_RATE), round(_PAUSE_S / pace * SAMPLE_RATE)
    times = np.arange(length) / SAMPLE_RATE
    parts = [np.zeros(pause)]
    spans = []
    now = pause
    for word in words:
        parts += [0.5 * np.sin(2 * np.pi * pitch(word) * times), np.zeros(pause)]
        spans.append((now / SAMPLE_RATE, (now + length) / SAMPLE_RATE))
        now += length + pause
    return Speech(np.concatenate(parts).astype(np.float32), tuple(spans))


def tone_corpus(voices: Sequence[str], sentences: int, seed: int = 0) -> list[Spoken]:
    """Return sentences of 2 to 6 words for each voice. The words of a voice begin with its letter."""
    draw = np.random.default_rng(seed)
    corpus = []
    for voice in voices:
        own = [word for word in WORDS if word[0] == voice[0]]
        for _ in range(sentences):
            words = tuple(draw.choice(own, draw.integers(2, 7)).tolist())
            speech = _speech(words, float(draw.uniform(0.9, 1.25)))
            corpus.append(Spoken(voice, words, speech.words, np.round(speech.audio * 32767).astype(np.int16)))
    return corpus
