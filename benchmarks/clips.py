"""Audio to measure with: the bundled speech, joined to recordings of the lengths that people send."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from numpy.typing import NDArray

SPEECH = Path(__file__).parents[1] / "tests" / "speech"
SAMPLE_RATE = 16_000


@dataclass(frozen=True)
class Recording:
    """A 16-bit WAV file and its length in seconds."""

    path: Path
    seconds: float


def traffic_lengths(count: int, seed: int) -> list[float]:
    """Lengths of real traffic, in seconds: log-normal about a median of 8, from 1 to 35."""
    drawn = np.random.default_rng(seed).lognormal(np.log(8.0), 0.7, count)
    return [round(float(length), 2) for length in np.clip(drawn, 1.0, 35.0)]


def read_speech(dtype: str) -> list[tuple[NDArray[Any], str]]:
    """Return the samples of each bundled clip, as NumPy's dtype of that name, and what is said in it."""
    records = map(json.loads, (SPEECH / "clips.jsonl").read_text().splitlines())
    return [(soundfile.read(SPEECH / each["file"], dtype=dtype)[0], each["text"]) for each in records]


def write_recordings(lengths: list[float], directory: Path, seed: int) -> list[Recording]:
    """Join bundled clips, drawn by `seed`, to one WAV file of each length (seconds)."""
    speech = [samples for samples, _ in read_speech("int16")]
    draw = np.random.default_rng(seed)
    recordings = []
    for index, length in enumerate(lengths):
        wanted = int(length * SAMPLE_RATE)
        parts: list[np.ndarray] = []
        while sum(map(len, parts)) < wanted:
            parts.append(speech[draw.integers(len(speech))])
        path = directory / f"{index:04d}.wav"
        soundfile.write(path, np.concatenate(parts)[:wanted], SAMPLE_RATE)
        recordings.append(Recording(path, length))
    return recordings
