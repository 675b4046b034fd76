"""The English test sets of the Open ASR Leaderboard, from Hugging Face's hub into a folder with a manifest.

What was downloaded once is not downloaded again: the manifest grows with each utterance, and a later run goes on there.
"""

import fcntl
import io
import itertools
import json
import logging
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import soundfile

from manifest import Utterance, read_manifest
from scoring import normalise

_REPOSITORY = "hf-audio/open-asr-leaderboard"

# References that the leaderboard leaves out: nothing is said, or nobody wrote down what.
_NOT_SCORED = frozenset({"", "ignore time segment in scoring"})

_MANIFEST = "manifest.jsonl"
# Made when the manifest has all utterances of the set.
_COMPLETE = "complete"

# Where a dataset may have what is said.
_TEXTS = ("text", "sentence", "normalized_text", "transcript", "transcription")


class SetError(Exception):
    """A set cannot be had. The message says why, and what to do."""


@dataclass(frozen=True)
class PublicSet:
    """A set on Hugging Face's hub: its dataset, the configuration in it, and the split."""

    repository: str
    config: str
    split: str


# The eight sets of the average that is published for Parakeet-TDT-0.6B-v2.
SETS: Mapping[str, PublicSet] = {
    "librispeech-clean": PublicSet(_REPOSITORY, "librispeech", "test.clean"),
    "librispeech-other": PublicSet(_REPOSITORY, "librispeech", "test.other"),
    "gigaspeech": PublicSet(_REPOSITORY, "gigaspeech", "test"),
    "earnings22": PublicSet(_REPOSITORY, "earnings22", "test"),
    "ami": PublicSet(_REPOSITORY, "ami", "test"),
    "spgispeech": PublicSet(_REPOSITORY, "spgispeech", "test"),
    "tedlium": PublicSet(_REPOSITORY, "tedlium", "test"),
    "voxpopuli": PublicSet(_REPOSITORY, "voxpopuli", "test"),
}


def find_set(name: str) -> PublicSet:
    """Return the set of a name, or that of `OWNER/DATASET:CONFIG:SPLIT`.

    Raises:
        SetError: There is none.
    """
    if name in SETS:
        return SETS[name]
    if re.fullmatch(r"[\w.-]+/[\w.-]+:[\w.-]+:[\w.-]+", name):
        return PublicSet(*name.split(":"))
    raise SetError(f"there is no set {name!r}: name one of {', '.join(SETS)}, or OWNER/DATASET:CONFIG:SPLIT of the hub")


@dataclass(frozen=True)
class OpenSet:
    """A set that is being read.

    Attributes:
        utterances: They are downloaded while this is iterated over.
        total: How many these are, if that is known. Some of them may not be scored, and are left out.
    """

    utterances: Iterator[Utterance]
    total: int | None


def open_set(name: str, cache: Path, limit: int | None = None) -> OpenSet:
    """Open a set. Utterances that the leaderboard does not score are left out.

    Args:
        name: As for `find_set`.
        cache: The folder in which each set has one of its own.
        limit: How many utterances are wanted at most.

    Raises:
        SetError: The set cannot be had; also while it is iterated over.
    """
    public = find_set(name)
    folder = cache / re.sub(r"[^\w.-]+", "-", name)
    folder.mkdir(parents=True, exist_ok=True)
    if (folder / _COMPLETE).exists():
        known = _known(folder, limit)
        return OpenSet(iter(known), len(known))
    lock = _lock(folder, name)
    known = _known(folder, limit)
    if limit is not None and len(known) >= limit:
        lock.close()
        return OpenSet(iter(known), len(known))
    rows, total = _load(public)

    def utterances() -> Iterator[Utterance]:
        with lock:
            yield from known
            yield from itertools.islice(_download(rows, folder), None if limit is None else limit - len(known))

    return OpenSet(utterances(), min(filter(None, (limit, total)), default=None))


def _lock(folder: Path, name: str) -> TextIO:
    """Return a file that no other run can lock until it is closed.

    Raises:
        SetError: Another run downloads the set.
    """
    lock = (folder / "lock").open("w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.close()
        raise SetError(f"another run downloads {name}: wait for its end") from None
    return lock


def _known(folder: Path, limit: int | None) -> list[Utterance]:
    """Return the utterances that are in a folder; what an interrupted run left of the last line is cut off."""
    path = folder / _MANIFEST
    if not path.exists():
        return []
    content = path.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    if whole != content:
        path.write_bytes(whole)
    return read_manifest(path, limit) if whole else []


def _load(public: PublicSet) -> tuple[Any, int | None]:
    """Return the rows of a set on the hub, with the audio as it is stored, and their number if the hub tells it.

    Raises:
        SetError: The hub cannot be reached, or has no such set.
    """
    import datasets

    # It tells of each attempt to reach the hub.
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    page = f"https://huggingface.co/datasets/{public.repository}"
    try:
        rows = datasets.load_dataset(public.repository, public.config, split=public.split, streaming=True)
    except datasets.exceptions.DatasetNotFoundError as error:
        raise SetError(
            f"the hub does not give {public.repository}: if {page} asks for it, accept its terms, and set HF_TOKEN"
        ) from error
    except OSError as error:
        raise SetError(
            "Hugging Face's hub cannot be reached from this machine: run this where it can be, or give a manifest"
        ) from error
    except ValueError as error:
        raise SetError(f"{page} has no {public.split!r} of {public.config!r}: {error}") from error
    splits = rows.info.splits
    total = splits[public.split].num_examples if splits and public.split in splits else None
    return rows.cast_column("audio", datasets.Audio(decode=False)), total


def _download(rows: Any, folder: Path) -> Iterator[Utterance]:  # noqa: ANN401 - datasets has no types
    """Yield the utterances of those rows that the manifest does not have yet, each after it has been added to it.

    Raises:
        SetError: The hub could not be read any further, or a row has no text or no audio.
    """
    path = folder / _MANIFEST
    # Not `splitlines`: that divides at marks which a text may contain.
    lines = path.read_text(encoding="utf-8").split("\n")[:-1] if path.exists() else []
    records = [json.loads(line) for line in lines]
    first = records[-1]["row"] if records else 0
    ids = {record["id"] for record in records}
    numbered = enumerate(_read(rows.skip(first)), first)
    if records:
        _, last = next(numbered, (first, {"text": ""}))
        if _text(last) != records[-1]["text"]:
            raise SetError(
                f"the set has changed on the hub: remove {folder.name} from {folder.parent.name}, and begin again"
            )
    with path.open("a", encoding="utf-8") as manifest:
        for number, row in numbered:
            text = _text(row)
            if normalise(text) in _NOT_SCORED:
                continue
            given = str(row.get("id") or number)
            id_ = given if given not in ids else f"{given}-{number}"
            ids.add(id_)
            try:
                audio = _write_audio(row["audio"], folder / f"{number:06}")
            except (KeyError, TypeError, soundfile.LibsndfileError) as error:
                raise SetError(f"row {number} of the set has no `audio` that libsndfile reads") from error
            duration = row.get("audio_length_s")
            record = {"id": id_, "audio": audio, "text": text, "duration": duration, "row": number}
            manifest.write(json.dumps(record, ensure_ascii=False) + "\n")
            manifest.flush()
            yield Utterance(id_, str((folder / audio).resolve()), text, (), duration)
    (folder / _COMPLETE).touch()


def _read(rows: Any) -> Iterator[Mapping[str, Any]]:  # noqa: ANN401
    try:
        yield from rows
    except Exception as error:  # the hub is read with one HTTP library, the files with others
        raise SetError(
            f"Hugging Face's hub could not be read any further ({type(error).__name__}): the same command, without "
            "--restart, goes on where this one stopped"
        ) from error


def _text(row: Mapping[str, Any]) -> str:
    for field in _TEXTS:
        if isinstance(row.get(field), str):
            return str(row[field])
    raise SetError(f"the set does not say what is said in it: no column is called {' or '.join(_TEXTS)}")


def _write_audio(audio: Mapping[str, Any], stem: Path) -> str:
    """Write a recording, and return its file's name. 16-bit WAV becomes FLAC: the same samples in half the bytes."""
    content = audio["bytes"]
    with soundfile.SoundFile(io.BytesIO(content)) as sound:
        if (sound.format, sound.subtype) == ("WAV", "PCM_16"):
            path = stem.with_suffix(".flac")
            soundfile.write(path, sound.read(dtype="int16"), sound.samplerate, format="FLAC", subtype="PCM_16")
        else:
            path = stem.with_suffix(f".{sound.format.lower()}")
            path.write_bytes(content)
    return path.name
