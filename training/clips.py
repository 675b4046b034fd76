"""Write the long recordings of the tests: held-out sentences with pauses, and the times of their words.

    PYTHONPATH=evaluation:clients/python/src python -m training.clips CORPUS tests/speech/long

The corpus is what `make embedded-model` leaves in its folder. Its sentences depend on seeds alone, and so does this.
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from training.corpus import Spoken
from training.held_out import held_out, join, write_utterance
from training.plan import FIRST_VOICE, OTHER_VOICES

MANIFEST = "clips.jsonl"

# The first is longer than what the model takes in one pass, so it goes through several windows.
_FIRST_VOICE_SECONDS, _ALL_VOICES_SECONDS = 150.0, 115.0

# Sentences of each voice.
_SENTENCES = 4

_SEED = 61


def recordings(corpus: Path) -> dict[str, Spoken]:
    """Return the recordings by name: one of the first voice, and one in which the voices take turns.

    Args:
        corpus: The folder with the held-out sentences of all voices.
    """
    first = held_out(FIRST_VOICE, corpus)
    # All voices have the same sentences, so each gets others.
    turns = [
        clip
        for number, voice in enumerate((FIRST_VOICE, *OTHER_VOICES))
        for clip in held_out(voice, corpus)[number * _SENTENCES : (number + 1) * _SENTENCES]
    ]
    return {
        "one-voice": join(first, _FIRST_VOICE_SECONDS, _SEED).recording,
        "all-voices": join(turns, _ALL_VOICES_SECONDS, _SEED).recording,
    }


def write(corpus: Path, folder: Path) -> None:
    """Write the recordings as FLAC files, and their manifest."""
    lines = []
    for name, recording in recordings(corpus).items():
        utterance = write_utterance(name, recording, folder)
        words = [
            {"word": word.word, "start": round(word.start, 3), "end": round(word.end, 3)} for word in utterance.words
        ]
        line = {"file": f"{name}.flac", "duration": utterance.duration, "text": utterance.text, "words": words}
        lines.append(json.dumps(line) + "\n")
    (folder / MANIFEST).write_text("".join(lines), encoding="utf-8")


def main(arguments: Sequence[str]) -> None:
    """Run the command line: the folder of the corpus, and the one to write to."""
    corpus, folder = map(Path, arguments)
    write(corpus, folder)


if __name__ == "__main__":
    main(sys.argv[1:])
