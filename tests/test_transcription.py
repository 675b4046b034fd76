"""One recording on its way: cut while it is decoded, limited, abandoned, and answered whatever happens."""

import asyncio
import re
import threading
from concurrent.futures import Future

import numpy as np
import pytest
import soundfile

from audio_files import data_url, encode, tone
from conftest import MODEL_DIR
from parakeet_worker.audio.abort import Aborted
from parakeet_worker.audio.download import DownloadLimits
from parakeet_worker.audio.windows import Cutting
from parakeet_worker.errors import Code, JobError
from parakeet_worker.model.card import Card
from parakeet_worker.model.engine import Heard
from parakeet_worker.model.hypothesis import Hypothesis
from parakeet_worker.model.timestamps import Token
from parakeet_worker.progress import Progress
from parakeet_worker.record import Record
from parakeet_worker.transcription import Limits, Transcription

CUTTING = Cutting(whole=10.0, shortest=3.0, longest=4.0, overlap=0.5)
LIMITS = Limits(DownloadLimits(100_000_000, 5), max_seconds=60.0, cutting=CUTTING)


class Model:
    """Hears "w" four times a second, each time in its place, and keeps what it was given."""

    def __init__(self, fail_at: int = -1) -> None:
        self.fail_at = fail_at
        self.lengths: list[int] = []
        self.delays: list[float] = []
        self.withdrawn = 0
        self.room = threading.Event()
        self.room.set()

    def stage(self, samples):
        return samples

    def submit(self, window, delay=0.0):
        answer: Future = Future()
        self.delays.append(delay)
        self.lengths.append(len(window))
        if len(self.lengths) - 1 == self.fail_at:
            answer.set_exception(JobError(Code.OUT_OF_MEMORY, "no memory"))
        else:
            count = len(window) // 4_000
            tokens = tuple(Token("▁w", index / 4, index / 4 + 0.1) for index in range(count))
            answer.set_result(Heard(Hypothesis(" ".join("w" * count), tokens), 1.0, 2.0, 3.0, 4))
        return answer

    def withdraw(self, answers):
        self.withdrawn += len(list(answers))

    def wait_for_room(self, abort):
        while not self.room.wait(0.01):
            abort.check()


def transcribe(data: bytes, model: Model, limits: Limits = LIMITS, report=lambda *_: None):
    transcription = Transcription(model, limits, Progress(report, iter(range(1_000)).__next__), Record())
    transcription.fetch(data_url(data))
    recording = transcription.decode()
    return recording, asyncio.run(transcription.hypothesis())


def test_a_short_recording_is_one_window():
    model = Model()
    recording, hypothesis = transcribe(encode(tone(10.0, 8_000), 8_000), model)
    assert (recording.duration, recording.sample_rate) == (10.0, 8_000)
    assert model.lengths == [160_000]
    assert hypothesis.text.count("w") == 40


def test_a_long_one_is_heard_in_windows_as_if_in_one():
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


def test_progress_is_reported_of_a_long_one():
    told = []
    transcribe(encode(tone(50.0)), Model(), report=lambda *seconds: told.append(seconds))
    assert told
    assert all(total == 50 for _, total in told)
    done = [seconds for seconds, _ in told]
    assert done == sorted(done)
    assert done[-1] < 50


@pytest.mark.parametrize("container", ["WAV", "FLAC"])
def test_too_long_is_known_from_the_header(container, monkeypatch):
    def no_reading(*_, **__):
        raise AssertionError("decoded before the length was checked")

    data = encode(np.zeros(16_000 * 90, np.float32), container=container)
    monkeypatch.setattr(soundfile.SoundFile, "read", no_reading)
    with pytest.raises(JobError) as raised:
        transcribe(data, Model())
    assert raised.value.code is Code.AUDIO_TOO_LONG
    assert raised.value.message == "the audio lasts 90.0 seconds, more than the 60 that are taken: split it"


def test_too_long_without_a_declared_length():
    data = bytearray(encode(tone(90.0), container="FLAC"))
    data[21] &= 0xF0  # the 36 bits of the number of samples, in STREAMINFO
    data[22:26] = bytes(4)
    model = Model()
    with pytest.raises(JobError, match=r"the audio lasts at least 6\d\.\d seconds, more than the 60") as raised:
        transcribe(bytes(data), model)
    assert raised.value.code is Code.AUDIO_TOO_LONG


def test_a_window_that_fails_stops_the_rest():
    model = Model(fail_at=2)
    with pytest.raises(JobError, match="no memory"):
        transcribe(encode(tone(50.0)), model)
    assert len(model.lengths) == 3


def test_an_abandoned_one_stops_while_it_waits_for_room():
    model = Model()
    model.room.clear()
    transcription = Transcription(model, LIMITS, Progress(lambda *_: None), Record())
    transcription.fetch(data_url(encode(tone(50.0))))
    threading.Timer(0.1, transcription.abandon).start()
    with pytest.raises(Aborted):
        transcription.decode()
    assert len(model.lengths) == 1
    assert model.withdrawn == 1


def test_an_hour_is_transcribed_by_the_real_model(ask, clips):
    """Here two minutes stand for it; the pauses between the clips are where the model was taught to expect an end."""
    rng = np.random.default_rng(0)
    parts, expected = [], []
    while sum(map(len, parts)) < 330 * 16_000:
        clip = clips[rng.integers(len(clips))]
        parts += [soundfile.read(clip.path, dtype="float32")[0], np.zeros(8_000, np.float32)]
        expected.append(clip.text)
    samples = np.concatenate(parts)
    answer = ask({"input": {"audio_url": data_url(encode(samples, container="FLAC")), "timestamps": True}})
    assert answer["status"] == "success"
    assert answer["duration"] == pytest.approx(len(samples) / 16_000, abs=0.001)

    words = answer["timestamps"]["word"]
    assert " ".join(word["word"] for word in words) == answer["text"]
    assert [span["char"] for span in answer["timestamps"]["char"]] == list(answer["text"])
    times = [time for word in words for time in (word["start"], word["end"])]
    assert times == sorted(times)
    assert 0.9 < len(words) / len(" ".join(expected).split()) < 1.1
    assert re.search(r"[.?!]$", answer["timestamps"]["segment"][0]["segment"])


def test_the_bundled_model_is_cut_as_its_card_says():
    assert Cutting(300.0, *Card.read(MODEL_DIR).windows) == Cutting(300.0, 0.5, 8.0, 0.0)
