"""Public sets, read from a file of the form that they have on Hugging Face's hub, which no test can reach."""

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import soundfile

from audio_files import encode
from evaluate import main
from project import Clip
from public_sets import SETS, OpenSet, SetError, find_set, open_set

SKIPPED = {2: "ignore time segment in scoring", 5: "uh (laughs)"}


def said(clip: Clip) -> str:
    """A clip's text, with a mark at which Python divides lines, and JSON does not."""
    return clip.text.replace(" ", "\u2028", 1)


@pytest.fixture
def hub(clips: list[Clip], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """A hub that has one set; what was asked of it."""
    rows = []
    for number, clip in enumerate(clips[:8]):
        samples, rate = soundfile.read(clip.path, dtype="int16")
        audio = encode(samples, rate, "WAV", "PCM_16") if number else clip.path.read_bytes()
        rows.append(
            {
                "audio": {"bytes": audio, "path": "x.wav"},
                "dataset": "ami",
                "text": SKIPPED.get(number, said(clip)),
                "id": f"utterance-{number // 2}",
                "audio_length_s": clip.duration,
            }
        )
    datasets.Dataset.from_list(rows).to_parquet(tmp_path / "rows.parquet")
    load, asked = datasets.load_dataset, []

    def load_dataset(*given: Any, **options: Any) -> Any:
        asked.append((*given, options))
        return load("parquet", data_files=str(tmp_path / "rows.parquet"), split="train", streaming=True)

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    return asked


def test_the_utterances_of_a_set(hub: list[Any], clips: list[Clip], tmp_path: Path) -> None:
    opened = open_set("librispeech-clean", tmp_path)
    found = list(opened.utterances)
    assert hub == [("hf-audio/open-asr-leaderboard", "librispeech", {"split": "test.clean", "streaming": True})]
    kept = [number for number in range(8) if number not in SKIPPED]
    assert [each.text for each in found] == [said(clips[number]) for number in kept]
    assert [each.duration for each in found] == [clips[number].duration for number in kept]
    # Ids that occur twice are told apart by the row.
    assert [each.id for each in found] == [
        *("utterance-0", "utterance-0-1", "utterance-1", "utterance-2", "utterance-3", "utterance-3-7")
    ]
    for number, each in zip(kept, found, strict=True):
        assert Path(each.audio).suffix == ".flac"
        assert np.array_equal(soundfile.read(each.audio)[0], soundfile.read(clips[number].path)[0])
    assert Path(found[0].audio).read_bytes() == clips[0].path.read_bytes()


def test_what_was_downloaded_is_not_downloaded_again(
    hub: list[Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = list(open_set("ami", tmp_path, limit=2).utterances)
    assert list(open_set("ami", tmp_path, limit=2).utterances) == first
    assert len(hub) == 1
    manifest = tmp_path / "ami" / "manifest.jsonl"
    # As a run that is killed in the middle of a line leaves it.
    manifest.write_bytes(manifest.read_bytes() + b'{"id": "utt')
    whole = list(open_set("ami", tmp_path).utterances)
    assert (len(hub), len(whole), whole[:2]) == (2, 6, first)
    again = open_set("ami", tmp_path)
    assert (again.total, list(again.utterances), len(hub)) == (6, whole, 2)
    lines = manifest.read_text().split("\n")[:-1]
    assert [json.loads(line)["row"] for line in lines] == [0, 1, 3, 4, 6, 7]
    # It is a manifest as any other, and sets do not share it.
    assert main([str(manifest), "--target", "http://127.0.0.1:9", "--output", str(tmp_path / "out")]) == 2
    assert "there is no worker at http://127.0.0.1:9/runsync" in capsys.readouterr().err
    assert next(open_set("tedlium", tmp_path, limit=1).utterances).audio != first[0].audio


def test_a_connection_that_breaks(
    hub: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    load = datasets.load_dataset

    class Broken:
        """Rows that end with the connection."""

        def __init__(self, rows: Any) -> None:
            self.rows, self.info = rows, rows.info

        def cast_column(self, *given: Any) -> "Broken":
            return Broken(self.rows.cast_column(*given))

        def skip(self, count: int) -> Iterator[Any]:
            yield from self.rows.skip(count).take(3)
            raise ConnectionError("cut")

    monkeypatch.setattr(datasets, "load_dataset", lambda *given, **options: Broken(load(*given, **options)))
    with pytest.raises(SetError, match="the same command, without --restart, goes on where this one stopped"):
        list(open_set("ami", tmp_path).utterances)
    monkeypatch.setattr(datasets, "load_dataset", load)
    assert len(list(open_set("ami", tmp_path).utterances)) == 6


def test_a_set_is_downloaded_by_one_run_at_a_time(hub: list[Any], tmp_path: Path) -> None:
    first = open_set("ami", tmp_path).utterances
    next(first)
    with pytest.raises(SetError, match="another run downloads ami: wait for its end"):
        open_set("ami", tmp_path)
    assert len(list(first)) == 5
    assert len(list(open_set("ami", tmp_path).utterances)) == 6


def test_a_set_that_has_changed_is_not_gone_on_with(hub: list[Any], clips: list[Clip], tmp_path: Path) -> None:
    list(open_set("ami", tmp_path, limit=3).utterances)
    rows = datasets.Dataset.from_parquet(str(tmp_path / "rows.parquet"))
    rows.select([0, 1, 2, *range(4, 8)]).to_parquet(tmp_path / "rows.parquet")
    with pytest.raises(SetError, match="the set has changed on the hub: remove ami from "):
        list(open_set("ami", tmp_path).utterances)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ConnectionError("Couldn't reach it"), "Hugging Face's hub cannot be reached from this machine"),
        (datasets.exceptions.DatasetNotFoundError("gated"), "accept its terms, and set HF_TOKEN"),
        (ValueError("BuilderConfig 'ami' not found"), "has no 'test' of 'ami': BuilderConfig 'ami' not found"),
    ],
)
def test_a_hub_that_gives_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: Any, said: str
) -> None:
    def load_dataset(*_: Any, **__: Any) -> OpenSet:
        raise error

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    monkeypatch.setattr("evaluate._CACHE", tmp_path)
    assert main(["--set", "ami", "--output", str(tmp_path / "out")]) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    "audio",
    [{"bytes": b"no audio", "path": "x.wav"}, {"bytes": None, "path": "x.wav"}, None],
    ids=["damaged", "elsewhere", "none"],
)
def test_a_set_without_audio(
    hub: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], audio: Any
) -> None:
    row = {"text": "Said.", "id": "one"} | ({"audio": audio} if audio else {})
    datasets.Dataset.from_list([row, row]).to_parquet(tmp_path / "rows.parquet")
    monkeypatch.setattr("evaluate._CACHE", tmp_path)
    assert main(["--set", "ami", "--output", str(tmp_path / "out")]) == 2
    assert "row 0 of the set has no `audio` that libsndfile reads" in capsys.readouterr().err


def test_the_names_of_sets() -> None:
    assert len(SETS) == 8
    assert find_set("openslr/librispeech_asr:clean:test.x").split == "test.x"
    for name in ("librispeech", "a/b", "a/b:c", "https://h/a:b:c"):
        with pytest.raises(SetError, match="name one of librispeech-clean, librispeech-other, "):
            find_set(name)


def test_other_formats_stay_as_they_are(tmp_path: Path) -> None:
    from public_sets import _write_audio

    samples = np.zeros(1600, np.float32)
    ogg = encode(samples, container="OGG")
    assert _write_audio({"bytes": ogg}, tmp_path / "a") == "a.ogg"
    assert (tmp_path / "a.ogg").read_bytes() == ogg
    assert soundfile.info(io.BytesIO(ogg)).frames == 1600
