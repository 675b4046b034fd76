"""What is measured: each subject lives in a process of its own, so that none profits from another's settings."""

import asyncio
import base64
import contextlib
import logging
import multiprocessing
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Protocol

import soundfile

from clips import Recording
from parakeet_worker.asr.scheduler import Scheduler
from parakeet_worker.model.network import Parakeet
from parakeet_worker.model.recognizer import PlainRecognizer
from parakeet_worker.model.self_check import CLIP

Stages = dict[str, float]

NONE: Mapping[str, object] = {}


@dataclass(frozen=True)
class Model:
    """A model in the forms that the subjects load, and where it runs."""

    archive: Path
    directory: Path
    device: str


@dataclass(frozen=True)
class Outcome:
    """What one run over the recordings gave.

    Attributes:
        seconds: Wall time.
        texts: A transcript for each recording, in order.
        padding: Padded seconds for each second of audio, where the subject knows.
        stages: Seconds in the preprocessor, the encoder and the decoder, where they were measured.
    """

    seconds: float
    texts: list[str]
    padding: float | None = None
    stages: Stages | None = None


class Subject(Protocol):
    """A way to transcribe recordings."""

    def run(self, recordings: Sequence[Recording], level: int, with_stages: bool) -> Outcome:
        """Transcribe the recordings, `level` of them at a time."""
        ...


class Reference:
    """NeMo's own `transcribe()`: of one path at a time, as the reference flow does, or of all in batches."""

    def __init__(self, model: Model) -> None:
        from nemo.collections.asr.models import ASRModel
        from omegaconf import open_dict

        self._model = ASRModel.restore_from(str(model.archive), map_location=model.device)
        with open_dict(self._model.cfg):
            self._model.cfg.validation_ds = {"use_start_end_token": False}  # transcribe() reads it

    def run(self, recordings: Sequence[Recording], level: int, with_stages: bool) -> Outcome:
        """Transcribe; `level` is the batch size of one call for all, or 0 for a call for each path."""
        paths = [str(recording.path) for recording in recordings]
        with _timed_stages(self._model, with_stages) as stages:
            started = time.perf_counter()
            if level == 0:
                found = [self._model.transcribe([path], verbose=False)[0] for path in paths]
            else:
                found = self._model.transcribe(paths, batch_size=level, verbose=False)
            elapsed = time.perf_counter() - started
        return Outcome(elapsed, [hypothesis.text for hypothesis in found], stages=stages)


class Worker:
    """The worker's handler, with `level` jobs in flight. A job carries its audio as a data: URL."""

    def __init__(self, model: Model) -> None:
        os.environ |= {"PARAKEET_MODEL": str(model.directory), "PARAKEET_DEVICE": model.device}
        os.environ |= {"PARAKEET_CONCURRENCY": "64", "RUNPOD_LOG_LEVEL": "ERROR"}
        sys.path.insert(0, str(Path(__file__).parents[1]))
        import handler

        self._handler = handler
        scheduler = handler.worker().actions.model
        assert isinstance(scheduler, Scheduler)
        self._scheduler = scheduler
        asyncio.run(handler.handler(_job(CLIP.read_bytes())))
        assert isinstance(scheduler.recognizer, PlainRecognizer)
        self._recognizer = scheduler.recognizer

    def run(
        self, recordings: Sequence[Recording], level: int, with_stages: bool, options: Mapping[str, object] = NONE
    ) -> Outcome:
        """Transcribe with `level` jobs in flight, which have further fields of a request."""
        jobs = [_job(recording.path.read_bytes(), options) for recording in recordings]
        before = self._scheduler.stats
        with _timed_stages(self._recognizer.model, with_stages) as stages:
            started = time.perf_counter()
            texts = asyncio.run(self._all(jobs, level))
            elapsed = time.perf_counter() - started
        after = self._scheduler.stats
        padding = (after.padded_s - before.padded_s) / (after.audio_s - before.audio_s)
        return Outcome(elapsed, texts, padding, stages)

    async def _all(self, jobs: Sequence[dict[str, Any]], level: int) -> list[str]:
        texts = [""] * len(jobs)
        waiting = iter(enumerate(jobs))

        async def client() -> None:
            for index, job in waiting:
                answer = await self._handler.handler(job)
                texts[index] = answer.get("text", f"failed: {answer}")

        await asyncio.gather(*[client() for _ in range(level)])
        return texts

    def latency(self, recording: Recording, times: int) -> tuple[float, float]:
        """Return the median seconds of a job alone, and of the bare forward pass on the same audio."""
        samples = soundfile.read(recording.path, dtype="float32")[0]
        job = _job(recording.path.read_bytes())
        whole, bare = [], []

        async def measure() -> None:
            for _ in range(times):
                started = time.perf_counter()
                await self._handler.handler(job)
                whole.append(time.perf_counter() - started)
                # The bare pass runs on the thread that owns the model too, and is timed there.
                before = self._scheduler.stats.busy_s
                await asyncio.wrap_future(self._scheduler.submit(samples))
                bare.append(self._scheduler.stats.busy_s - before)

        asyncio.run(measure())
        return statistics.median(whole), statistics.median(bare)


@contextlib.contextmanager
def _timed_stages(model: Any, is_wanted: bool) -> Iterator[Stages | None]:  # noqa: ANN401 - NeMo's, too
    """Measure the seconds in the stages of a model. On a GPU each stage is waited for, which costs overlap."""
    if not is_wanted:
        yield None
        return
    import torch

    stages: Stages = {"preprocessor": 0.0, "encoder": 0.0, "decoder": 0.0}

    def timed(stage: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
            started = time.perf_counter()
            result = function(*args, **kwargs)
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            stages[stage] += time.perf_counter() - started
            return result

        return call

    if isinstance(model, Parakeet):
        places = [(model.features, "forward", "preprocessor"), (model.search, "decode", "decoder")]
    else:
        places = [(model.preprocessor, "forward", "preprocessor")]
        places.append((model.decoding, "rnnt_decoder_predictions_tensor", "decoder"))
    places.append((model.encoder, "forward", "encoder"))
    for owner, name, stage in places:
        setattr(owner, name, timed(stage, getattr(owner, name)))
    try:
        yield stages
    finally:
        for owner, name, _ in places:
            delattr(owner, name)


def _job(audio: bytes, options: Mapping[str, object] = NONE) -> dict[str, Any]:
    url = f"data:audio/wav;base64,{base64.b64encode(audio).decode()}"
    return {"id": "bench", "input": {"audio_url": url, **options}}


class Remote:
    """A subject in another process.

    Args:
        kind: Its class.
        model: What it loads.
    """

    def __init__(self, kind: Callable[[Model], Subject], model: Model) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(kind, model, theirs), daemon=True)
        self._process.start()
        theirs.close()  # so that the end of the process is the end of the pipe
        self.call("ready")

    def call(self, method: str, *args: Any) -> Any:  # noqa: ANN401 - whatever the method returns
        """Call a method of the subject."""
        self._pipe.send((method, args))
        result = self._pipe.recv()
        if isinstance(result, Exception):
            raise result
        return result

    def close(self) -> None:
        """End the process."""
        self._process.terminate()
        self._process.join()


def _serve(kind: Callable[[Model], Subject], model: Model, pipe: Connection) -> None:
    logging.getLogger("nv_one_logger").setLevel(logging.ERROR)
    with (
        Path(os.devnull).open("w") as nowhere,
        contextlib.redirect_stdout(nowhere),
        contextlib.redirect_stderr(nowhere),
    ):
        subject: Subject | None = None
        while True:
            method, args = pipe.recv()
            try:
                subject = subject or kind(model)
                pipe.send(None if method == "ready" else getattr(subject, method)(*args))
            except Exception as error:  # noqa: BLE001 - the other side raises it
                pipe.send(RuntimeError(f"{type(error).__name__}: {error}"))
