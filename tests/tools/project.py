"""Where the project's files are, its bundled speech, and the check of an answer against its schema."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator

from parakeet_worker.job.request import schema

ROOT = Path(__file__).parents[2]
SPEECH = ROOT / "tests" / "speech"
MODEL_DIR = ROOT / "models" / "parakeet-tdt-mini"

TEXT: str = json.loads((MODEL_DIR / "card.json").read_text())["check"]
"""What the bundled model gives for `clip02.flac`, by NeMo. It is also the clip of `test_input.json`."""


@dataclass(frozen=True)
class Clip:
    """A bundled clip: its file, its length in seconds, what is said in it, and when each word is said."""

    path: Path
    duration: float
    text: str
    words: tuple[dict[str, Any], ...]


def read_clips() -> list[Clip]:
    """Return the bundled clips."""
    lines = (SPEECH / "clips.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    return [Clip(SPEECH / r["file"], r["duration"], r["text"], tuple(r["words"])) for r in records]


def check_schema(envelope: dict[str, Any], action: str) -> None:
    """Check an answer against the schema of its action, or of failures."""
    name = "error" if envelope.get("status") == "error" else action
    Draft202012Validator(schema(name)).validate(envelope)
