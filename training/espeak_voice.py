"""Voices of eSpeak NG: accents of English, each with many variants of pitch and timbre."""

import ctypes
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import soundfile

from training import espeak_worker
from training.voice import MissingProgramError, Speech, is_plain, speech

_BATCH = 100
"""Sentences for one start of the worker."""

_NO_BREAK_SPACE = "\N{NO-BREAK SPACE}"


@dataclass(frozen=True)
class EspeakVoice:
    """A voice that Debian's `espeak-ng-data` brings.

    Attributes:
        name: its name in the table of voices.
        model: what eSpeak NG calls it: the file of an accent, and a variant after a plus sign, such as "gmw/en-US+f2".
    """

    name: str
    model: str

    def __post_init__(self) -> None:
        try:
            ctypes.CDLL(espeak_worker.LIBRARY)
        except OSError as error:
            raise MissingProgramError("eSpeak NG", "libespeak-ng1", "espeak-ng-data") from error

    def speak_many(self, sentences: Sequence[Sequence[str]], paces: Sequence[float]) -> Iterator[Speech | None]:
        """Say each sentence at its pace. See `Voice.speak_many`."""
        for first in range(0, len(sentences), _BATCH):
            yield from self._speak_batch(sentences[first : first + _BATCH], paces[first : first + _BATCH])

    def _speak_batch(self, sentences: Sequence[Sequence[str]], paces: Sequence[float]) -> Iterator[Speech | None]:
        plain = [
            (index, words, pace)
            for index, (words, pace) in enumerate(zip(sentences, paces, strict=True))
            if is_plain(words)
        ]
        spoken: dict[int, Speech] = {}
        with tempfile.TemporaryDirectory() as name:
            directory = Path(name)
            asked = {
                "voice": self.model,
                "sentences": [{"text": _text(words), "pace": pace} for _, words, pace in plain],
            }
            program = [sys.executable, espeak_worker.__file__]
            ended = subprocess.run(  # noqa: S603
                program, cwd=directory, input=json.dumps(asked), capture_output=True, text=True, check=False
            )
            if ended.returncode:
                raise RuntimeError(f"eSpeak NG failed with {self.model}: {ended.stderr.strip()[-500:]}")
            for number, (index, words, _) in enumerate(plain):
                samples, rate = soundfile.read(directory / f"{number}.wav", dtype="int16")
                events = json.loads((directory / f"{number}.json").read_text())
                times = event_times(events, words, len(samples))
                if times is not None:
                    spoken[index] = speech(samples, rate, [(start / rate, end / rate) for start, end in times])
        for index in range(len(sentences)):
            yield spoken.get(index)


def _text(words: Sequence[str]) -> str:
    """Return a sentence that eSpeak NG reads word by word.

    Between plain spaces it takes some pairs such as "of the" for one word, with one time. It takes no comma or full
    stop before any other space.
    """
    return "".join(word + (_NO_BREAK_SPACE if word[-1].isalpha() or word[-1] == "'" else " ") for word in words).strip()


def event_times(
    events: Sequence[tuple[int, int, int, str]], words: Sequence[str], samples: int
) -> list[tuple[int, int]] | None:
    """Return start and end of each word in samples, or None if the events are not those of the words.

    Args:
        events: kind, position in the text from 1, sample, and name of the phoneme, in order of the samples.
        words: the words of the text, which stand in it with one character between them.
        samples: how many there are.
    """
    times: list[list[int]] = []
    position = 1
    for kind, at, sample, phoneme in events:
        if kind == espeak_worker.WORD:
            if times and len(times[-1]) == 1:
                times[-1].append(sample)
            if len(times) == len(words) or at != position:
                return None
            position += len(words[len(times)]) + 1
            times.append([sample])
        elif phoneme.startswith("_") and times and len(times[-1]) == 1:
            times[-1].append(sample)
    if times and len(times[-1]) == 1:
        times[-1].append(samples)
    return [(start, end) for start, end in times] if len(times) == len(words) else None
