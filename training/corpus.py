"""Spoken sentences on the disk. A shard has one voice: samples in one file, texts and word times in another."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from training.text import spoken
from training.voice import SAMPLE_RATE, Voice


@dataclass(frozen=True)
class Spoken:
    """A sentence that a voice has said.

    Attributes:
        voice: The name of the voice.
        words: The words as they are written, with their marks.
        times: The start and end of each word, in seconds.
        samples: int16, mono, 16 kHz; a view of the shard's file.
    """

    voice: str
    words: tuple[str, ...]
    times: tuple[tuple[float, float], ...]
    samples: NDArray[np.int16]

    @property
    def seconds(self) -> float:
        """How long the sentence is."""
        return len(self.samples) / SAMPLE_RATE


@dataclass(frozen=True)
class Shard:
    """Sentences that one voice says and that are kept together. The seed draws how fast and how loud each is said."""

    name: str
    voice: str
    sentences: tuple[str, ...]
    seed: int

    def is_written(self, folder: Path) -> bool:
        """Return whether the shard is complete. The file of its texts appears last."""
        return (folder / f"{self.name}.jsonl").exists()


SLOWEST, FASTEST = 0.9, 1.25  # paces; 1 is usual
LONGEST = 12.0  # seconds of one sentence


def write(shard: Shard, voice_of: Callable[[str], Voice], folder: Path) -> float:
    """Let the voice say the shard's sentences, and return how many seconds of speech were written.

    A sentence is left out if the voice does not say it word by word, or if it is longer than 12 seconds. A number is
    written as one word and spoken as several: it lasts from the start of the first to the end of the last.

    Args:
        shard: What is said, and by which voice.
        voice_of: Returns the voice of a name.
        folder: Where the files of the shard are written.
    """
    draw = np.random.default_rng(shard.seed)
    paces = draw.uniform(SLOWEST, FASTEST, len(shard.sentences)).tolist()
    levels = draw.uniform(0.25, 0.9, len(shard.sentences))
    said = [[spoken(word).split() for word in text.split()] for text in shard.sentences]
    speech = voice_of(shard.voice).speak_many([[part for word in words for part in word] for words in said], paces)
    total = 0
    samples_path, texts_path = folder / f"{shard.name}.pcm", folder / f"{shard.name}.jsonl"
    partial = folder / f"{shard.name}.partial"
    with samples_path.open("wb") as samples, partial.open("w", encoding="utf-8") as texts:
        for text, words, level, found in zip(shard.sentences, said, levels, speech, strict=True):
            if found is None or len(found.audio) > LONGEST * SAMPLE_RATE:
                continue
            peak = float(np.abs(found.audio).max())
            pcm = np.round(found.audio * (level / max(peak, 1e-3) * 32767)).astype(np.int16)
            samples.write(pcm.tobytes())
            times = _written_times(words, found.words)
            texts.write(json.dumps({"text": text, "samples": len(pcm), "times": times}) + "\n")
            total += len(pcm)
    partial.replace(texts_path)
    return total / SAMPLE_RATE


def _written_times(said: Sequence[Sequence[str]], times: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    first = 0
    written: list[tuple[float, float]] = []
    for parts in said:
        last = first + len(parts) - 1
        written.append((round(times[first][0], 3), round(times[last][1], 3)))
        first = last + 1
    return written


def read(shards: Sequence[Shard], folder: Path) -> list[Spoken]:
    """Return the sentences of the shards. The samples stay on the disk until they are used.

    Raises:
        FileNotFoundError: A shard has not been written.
    """
    corpus: list[Spoken] = []
    for shard in shards:
        pcm = np.memmap(folder / f"{shard.name}.pcm", dtype=np.int16, mode="r")
        first = 0
        for line in (folder / f"{shard.name}.jsonl").read_text(encoding="utf-8").splitlines():
            entry = json.loads(line)
            last = first + entry["samples"]
            times = tuple((start, end) for start, end in entry["times"])
            corpus.append(Spoken(shard.voice, tuple(entry["text"].split()), times, pcm[first:last]))
            first = last
    return corpus
