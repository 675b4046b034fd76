from pathlib import Path

import pytest

from outcomes import outcome
from results import (
    DamagedResultsError,
    Outcome,
    ResultsInUseError,
    WordTime,
    open_results,
    read_results,
    without_secrets,
)


def write(path: Path, *outcomes: Outcome) -> None:
    with open_results(path) as file:
        for each in outcomes:
            file.append(each)


def test_what_is_written_is_read(tmp_path: Path) -> None:
    words = (WordTime("Grüße", 0.1, 0.5), WordTime("\u2028two", 0.5, 0.6))
    one = outcome("one", "Grüße \u2028two", "Grüße\nto", reference_words=words, hypothesis_words=words[:1])
    failed = outcome("two", "three", None, worker_seconds=None, executions=())
    write(tmp_path / "r.jsonl", one)
    write(tmp_path / "r.jsonl", failed)
    assert read_results(tmp_path / "r.jsonl") == [one, failed]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("https://me:secret@example.com:8/a/b.wav?X-Signature=1#t=2", "https://example.com:8/a/b.wav"),
        ("HTTP://example.com?key=1", "HTTP://example.com"),
        ("http://example.com/a@b.wav", "http://example.com/a@b.wav"),
        ("data:audio/wav;base64,UklGR", "data:audio/wav;base64"),
        ("calls/what?.wav", "calls/what?.wav"),
    ],
)
def test_what_may_be_secret_is_not_shown(text: str, shown: str) -> None:
    assert without_secrets(text) == shown


def test_half_a_surrogate_pair_stops_nothing(tmp_path: Path) -> None:
    write(tmp_path / "r.jsonl", outcome("one", hypothesis="a \ud800 b"))
    (found,) = read_results(tmp_path / "r.jsonl")
    assert found.hypothesis == "a ? b"


def test_paths_are_relative_so_a_folder_can_be_moved(tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    here = outcome(audio=str(tmp_path / "old" / "clips" / "a.flac"))
    write(tmp_path / "old" / "r.jsonl", here, outcome(audio="HTTPS://example.com/a.flac"))
    assert str(tmp_path) not in (tmp_path / "old" / "r.jsonl").read_text()
    (tmp_path / "old").rename(tmp_path / "new")
    moved, remote = read_results(tmp_path / "new" / "r.jsonl")
    assert moved.audio == str(tmp_path / "new" / "clips" / "a.flac")
    assert remote.audio == "HTTPS://example.com/a.flac"


@pytest.mark.parametrize("left", [1, 20, -1])
def test_an_unfinished_last_line_is_ignored_and_cut_off(tmp_path: Path, left: int) -> None:
    path = tmp_path / "r.jsonl"
    write(path, outcome("one"))
    line = path.read_bytes()
    path.write_bytes(line + line[:left])
    assert [each.id for each in read_results(path)] == ["one"]
    write(path, outcome("two"))
    assert [each.id for each in read_results(path)] == ["one", "two"]


@pytest.mark.parametrize("damaged", [b"{}", b"nonsense", b"[]", b'{"id": "a"}'])
def test_a_damaged_line_is_named(tmp_path: Path, damaged: bytes) -> None:
    write(tmp_path / "r.jsonl", outcome())
    with (tmp_path / "r.jsonl").open("ab") as file:
        file.write(damaged + b"\n")
    with pytest.raises(DamagedResultsError, match=rf"{tmp_path}/r\.jsonl, line 2, .* remove the line"):
        read_results(tmp_path / "r.jsonl")


def test_one_run_writes_at_a_time(tmp_path: Path) -> None:
    with open_results(tmp_path / "r.jsonl") as file:
        file.append(outcome("one"))
        with pytest.raises(ResultsInUseError, match="another run writes to"), open_results(tmp_path / "r.jsonl"):
            pass
        assert len(read_results(tmp_path / "r.jsonl")) == 1
        file.clear()
        file.append(outcome("two"))
    assert [each.id for each in read_results(tmp_path / "r.jsonl")] == ["two"]
