"""The utterances of an evaluation, from a file of JSON lines."""

import json
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from results import WordTime, is_url

# Names of the audio's field: ours, that of the bundled clips, and that of NeMo's manifests.
_PATHS = ("audio", "file", "audio_filepath")
_URL_FIELD = "audio_url"


class ManifestError(ValueError):
    """A manifest cannot be read. The message names the line, and what to change."""


@dataclass(frozen=True)
class Utterance:
    """A recording and what is said in it.

    Attributes:
        id: Its name, which no other utterance of the manifest has.
        audio: An absolute path, or a URL.
        text: What is said; empty if that is nothing.
        words: When each word is said, where that is known.
        duration: Seconds of audio, where they are known.
    """

    id: str
    audio: str
    text: str
    words: tuple[WordTime, ...] = ()
    duration: float | None = None


def read_manifest(path: Path, limit: int | None = None) -> list[Utterance]:
    """Return the utterances of a manifest.

    Each line is an object: `audio_url`, or the path `audio` (or `file`, `audio_filepath`) relative to the manifest;
    `text`; and, if they are known, `id`, `duration` and `words`, a list of objects with `word`, `start` and `end`.

    Args:
        path: The file.
        limit: How many utterances are read at most.

    Raises:
        ManifestError: The file cannot be read, or a line does not describe an utterance.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, ValueError) as error:
        raise ManifestError(f"{path} cannot be read: {getattr(error, 'strerror', 'it is not UTF-8')}") from error
    utterances: dict[str, Utterance] = {}
    numbers: dict[str, int] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        if limit is not None and len(utterances) == limit:
            break
        try:
            utterance = _utterance(_object(line), path.parent)
            if utterance.id in utterances:
                raise ManifestError(f"line {numbers[utterance.id]} has the same id: give each line its own")  # noqa: TRY301
        except ManifestError as error:
            raise ManifestError(f"{path.name}, line {number}: {error}") from None
        utterances[utterance.id], numbers[utterance.id] = utterance, number
    if not utterances:
        raise ManifestError(f"{path.name} has no utterances")
    return list(utterances.values())


def _object(line: str) -> Mapping[str, Any]:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ManifestError(f"it is not JSON: {error}") from None
    if not isinstance(record, dict):
        raise ManifestError("it must be a JSON object")
    return record


def _utterance(record: Mapping[str, Any], folder: Path) -> Utterance:
    named = [field for field in (_URL_FIELD, *_PATHS) if record.get(field) is not None]
    if len(named) != 1:
        raise ManifestError("it must have audio_url, or a path as audio, and only one of them")
    source = _text(record, named[0])
    if named[0] == _URL_FIELD and not is_url(source):
        raise ManifestError("audio_url must be an http:, https: or data: URL; a path is given as audio")
    if named[0] != _URL_FIELD and is_url(source):
        raise ManifestError(f"{named[0]} must be a path; a URL is given as audio_url")
    audio = source if named[0] == _URL_FIELD else os.path.normpath(folder.resolve() / source)
    if named[0] != _URL_FIELD and not Path(audio).is_file():
        raise ManifestError(f"there is no file {source}")
    duration = record.get("duration")
    return Utterance(
        id=_text(record, "id") if "id" in record else source,
        audio=audio,
        text=_text(record, "text", may_be_empty=True),
        words=_words(record.get("words")),
        duration=None if duration is None else _seconds(duration, "duration"),
    )


def _text(record: Mapping[str, Any], field: str, *, may_be_empty: bool = False) -> str:
    value = record.get(field)
    if not isinstance(value, str) or not (value or may_be_empty):
        raise ManifestError(f"{field} must be a text")
    if not _is_unicode(value):
        raise ManifestError(f"{field} has half of a surrogate pair, which no file can hold")
    return value


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _words(value: object) -> tuple[WordTime, ...]:
    if value is None:
        return ()
    if not isinstance(value, list):
        raise ManifestError("words must be a list")
    words = []
    for entry in value:
        if not isinstance(entry, dict):
            raise ManifestError("each of words must be an object with word, start and end")
        word = _text(entry, "word")
        start, end = (_seconds(entry.get(field), f"{field} of {word!r}") for field in ("start", "end"))
        if end < start:
            raise ManifestError(f"{word!r} must not end before it starts")
        words.append(WordTime(word, start, end))
    return tuple(words)


def _seconds(value: object, name: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= sys.float_info.max:
        raise ManifestError(f"{name} must be a number of seconds")
    return float(value)
