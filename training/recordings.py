"""Recordings for the training: sentences with pauses, a background, and a telephone or codec that they went through."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import soxr

from training.corpus import Spoken
from training.sounds import BACKGROUNDS, CHANNELS, Draw, Samples, room
from training.voice import SAMPLE_RATE


@dataclass(frozen=True)
class Recording:
    """Samples, and what is said in them.

    Attributes:
        samples: float32, mono, 16 kHz.
        words: The words in order, with their marks.
        times: The start and end of each word, in seconds.
    """

    samples: Samples
    words: tuple[str, ...] = ()
    times: tuple[tuple[float, float], ...] = ()


@dataclass(frozen=True)
class Mix:
    """How likely each property of a recording is, and how long its silences are at most.

    Attributes:
        empty: Probability that nobody speaks.
        cut: Probability that a recording of 6 s or more begins and ends anywhere, even within a word, as a window of
            a long recording does.
        change_of_voice: Probability that the voice is drawn anew before a sentence.
        first_voice: Probability that the voice that is drawn is the first one.
        background: Probability of noise, hum or tones. Without them, pauses are digital silence or very low noise.
        room: Probability of the echo of a room.
        channel: Probability that the recording goes through a telephone or a codec.
        other_pitch: Probability that a voice is made higher or lower by playing it faster or slower.
        most_faster: How many times as fast at most; as slow at most, too.
        most_silence: The longest silence that is added at either end, in seconds.
        most_pause: The longest pause that is added between sentences, in seconds.
    """

    empty: float = 0.04
    cut: float = 0.2
    change_of_voice: float = 0.15
    first_voice: float = 0.55
    background: float = 0.6
    room: float = 0.15
    channel: float = 0.15
    other_pitch: float = 0.4
    most_faster: float = 1.2
    most_silence: float = 1.5
    most_pause: float = 2.0


# Seconds. A shorter recording has one sentence. One that is to be cut is first made longer by this.
_SEVERAL = 6.0


class Composer:
    """Makes recordings from spoken sentences."""

    def __init__(self, corpus: Sequence[Spoken], first_voice: str, mix: Mix) -> None:
        """Sort the sentences by voice.

        Args:
            corpus: Sentences of the first voice and of others.
            first_voice: The voice that says the most.
            mix: How likely each property of a recording is.
        """
        by_voice: dict[str, list[Spoken]] = {}
        for sentence in corpus:
            by_voice.setdefault(sentence.voice, []).append(sentence)
        self._by_voice = {voice: _Sentences(sentences) for voice, sentences in by_voice.items()}
        self._first_voice = first_voice
        self._other_voices = sorted(set(self._by_voice) - {first_voice})
        self._mix = mix

    def compose(self, seconds: float, draw: Draw, first_voice_alone: bool = False) -> Recording:
        """Return a recording.

        Args:
            seconds: Its longest duration. With 6 s or more, sentences follow one another until no more fit; with less,
                it has one sentence, of at least half the duration if there is such a one.
            draw: The random numbers that it depends on.
            first_voice_alone: Whether no other voice may speak.
        """
        if draw.random() < self._mix.empty:
            length = round(seconds * SAMPLE_RATE)
            return Recording(_through(np.zeros(length, np.float32), self._mix, draw, np.float32(0.05)))
        return self._speech(seconds, draw, first_voice_alone)

    def _speech(self, seconds: float, draw: Draw, alone: bool) -> Recording:
        mix = self._mix
        one = seconds < _SEVERAL
        cut = not one and draw.random() < mix.cut
        total = seconds + (_SEVERAL if cut else 0.0)
        silence = float(draw.uniform(0, min(mix.most_silence, seconds / 4)))
        pieces = [np.zeros(round(draw.uniform(0, silence) * SAMPLE_RATE), np.float32)]
        words: list[str] = []
        times: list[tuple[float, float]] = []
        now = len(pieces[0]) / SAMPLE_RATE
        voice = self._voice(draw, alone)
        faster = self._faster(draw)
        while not (one and words):
            if words and draw.random() < mix.change_of_voice:
                voice = self._voice(draw, alone)
                faster = self._faster(draw)
            sentence = voice.sentence(seconds / 2 * faster if one else 0.0, (total - now) * faster, draw)
            if sentence is None:
                break
            samples, said = _trimmed(sentence, faster, draw)
            pause = np.zeros(round(draw.uniform(0, mix.most_pause) * SAMPLE_RATE), np.float32)
            pieces += [samples, pause]
            words += sentence.words
            times += [(now + start, now + end) for start, end in said]
            now += (len(samples) + len(pause)) / SAMPLE_RATE
        end = times[-1][1] + silence if words else seconds
        if words:
            pieces.pop()  # the pause behind the last sentence
        samples = np.concatenate(pieces)[: round(total * SAMPLE_RATE)]
        samples = np.pad(samples, (0, max(0, round(min(end, total) * SAMPLE_RATE) - len(samples))))
        loudest = np.float32(np.abs(samples).max(initial=0.05))
        recording = Recording(_through(samples, mix, draw, loudest), tuple(words), tuple(times))
        return cut_out(recording, float(draw.uniform(0, _SEVERAL)), seconds) if cut else recording

    def _faster(self, draw: Draw) -> float:
        mix = self._mix
        if draw.random() >= mix.other_pitch:
            return 1.0
        return float(draw.uniform(1 / mix.most_faster, mix.most_faster))

    def _voice(self, draw: Draw, alone: bool) -> "_Sentences":
        if alone or not self._other_voices or draw.random() < self._mix.first_voice:
            return self._by_voice[self._first_voice]
        return self._by_voice[self._other_voices[draw.integers(len(self._other_voices))]]


class _Sentences:
    """What one voice has said, from short to long."""

    def __init__(self, sentences: Iterable[Spoken]) -> None:
        self._sentences = sorted(sentences, key=lambda sentence: sentence.seconds)
        self._seconds = np.asarray([sentence.seconds for sentence in self._sentences])

    def sentence(self, shortest: float, longest: float, draw: Draw) -> Spoken | None:
        """Return one of at most `longest` seconds, and not shorter than `shortest` if there is such a one."""
        first, last = np.searchsorted(self._seconds, [shortest, longest])
        if last == 0:
            return None
        place = int(draw.integers(first if first < last else 0, last))
        return self._sentences[place]


def _trimmed(sentence: Spoken, faster: float, draw: Draw) -> tuple[Samples, tuple[tuple[float, float], ...]]:
    """Return the sentence with little silence around it, and the times of its words.

    It has a random level. It is played `faster`, which also raises the voice, as if another person spoke.
    """
    first = max(0.0, sentence.times[0][0] - draw.uniform(0.02, 0.3))
    last = min(sentence.seconds, sentence.times[-1][1] + draw.uniform(0.05, 0.3))
    part = sentence.samples[round(first * SAMPLE_RATE) : round(last * SAMPLE_RATE)]
    level = 10 ** (draw.uniform(-12, 0) / 20) / 32768
    samples = part.astype(np.float32) * np.float32(level)
    if faster != 1:
        samples = soxr.resample(samples, SAMPLE_RATE * faster, SAMPLE_RATE, quality="QQ")
    first = round(first * SAMPLE_RATE) / SAMPLE_RATE
    return samples, tuple(((start - first) / faster, (end - first) / faster) for start, end in sentence.times)


def _through(samples: Samples, mix: Mix, draw: Draw, loudest: np.float32) -> Samples:
    """Return the samples with the echo of a room, a background, and the losses of a channel, as the mix has them.

    `loudest` is the largest sample of the speech. The level of the background is 15 to 65 dB below it.
    """
    if draw.random() < mix.room:
        samples = room(samples, draw)
    if draw.random() < mix.background:
        sound = BACKGROUNDS[draw.integers(len(BACKGROUNDS))]
        below = draw.uniform(15, 65)  # dB
        samples = samples + sound(len(samples), draw) * np.float32(loudest * 10 ** (-below / 20))
    elif draw.random() < 0.5:
        samples = samples + draw.standard_normal(len(samples), np.float32) * np.float32(1e-5)
    if draw.random() < mix.channel:
        samples = CHANNELS[draw.integers(len(CHANNELS))](samples, draw)
    return samples


def cut_out(recording: Recording, start: float, seconds: float) -> Recording:
    """Return what is between `start` and `start + seconds`, without words of which less than 70 percent is left."""
    samples = recording.samples[round(start * SAMPLE_RATE) : round((start + seconds) * SAMPLE_RATE)]
    length = len(samples) / SAMPLE_RATE
    words: list[str] = []
    times: list[tuple[float, float]] = []
    for word, (first, last) in zip(recording.words, recording.times, strict=True):
        begin, end = max(first - start, 0.0), min(last - start, length)
        if end - begin >= 0.7 * (last - first):
            words.append(word)
            times.append((begin, end))
    return Recording(samples, tuple(words), tuple(times))


def lengths(draw: Draw) -> float:
    """Return the longest duration of a batch's recordings in seconds: 2.5 to 40 s, often as long as a window."""
    kind = draw.random()
    if kind < 0.4:
        return float(draw.uniform(2.5, 8))
    if kind < 0.7:
        return float(draw.uniform(8, 20))
    if kind < 0.97:
        return float(draw.uniform(20, 31))
    return float(draw.uniform(31, 40))
