"""Results: what they hold, and what gives way where the platform would not take them."""

import json
from typing import Any

import pytest

from parakeet_worker.asr.types import Hypothesis, Token
from parakeet_worker.job.progress import Progress
from parakeet_worker.job.request import LEVELS, Request
from parakeet_worker.job.response import Recording, build_response, fit, json_pieces, with_address

RECORDING = Recording(duration=100.0, sample_rate=44_100)
PLENTY = 10_000_000


def hypothesis(words: int) -> Hypothesis:
    tokens = tuple(Token(f"▁wörd{'.' if i % 10 == 9 else ''}", i / 10, i / 10 + 0.05) for i in range(words))
    return Hypothesis("".join(token.piece for token in tokens).replace("▁", " ").strip(), tokens)


def result(words: int, max_bytes: int, *, timestamps: bool = True) -> dict[str, Any]:
    request = Request("transcribe", "https://example.com/a.wav", timestamps=LEVELS if timestamps else ())
    return fit(build_response(request, hypothesis(words), RECORDING, 1.23456), max_bytes)


def size(value: object) -> int:
    return len(json.dumps(value, ensure_ascii=False).encode())


def test_fields() -> None:
    found = result(20, PLENTY)
    assert {name: found[name] for name in ("duration", "processing_time", "sample_rate")} == {
        "duration": 100.0,
        "processing_time": 1.235,
        "sample_rate": 44_100,
    }
    assert found.keys() == {"text", "duration", "processing_time", "sample_rate", "timestamps"}
    assert found["timestamps"]["word"][0] == {"start": 0.0, "end": 0.05, "word": "wörd"}
    assert len(found["timestamps"]["segment"]) == 2
    assert "timestamps" not in result(20, PLENTY, timestamps=False)


@pytest.mark.parametrize(
    ("share", "kept", "said"),
    [
        (1.01, ["word", "segment", "char"], None),
        (0.99, ["word", "segment"], "the character timestamps are left out"),
        (0.15, ["segment"], "the character and word timestamps are left out"),
        (0.04, [], "the character and word and segment timestamps are left out"),
    ],
)
def test_what_does_not_fit_is_left_out(share: Any, kept: Any, said: Any) -> None:
    whole = result(1_000, PLENTY)
    fitted = result(1_000, int(share * size(whole)))
    assert list(fitted["timestamps"]) == kept
    assert fitted["text"] == whole["text"]
    assert size(fitted) < share * size(whole) + 200
    if said:
        assert fitted["notice"].startswith(said)
    else:
        assert fitted == whole


def test_a_notice_says_where_the_whole_is() -> None:
    whole = result(1_000, PLENTY)
    limit = int(0.99 * size(whole))
    cut, stored = fit(whole, limit), fit(with_address(whole, "https://h/a?b"), limit)
    assert stored == cut | {
        "result_url": "https://h/a?b",
        "notice": cut["notice"] + "; the whole result is at result_url",
    }
    assert fit(with_address(whole, None), limit) == cut
    assert "result_url" not in whole


@pytest.mark.parametrize("entries", [0, 1, 4, 5, 6, 10, 11])
def test_json_in_pieces_is_json(entries: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("parakeet_worker.job.response._MOST_ENTRIES", 5)
    spans: list[Any] = [{"start": index / 10, "char": "ö", "of": [[], {}]} for index in range(entries)]
    value = {"text": 'a "ß"', "timestamps": {"char": spans, "word": []}, "none": {}, 'a "key"': None, "": [[1] * 9]}
    assert b"".join(json_pieces(value)) == json.dumps(value, ensure_ascii=False).encode()
    assert b"".join(json_pieces({})) == b"{}"
    assert max(map(len, json_pieces({"char": spans * 1_000}))) < 500
    with pytest.raises(ValueError, match="not JSON compliant"):
        list(json_pieces({"text": [float("nan")]}))


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_progress_is_told_once_a_second() -> None:
    told, clock = [], Clock()
    progress = Progress(lambda *seconds: told.append(seconds), clock)
    progress.total = 300.0
    for _ in range(30):
        clock.now += 0.25
        progress.add(10.0)
    assert told == [
        (40.0, 300.0),
        (80.0, 300.0),
        (120.0, 300.0),
        (160.0, 300.0),
        (200.0, 300.0),
        (240.0, 300.0),
        (280.0, 300.0),
    ]


def test_a_short_recording_tells_nothing() -> None:
    told, clock = [], Clock()
    progress = Progress(lambda *seconds: told.append(seconds), clock)
    progress.total = 29.0
    clock.now += 10
    progress.add(20.0)
    progress.add(9.0)
    assert told == []


def test_a_total_may_be_unknown() -> None:
    told, clock = [], Clock()
    progress = Progress(lambda *seconds: told.append(seconds), clock)
    clock.now += 2
    progress.add(20.04)
    assert told == [(20.0, None)]
