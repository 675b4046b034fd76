"""What the worker says of its model, and what it refuses for its engine."""

import asyncio
import base64
import threading
from dataclasses import replace
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from audio_files import encode, tone
from parakeet_worker import __version__
from parakeet_worker.asr.scheduler import Scheduler
from parakeet_worker.audio.chunking import ChunkingConfig
from parakeet_worker.audio.fetch.download import DownloadLimits
from parakeet_worker.errors import Code, JobError
from parakeet_worker.job.actions import Actions, JobContext
from parakeet_worker.job.request import parse_request, schema
from parakeet_worker.job.transcribe import Limits
from parakeet_worker.model.card import Card
from project import MODEL_DIR
from recognizers import Hears

CARD = replace(Card.read(MODEL_DIR), features=("Automatic punctuation",))
AUDIO = base64.b64encode(encode(tone(0.5))).decode()


def actions(
    load: Any = lambda: Hears("hello"), pass_s: float = 300, request_s: float = 14_400.0, engine: str = "plain"
) -> Actions:
    limits = Limits(DownloadLimits(100_000, 5), request_s, ChunkingConfig(pass_s, 0.2, 0.4, 0.1))
    return Actions(Scheduler(load), CARD, limits, 1, engine=engine)


async def run(worker: Actions, **fields: Any) -> Any:
    return await worker.run(parse_request({"input": fields}), JobContext(1_000_000, lambda *_: None))


def model_info(worker: Actions) -> Any:
    info = asyncio.run(run(worker, action="model_info"))
    Draft202012Validator(schema("model_info")).validate({"status": "success"} | info)
    return info


def test_what_is_loaded() -> None:
    recognizer = Hears("hello")
    recognizer.device_name, recognizer.precision_name = "NVIDIA L4", "bfloat16"
    info = model_info(actions(lambda: recognizer))
    shown = {name: info[name] for name in ("version", "engine", "device", "precision")}
    assert shown == {"version": __version__, "engine": "plain", "device": "NVIDIA L4", "precision": "bfloat16"}


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (300, "5 minutes"),
        (60, "1 minute"),
        (14_400.0, "240 minutes"),
        (90, "90 seconds"),
        (30.0, "30 seconds"),
        (1, "1 second"),
        (0.5, "0.5 seconds"),
    ],
)
def test_times_in_words_and_in_numbers(seconds: float, words: str) -> None:
    info = model_info(actions(pass_s=seconds))
    assert (info["max_duration"], info["max_pass_seconds"]) == (f"{words} per pass", seconds)
    info = model_info(actions(request_s=seconds))
    assert (info["max_request_duration"], info["max_request_seconds"]) == (f"{words} per request", seconds)


def test_features_are_those_of_the_engine() -> None:
    assert model_info(actions(engine="plain"))["features"] == [
        "Automatic punctuation",
        "Confidence scores",
        "Key terms",
        "Captions (SRT, VTT)",
    ]
    assert model_info(actions(engine="nemo"))["features"] == ["Automatic punctuation", "Captions (SRT, VTT)"]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"confidence": True}, "confidence is not available with this worker's engine (nemo): leave it out"),
        ({"keyterms": ["Jo"]}, "keyterms is not available with this worker's engine (nemo): leave it out"),
        (
            {"keyterms": ["Jo"], "confidence": True},
            "confidence and keyterms are not available with this worker's engine (nemo): leave them out",
        ),
    ],
)
def test_options_that_the_engine_does_not_have(fields: Any, message: str) -> None:
    """They are refused before anything is downloaded or loaded."""

    def load() -> Any:
        raise AssertionError("loaded for a job that is refused")

    with pytest.raises(JobError) as refused:
        asyncio.run(run(actions(load, engine="nemo"), audio_url="http://127.0.0.1:1/a.wav", **fields))
    assert (refused.value.code, refused.value.message) == (Code.UNSUPPORTED_OPTION, message)


@pytest.mark.parametrize(
    ("engine", "fields"),
    [
        ("nemo", {"confidence": False, "keyterms": [], "captions": "srt", "timestamps": ["word"]}),
        ("plain", {"confidence": True}),
    ],
)
def test_options_that_it_has(engine: str, fields: Any) -> None:
    assert asyncio.run(run(actions(engine=engine), audio_base64=AUDIO, **fields))["text"] == "hello"


def test_a_model_that_cannot_be_loaded_is_not_described() -> None:
    """As a job is not transcribed; once the model is loaded for one, it is described as well."""
    failures = iter([OSError("no weights"), SystemExit(1)])

    def load() -> Any:
        raise next(failures)

    for _ in range(2):
        with pytest.raises(JobError) as failed:
            asyncio.run(run(actions(load), action="model_info"))
        assert failed.value.code is Code.MODEL_UNAVAILABLE
        assert isinstance(failed.value.__cause__, OSError | SystemExit)

    loads = iter([OSError("no weights")])

    def load_later() -> Any:
        if error := next(loads, None):
            raise error
        return Hears("hello")

    worker = actions(load_later)
    with pytest.raises(JobError):
        model_info(worker)
    assert asyncio.run(run(worker, audio_base64=AUDIO))["text"] == "hello"
    assert model_info(worker)["device"] == "cpu"


def test_a_job_that_is_cancelled_while_the_model_loads_harms_no_other() -> None:
    gate = threading.Event()

    def load() -> Any:
        gate.wait(10)
        return Hears("hello")

    worker = actions(load)

    async def cancel_one_of_two() -> Any:
        one, other = (asyncio.create_task(run(worker, action="model_info")) for _ in range(2))
        await asyncio.sleep(0.05)
        assert not one.done()
        one.cancel()
        await asyncio.wait({one})
        assert one.cancelled()
        gate.set()
        return await asyncio.wait_for(other, 5)

    assert asyncio.run(cancel_one_of_two())["device"] == "cpu"
