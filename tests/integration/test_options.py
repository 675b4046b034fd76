"""What a request may ask for beside the words, with the real model."""

import asyncio
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import soundfile

from audio_files import data_url, encode
from project import Clip, check_schema

EVERYTHING = {"timestamps": True, "captions": "vtt", "confidence": True, "keyterms": ["Parakeet", "RTFx"]}


def url_of(clip: Clip) -> str:
    return data_url(clip.path.read_bytes())


@pytest.fixture(scope="module")
def long_url(clips: list[Clip]) -> str:
    """Six and a half minutes: 40 clips three times, with pauses of half a second, which take several windows."""
    parts = [soundfile.read(clip.path, dtype="float32")[0] for clip in clips] * 3
    joined = np.concatenate([np.concatenate([part, np.zeros(8_000, np.float32)]) for part in parts])
    return data_url(encode(joined, container="FLAC"))


@pytest.mark.parametrize("levels", [["word"], ["char", "segment"], []])
def test_only_the_levels_that_were_asked_for(ask: Any, clips: list[Clip], levels: Any) -> None:
    whole = ask({"input": {"audio_url": url_of(clips[0]), "timestamps": True}})["timestamps"]
    answer = ask({"input": {"audio_url": url_of(clips[0]), "timestamps": levels}})
    assert answer.get("timestamps", {}) == {level: whole[level] for level in whole if level in levels}
    assert ("timestamps" in answer) == bool(levels)


def test_everything_at_once(ask: Any, clips: list[Clip]) -> None:
    plain = ask({"input": {"audio_url": url_of(clips[0]), "timestamps": True}})
    answer = ask({"input": {"audio_url": url_of(clips[0])} | EVERYTHING})
    assert answer["text"] == plain["text"]
    assert answer["captions"].startswith("WEBVTT")
    for level in ("word", "segment"):
        without = [{key: entry[key] for key in entry if key != "confidence"} for entry in answer["timestamps"][level]]
        assert without == plain["timestamps"][level]
        assert all(0 <= entry["confidence"] <= 1 for entry in answer["timestamps"][level])
    assert all("confidence" not in entry for entry in answer["timestamps"]["char"])
    confidences = [entry["confidence"] for entry in answer["timestamps"]["word"]]
    assert answer["confidence"] == pytest.approx(np.mean(confidences), abs=0.001)


def test_nothing_is_added_that_was_not_asked_for(ask: Any, clips: list[Clip]) -> None:
    answer = ask({"input": {"audio_url": url_of(clips[0])}})
    assert not {"timestamps", "captions", "confidence", "notice"} & answer.keys()


def test_everything_of_a_long_recording(ask: Any, long_url: str) -> None:
    plain = ask({"input": {"audio_url": long_url, "timestamps": True}})
    answer = ask({"input": {"audio_url": long_url, "segment_pause": 0.1} | EVERYTHING})
    words = [entry["word"] for entry in answer["timestamps"]["word"]]
    assert words == answer["text"].split() == plain["text"].split()
    assert all("confidence" in entry for entry in answer["timestamps"]["word"])
    for pause, each in ((2, plain), (0.1, answer)):
        segments, spans = each["timestamps"]["segment"], each["timestamps"]["word"]
        assert " ".join(segment["segment"] for segment in segments) == each["text"]
        assert max(segment["end"] - segment["start"] for segment in segments) <= 30
        starts = {segment["start"] for segment in segments}
        for before, after in pairwise(spans):
            if before["word"][-1] in ".?!" or after["start"] - before["end"] > pause + 0.001:
                assert after["start"] in starts
    assert len(answer["timestamps"]["segment"]) > len(plain["timestamps"]["segment"])


def test_jobs_with_and_without_options_share_batches(worker: Any, clips: list[Clip]) -> None:
    """What a job gets does not depend on what others beside it ask for."""
    jobs = [{"input": {"audio_url": url_of(clip)}} for clip in clips[:12]]
    asked: list[dict[str, Any]] = [{}, {"confidence": True}, {"keyterms": ["Parakeet"]}, EVERYTHING]

    async def together() -> Any:
        mixed = [{"input": job["input"] | asked[index % 4]} for index, job in enumerate(jobs)]
        return await asyncio.gather(*map(worker.answer, mixed))

    alone = [asyncio.run(worker.answer({"input": job["input"] | asked[i % 4]})) for i, job in enumerate(jobs)]
    for one, other in zip(alone, asyncio.run(together()), strict=True):
        check_schema(other, "transcribe")
        assert one["text"] == other["text"]
        assert one.get("timestamps") == other.get("timestamps")
        assert one.get("confidence") == other.get("confidence")
