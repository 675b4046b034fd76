import json
from pathlib import Path
from typing import Any

import pytest

from manifest import ManifestError, Utterance, read_manifest
from project import SPEECH, Clip
from results import WordTime


def write(folder: Path, *records: Any) -> Path:
    (folder / "a.flac").touch()
    path = folder / "mine.jsonl"
    path.write_text("\n".join(each if isinstance(each, str) else json.dumps(each) for each in records))
    return path


def test_the_bundled_clips_are_a_manifest(clips: list[Clip]) -> None:
    found = read_manifest(SPEECH / "clips.jsonl")
    assert [(each.audio, each.text, each.duration) for each in found] == [
        (str(c.path), c.text, c.duration) for c in clips
    ]
    assert found[0].words == tuple(WordTime(**word) for word in clips[0].words)
    assert read_manifest(SPEECH / "clips.jsonl", limit=3) == found[:3]


def test_what_a_line_may_have(tmp_path: Path) -> None:
    url = "https://example.com/a.wav?signature=1"
    path = write(
        tmp_path,
        {"audio_url": url, "text": ""},
        "",
        {"audio": "a.flac", "text": "One.", "words": [{"word": "One.", "start": 0, "end": 0.5, "more": 1}]},
        {"audio_filepath": str(tmp_path / "a.flac"), "text": "Two.", "id": "two", "duration": 2, "lang": "en"},
    )
    here = str(tmp_path / "a.flac")
    assert read_manifest(path) == [
        Utterance(url, url, ""),
        Utterance("a.flac", here, "One.", (WordTime("One.", 0.0, 0.5),)),
        Utterance("two", here, "Two.", (), 2.0),
    ]


GOOD = {"audio": "a.flac", "text": "One."}


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{", "it is not JSON"),
        ([], "it must be a JSON object"),
        ({"text": "One."}, "it must have audio_url, or a path as audio"),
        (GOOD | {"audio_url": "https://h/a"}, "it must have audio_url, or a path as audio, and only one of them"),
        (GOOD | {"text": "a \ud800"}, "text has half of a surrogate pair"),
        ({"audio_url": "a.flac", "text": ""}, "audio_url must be an http:, https: or data: URL"),
        ({"audio": "https://me:pw@h/a?key=1", "text": ""}, "audio must be a path; a URL is given as audio_url"),
        (GOOD | {"audio": "b.flac"}, "there is no file b.flac"),
        (GOOD | {"audio": 1}, "audio must be a text"),
        ({"audio": "a.flac"}, "text must be a text"),
        (GOOD | {"text": None}, "text must be a text"),
        (GOOD | {"id": ""}, "id must be a text"),
        (GOOD, "line 1 has the same id: give each line its own"),
        (GOOD | {"id": "b", "duration": "1"}, "duration must be a number of seconds"),
        (GOOD | {"id": "b", "duration": True}, "duration must be a number of seconds"),
        (GOOD | {"id": "b", "duration": 10**400}, "duration must be a number of seconds"),
        (GOOD | {"id": "b", "words": {}}, "words must be a list"),
        (GOOD | {"id": "b", "words": ["One."]}, "each of words must be an object"),
        (GOOD | {"id": "b", "words": [{"word": "One.", "start": 0.1}]}, "end of 'One.' must be a number of seconds"),
        (GOOD | {"id": "b", "words": [{"word": "a", "start": 1, "end": 0.5}]}, "'a' must not end before it starts"),
    ],
)
def test_an_error_names_the_line(tmp_path: Path, line: Any, said: str) -> None:
    with pytest.raises(ManifestError) as raised:
        read_manifest(write(tmp_path, GOOD, line if isinstance(line, str) else json.dumps(line)))
    assert str(raised.value).startswith(f"mine.jsonl, line 2: {said}")


def test_a_manifest_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="cannot be read: No such file"):
        read_manifest(tmp_path / "none.jsonl")
    with pytest.raises(ManifestError, match="has no utterances"):
        read_manifest(write(tmp_path, "", " "))
    (tmp_path / "latin.jsonl").write_bytes(b"\xff\xfe")
    with pytest.raises(ManifestError, match="is not UTF-8"):
        read_manifest(tmp_path / "latin.jsonl")


def test_the_mark_that_windows_puts_before_a_text_is_no_part_of_it(tmp_path: Path) -> None:
    path = write(tmp_path, GOOD)
    path.write_text(path.read_text(), encoding="utf-8-sig")
    assert [utterance.text for utterance in read_manifest(path)] == ["One."]
