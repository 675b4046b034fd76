"""A synthetic voice that says sentences and knows when it said each word."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import soxr
from numpy.typing import NDArray

SAMPLE_RATE = 16_000
"""Samples per second of all speech for training."""

_PLAIN_WORD = re.compile(r"[A-Za-z']*[A-Za-z][A-Za-z']*[,.?!]*")


@dataclass(frozen=True)
class Speech:
    """One sentence, spoken.

    Attributes:
        audio: float32, mono, 16 kHz, within [-1, 1]. Silence at its ends is what the synthesiser put there, if any.
        words: start and end in seconds of each item of the text, in order. A pause belongs to no word.
    """

    audio: NDArray[np.float32]
    words: tuple[tuple[float, float], ...]


class Voice(Protocol):
    """What makes speech with exact word times from text."""

    @property
    def name(self) -> str:
        """Its name in the table of voices."""

    def speak_many(self, sentences: Sequence[Sequence[str]], paces: Sequence[float]) -> Iterator[Speech | None]:
        """Say each sentence at its pace; equal sentences and paces give equal speech.

        Args:
            sentences: the words of each sentence with their punctuation, such as ("The", "children,", "left.").
            paces: how fast each is said; 1 is usual, 1.25 is a quarter faster.

        Yields:
            The speech of each sentence, in order. None where the words that the synthesiser said are not the given
            ones, one by one, or where a word has other characters than letters, apostrophes and `, . ? !`.
        """


class MissingProgramError(Exception):
    """A synthesiser is not installed. The message names the Debian packages to install."""

    def __init__(self, what: str, *packages: str) -> None:
        super().__init__(f"{what} is not installed. On Debian: apt-get install {' '.join(packages)}")


def is_plain(words: Sequence[str]) -> bool:
    """Return whether every word is letters and apostrophes, with `, . ? !` at its end at most."""
    return bool(words) and all(_PLAIN_WORD.fullmatch(word) for word in words)


def speech(samples: NDArray[np.int16], rate: int, words: Sequence[tuple[float, float]]) -> Speech:
    """Return speech of a synthesiser's own samples and rate, with word times in seconds.

    Args:
        samples: mono, [samples].
        rate: samples per second.
        words: start and end of each word. Ends that lie after the last sample, by rounding, are moved there.
    """
    scaled = samples.astype(np.float32) / 32_768
    audio = np.clip(soxr.resample(scaled, rate, SAMPLE_RATE), -1, 1, dtype=np.float32)
    end = len(audio) / SAMPLE_RATE
    return Speech(audio, tuple((min(start, end), min(stop, end)) for start, stop in words))
