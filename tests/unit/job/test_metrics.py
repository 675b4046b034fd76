"""What a job's line in the log says."""

import json
from typing import Any

import pytest

from parakeet_worker.asr.types import Hypothesis, WindowResult
from parakeet_worker.job.metrics import JobMetrics
from parakeet_worker.serverless.log import json_line


def heard(queued: float, started: float, ended: float, batch: int) -> WindowResult:
    return WindowResult(lambda: Hypothesis("secret words", ()), queued, started, ended, batch)


def clock_of(*times: float) -> Any:
    return iter(times).__next__


def test_a_transcription() -> None:
    record = JobMetrics(clock_of(10.0, 10.1, 10.3, 10.5, 10.5))
    record.action, record.audio_s = "transcribe", 61.52
    with record.timer.stage("download"):
        pass
    # Two windows of one batch, and one of another.
    record.add_windows([heard(1.0, 1.5, 2.0, 4), heard(1.25, 1.5, 2.0, 4), heard(2.0, 2.25, 2.5, 2)])
    fields = record.fields()
    assert fields == {
        "action": "transcribe",
        "code": "ok",
        "audio_s": 61.52,
        "seconds": 0.5,
        "download_s": 0.2,
        "queue_s": 0.5,
        "model_s": 0.75,
        "batch": 4,
        "rtfx": 123.04,
    }
    assert str(record) == (
        "transcribe ok: 61.520 s of audio in 0.500 s (RTFx 123), "
        "download 0.200 s, queue 0.500 s, model 0.750 s, batch 4"
    )


def test_a_silent_recording_needs_no_model() -> None:
    record = JobMetrics(clock_of(0.0, 0.5, 0.5))
    record.action, record.audio_s = "transcribe", 20.0
    record.add_windows([])
    assert str(record) == "transcribe ok: 20.000 s of audio in 0.500 s (RTFx 40)"


def test_a_failure_has_no_rtfx() -> None:
    record = JobMetrics(clock_of(0.0, 2.0, 2.0))
    record.action, record.code, record.error = "transcribe", "corrupt_audio", "the audio is truncated"
    record.audio_s = 3.0
    assert str(record) == "transcribe corrupt_audio (the audio is truncated): 3.000 s of audio in 2.000 s"


def test_what_failed_is_timed_too() -> None:
    record = JobMetrics(clock_of(0.0, 1.0, 3.0, 4.0))
    with pytest.raises(OSError, match="x"), record.timer.stage("download"):
        raise OSError("x")
    assert record.fields()["download_s"] == 2.0


def test_json_has_what_the_line_has() -> None:
    record = JobMetrics(clock_of(0.0, 0.25, 0.25))
    record.action = "model_info"
    assert json.loads(json_line(str(record), "INFO", "job-1", record.fields())) == {
        "requestId": "job-1",
        "level": "INFO",
        "message": "model_info ok: 0.250 s",
        "action": "model_info",
        "code": "ok",
        "seconds": 0.25,
    }
