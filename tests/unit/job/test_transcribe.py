"""One recording on its way: cut while it is decoded, limited, abandoned, and answered whatever happens."""

import asyncio
import base64
import threading
from concurrent.futures import Future
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import soundfile

from audio_files import data_url, encode, tone
from flac_files import silence
from parakeet_worker.asr.types import Hypothesis, Token, WindowResult
from parakeet_worker.audio.chunking import ChunkingConfig
from parakeet_worker.audio.fetch.download import DownloadLimits
from parakeet_worker.cancellation import JobCancelledError
from parakeet_worker.errors import Code, JobError
from parakeet_worker.job.metrics import JobMetrics
from parakeet_worker.job.progress import Progress
from parakeet_worker.job.transcribe import Limits, Transcription
from parakeet_worker.model.card import Card
from project import MODEL_DIR

CUTTING = ChunkingConfig(whole=10.0, shortest=3.0, longest=4.0, overlap=0.5)
LIMITS = Limits(DownloadLimits(100_000_000, 5), max_seconds=60.0, chunking=CUTTING)


class Model:
    """Hears "w" four times a second, each time in its place, and keeps what it was given."""

    def __init__(self, fail_at: int = -1) -> None:
        self.fail_at = fail_at
        self.lengths: list[int] = []
        self.delays: list[float] = []
        self.withdrawn = 0
        self.room = threading.Event()
        self.room.set()

    def stage(self, samples: Any) -> Any:
        return samples

    def submit(self, window: Any, delay: Any = 0.0, options: Any = None) -> Any:
        answer: Future[Any] = Future()
        self.delays.append(delay)
        self.lengths.append(len(window))
        if len(self.lengths) - 1 == self.fail_at:
            answer.set_exception(JobError(Code.OUT_OF_MEMORY, "no memory"))
        else:
            count = len(window) // 4_000
            tokens = tuple(Token("▁w", index / 4, index / 4 + 0.1) for index in range(count))
            hypothesis = Hypothesis(" ".join("w" * count), tokens)
            answer.set_result(WindowResult(lambda: hypothesis, 1.0, 2.0, 3.0, 4))
        return answer

    def cancel(self, answers: Any) -> None:
        self.withdrawn += len(list(answers))

    def wait_for_room(self, cancellation: Any) -> None:
        while not self.room.wait(0.01):
            cancellation.check()


def transcribe(data: bytes, model: Model, limits: Limits = LIMITS, report: Any = lambda *_: None) -> Any:
    transcription = Transcription(model, limits, Progress(report, iter(range(1_000)).__next__), JobMetrics())  # type: ignore[arg-type]
    transcription.fetch(data_url(data))
    recording = transcription.decode()
    return recording, asyncio.run(transcription.hypothesis())


def test_a_short_recording_is_one_window() -> None:
    model = Model()
    recording, hypothesis = transcribe(encode(tone(10.0, 8_000), 8_000), model)
    assert (recording.duration, recording.sample_rate) == (10.0, 8_000)
    assert model.lengths == [160_000]
    assert hypothesis.text.count("w") == 40


def test_base64_is_decoded_on_the_thread_that_fetches() -> None:
    metrics = JobMetrics()
    transcription = Transcription(Model(), LIMITS, Progress(lambda *_: None), metrics)  # type: ignore[arg-type]
    transcription.fetch("", base64.b64encode(encode(tone(10.0))).decode())
    assert transcription.decode().duration == 10.0
    assert "download" in metrics.timer.seconds
    with pytest.raises(JobError) as refused:
        transcription.fetch("", "no base64!")
    assert refused.value.code is Code.INVALID_AUDIO_BASE64


def test_a_long_one_is_heard_in_windows_as_if_in_one() -> None:
    model = Model()
    recording, hypothesis = transcribe(encode(tone(50.0)), model)
    assert recording.duration == 50
    assert len(model.lengths) > 10
    assert max(model.lengths) <= 5 * 16_000
    assert model.delays[:3] == [0.0, 0.25, 0.5]
    # The words of two windows do not lie on one grid: at each seam there may be one more or less.
    assert hypothesis.text.count("w") == pytest.approx(200, abs=len(model.lengths))
    starts = [token.start for token in hypothesis.tokens]
    assert starts == sorted(starts)


def test_progress_is_reported_of_a_long_one() -> None:
    told = []
    transcribe(encode(tone(50.0)), Model(), report=lambda *seconds: told.append(seconds))
    assert told
    assert all(total == 50 for _, total in told)
    done = [seconds for seconds, _ in told]
    assert done == sorted(done)
    assert done[-1] < 50


@pytest.mark.parametrize("container", ["WAV", "FLAC"])
def test_too_long_is_known_from_the_header(container: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_reading(*_: Any, **__: Any) -> None:
        raise AssertionError("decoded before the length was checked")

    data = encode(np.zeros(16_000 * 90, np.float32), container=container)
    monkeypatch.setattr(soundfile.SoundFile, "read", no_reading)
    with pytest.raises(JobError) as raised:
        transcribe(data, Model())
    assert raised.value.code is Code.AUDIO_TOO_LONG
    assert raised.value.message == "the audio lasts 90.0 seconds, more than the 60 that are taken: split it"


def test_too_long_without_a_declared_length() -> None:
    data = bytearray(encode(tone(90.0), container="FLAC"))
    data[21] &= 0xF0  # the 36 bits of the number of samples, in STREAMINFO
    data[22:26] = bytes(4)
    model = Model()
    with pytest.raises(JobError, match=r"the audio lasts at least 6\d\.\d seconds, more than the 60") as raised:
        transcribe(bytes(data), model)
    assert raised.value.code is Code.AUDIO_TOO_LONG


@pytest.mark.parametrize("seconds", [0.001, 3.0, 50.0])
def test_a_recording_without_sound_needs_no_model(seconds: Any) -> None:
    model = Model()
    model.room.clear()
    recording, hypothesis = transcribe(encode(tone(seconds) * 0), model)
    assert recording.duration == seconds
    assert hypothesis == Hypothesis("", ())
    assert model.lengths == []


def test_only_windows_with_sound_are_heard_each_in_its_place() -> None:
    model, told = Model(), []
    sound = np.concatenate([tone(20.0) * 0, tone(1.0), tone(20.0) * 0, tone(1.0), tone(8.0) * 0])
    _, hypothesis = transcribe(encode(sound), model, report=lambda *seconds: told.append(seconds))
    assert 2 <= len(model.lengths) <= 6
    assert model.delays == [index / 4 for index in range(len(model.lengths))]
    starts = np.array([token.start for token in hypothesis.tokens])
    for at in (20, 41):
        assert ((starts > at) & (starts < at + 1)).sum() in (3, 4)
    assert ((starts > 15) & (starts < 46)).all()
    done = [seconds for seconds, _ in told]
    assert done == sorted(done)
    assert 45 < done[-1] < 50


def test_a_failure_is_told_while_there_is_silence() -> None:
    transcription = Transcription(Model(fail_at=2), LIMITS, Progress(lambda *_: None), JobMetrics())  # type: ignore[arg-type]
    transcription.fetch(data_url(encode(np.append(tone(8.0), tone(40.0) * 0))))
    with pytest.raises(JobError, match="no memory"):
        transcription.decode()


def test_an_abandoned_one_stops_while_there_is_silence() -> None:
    told = []

    def cancel(*seconds: float) -> None:
        told.append(seconds)
        transcription.cancel()

    transcription = Transcription(Model(), LIMITS, Progress(cancel, iter(range(1_000)).__next__), JobMetrics())  # type: ignore[arg-type]
    transcription.fetch(data_url(encode(tone(50.0) * 0)))
    with pytest.raises(JobCancelledError):
        transcription.decode()
    assert len(told) == 1


def test_a_window_that_fails_stops_the_rest() -> None:
    model = Model(fail_at=2)
    with pytest.raises(JobError, match="no memory"):
        transcribe(encode(tone(50.0)), model)
    assert len(model.lengths) == 3


def test_an_abandoned_one_stops_while_it_waits_for_room() -> None:
    model = Model()
    model.room.clear()
    transcription = Transcription(model, LIMITS, Progress(lambda *_: None), JobMetrics())  # type: ignore[arg-type]
    transcription.fetch(data_url(encode(tone(50.0))))
    threading.Timer(0.1, transcription.cancel).start()
    with pytest.raises(JobCancelledError):
        transcription.decode()
    assert len(model.lengths) == 1
    assert model.withdrawn == 1


def test_undeclared_hours_are_counted_before_anything_is_transcribed() -> None:
    model = Model()
    transcription = Transcription(model, LIMITS, Progress(lambda *_: None), JobMetrics())  # type: ignore[arg-type]
    transcription.fetch(data_url(silence(5 * 3_600, 16_000, 1, is_declared=False)))
    with pytest.raises(JobError, match=r"the audio lasts at least 6\d\.\d seconds, more than the 60") as raised:
        transcription.decode()
    assert raised.value.code is Code.AUDIO_TOO_LONG
    assert model.lengths == []


def test_the_bundled_model_is_cut_as_its_card_says() -> None:
    card = Card.read(MODEL_DIR)
    cutting = ChunkingConfig(card.max_duration, *card.windows)
    limits = replace(LIMITS, max_seconds=1_000.0, chunking=cutting)
    whole, parts = Model(), Model()
    transcribe(encode(tone(card.max_duration)), whole, limits)
    assert whole.lengths == [card.max_duration * 16_000]
    transcribe(encode(tone(card.max_duration + 1)), parts, limits)
    _, longest, overlap = card.windows
    assert card.max_duration / longest < len(parts.lengths)
    assert max(parts.lengths) <= (longest + 2 * overlap) * 16_000
