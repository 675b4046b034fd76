"""Long recordings through the windows of the bundled model: their words, their times, and no words in silence."""

import base64
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from manifest import Utterance, read_manifest
from parakeet_worker.model.card import Card
from parakeet_worker.model.recognizer import PlainRecognizer
from project import MODEL_DIR, SPEECH
from results import WordTime
from scoring import count_errors
from timing import match_words

# Word error rates. Not all voices are as easy as the first.
LIMITS = {"one-voice.flac": 0.12, "all-voices.flac": 0.25}

Ask = Callable[[Any], dict[str, Any]]


@pytest.fixture(
    scope="module", params=read_manifest(SPEECH / "long" / "clips.jsonl"), ids=lambda recording: recording.id
)
def spoken(request: pytest.FixtureRequest) -> Utterance:
    recording: Utterance = request.param
    return recording


@pytest.fixture(scope="module")
def answer(spoken: Utterance, ask: Ask) -> dict[str, Any]:
    content = base64.b64encode(Path(spoken.audio).read_bytes()).decode()
    return ask({"input": {"audio_base64": content, "timestamps": ["word"]}})


def test_the_words_of_a_long_recording(spoken: Utterance, answer: dict[str, Any]) -> None:
    # It does not go through the model in one pass.
    assert answer["duration"] > Card.read(MODEL_DIR).max_duration
    errors = count_errors(spoken.text, answer["text"])
    assert errors.words > 200
    assert errors.rate is not None
    assert errors.rate <= LIMITS[spoken.id], answer["text"]


def test_the_times_of_a_long_recording(spoken: Utterance, answer: dict[str, Any]) -> None:
    heard = [WordTime(word["word"], word["start"], word["end"]) for word in answer["timestamps"]["word"]]
    assert all(before.start <= after.start for before, after in itertools.pairwise(heard))
    matched = match_words(spoken.words, heard)
    assert len(matched) > 170
    off = [abs(found.start - expected.start) for expected, found in matched]
    median, p95 = np.percentile(off, [50, 95])
    assert median <= 0.04
    assert p95 <= 0.1


@pytest.mark.parametrize("decibels", [None, -90, -60, -50])
def test_nothing_is_heard_where_nobody_speaks(recognizer: PlainRecognizer, decibels: int | None) -> None:
    noise = np.random.default_rng(5).standard_normal(4 * 30 * 16_000)
    level = 0.0 if decibels is None else 10 ** (decibels / 20)
    windows = np.split((np.round(noise * level * 32767) / 32768).astype(np.float32), 4)
    assert [hypothesis.text for hypothesis in recognizer.transcribe(windows)] == [""] * 4
