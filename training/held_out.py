"""The recordings that a model is measured with: sentences that it has not heard, alone and joined, and empty ones."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray

from manifest import Utterance, read_manifest
from results import WordTime
from training.corpus import Shard, Spoken, read
from training.plan import held_out_shard
from training.sounds import coloured, hum
from training.voice import SAMPLE_RATE

SHORTEST_PAUSE, LONGEST_PAUSE = 0.3, 2.0
"""Silence between two clips of a joined recording, in seconds, beside what the clips begin and end with."""

EMPTY_SECONDS = 400.0

# Levels of the noises, as RMS in decibels below full scale.
_LEVELS = (60, 50)

# The last of 16 bits: what a converter makes of silence.
_LOWEST_LEVEL = 90


@dataclass(frozen=True)
class Joined:
    """Clips with pauses between them.

    Attributes:
        recording: All of it.
        order: Which clip was taken, one number for each.
    """

    recording: Spoken
    order: tuple[int, ...]


def held_out(voice: str, folder: Path) -> list[Spoken]:
    """Return the sentences of a voice that are for tests only.

    Raises:
        FileNotFoundError: The corpus in the folder does not have them.
    """
    # What a shard says, and how, only matters until it is written.
    return read([Shard(held_out_shard(voice), voice, (), 0)], folder)


def read_clips(manifest: Path, voice: str) -> list[Spoken]:
    """Return the clips of a manifest, which are 16 kHz mono and have word times."""
    clips = []
    for utterance in read_manifest(manifest):
        samples, _ = soundfile.read(utterance.audio, dtype="int16")
        words = tuple(word.word for word in utterance.words)
        clips.append(Spoken(voice, words, tuple((word.start, word.end) for word in utterance.words), samples))
    return clips


def with_silence(clip: Spoken, seconds: float) -> Spoken:
    """Return a clip with so many seconds of digital silence before it, and as many behind it."""
    count = round(seconds * SAMPLE_RATE)
    times = tuple((start + count / SAMPLE_RATE, end + count / SAMPLE_RATE) for start, end in clip.times)
    return replace(clip, times=times, samples=np.pad(clip.samples, count))


def join(clips: Sequence[Spoken], seconds: float, seed: int) -> Joined:
    """Join clips, with pauses of digital silence, to a recording of at least so many seconds.

    The clips come in an order that the seed draws, each as often as any other, or once more.
    """
    draw = np.random.default_rng(seed)
    pieces: list[NDArray[np.int16]] = []
    words: list[str] = []
    times: list[tuple[float, float]] = []
    order: list[int] = []
    count = 0
    waiting: list[int] = []
    while count < seconds * SAMPLE_RATE:
        waiting = waiting or draw.permutation(len(clips)).tolist()
        order.append(waiting.pop())
        clip = clips[order[-1]]
        now = count / SAMPLE_RATE
        words += clip.words
        times += [(now + start, now + end) for start, end in clip.times]
        pause = np.zeros(round(draw.uniform(SHORTEST_PAUSE, LONGEST_PAUSE) * SAMPLE_RATE), np.int16)
        pieces += [clip.samples, pause]
        count += len(clip.samples) + len(pause)
    recording = Spoken(clips[0].voice, tuple(words), tuple(times), np.concatenate(pieces))
    return Joined(recording, tuple(order))


def empty_recordings(seed: int, seconds: float = EMPTY_SECONDS) -> dict[str, Spoken]:
    """Return recordings in which nobody speaks, by what is in them."""
    count = round(seconds * SAMPLE_RATE)
    draw = np.random.default_rng(seed)
    white, pink = (coloured(draw.standard_normal(count), exponent) for exponent in (0.0, -0.5))
    mains = hum(count, draw)
    sounds = [("white noise", white, (_LOWEST_LEVEL, *_LEVELS)), ("pink noise", pink, _LEVELS), ("hum", mains, _LEVELS)]
    recordings = {"digital silence": np.zeros(count, np.int16)}
    for name, samples, levels in sounds:
        for level in levels:
            scaled = samples * np.float32(32767 * 10 ** (-level / 20))
            recordings[f"{name} at -{level} dBFS"] = np.round(scaled).astype(np.int16)
    return {name: Spoken("nobody", (), (), samples) for name, samples in recordings.items()}


def write_utterances(prefix: str, recordings: Iterable[Spoken], folder: Path) -> list[Utterance]:
    """Write recordings to files, and return them as an evaluation takes them."""
    return [write_utterance(f"{prefix} {number:03d}", recording, folder) for number, recording in enumerate(recordings)]


def write_utterance(name: str, recording: Spoken, folder: Path) -> Utterance:
    """Write a recording to a FLAC file of that name, and return it as an evaluation takes it."""
    path = folder / f"{name}.flac"
    soundfile.write(path, recording.samples, SAMPLE_RATE, subtype="PCM_16")
    words = tuple(WordTime(word, *times) for word, times in zip(recording.words, recording.times, strict=True))
    return Utterance(name, str(path), " ".join(recording.words), words, recording.seconds)
