"""What touches RunPod's SDK: the worker behind the handler, its log, and the start of the SDK's loop."""

import os
import time
import traceback
from collections.abc import Awaitable, Callable
from typing import Any

import runpod
from runpod.serverless.modules.rp_logger import RunPodLogger

from parakeet_worker import contract
from parakeet_worker.audio.source import DownloadLimits
from parakeet_worker.dispatch import Dispatcher
from parakeet_worker.envelope import Envelope, failure, success
from parakeet_worker.errors import Code, JobError
from parakeet_worker.model.card import Card
from parakeet_worker.model.engine import Engine
from parakeet_worker.model.hypothesis import Recognizer
from parakeet_worker.model.memory import keep_large_blocks
from parakeet_worker.settings import Settings, SettingsError

Handler = Callable[[Any], Awaitable[Envelope]]

log = RunPodLogger()


class Worker:
    """Answers jobs, whatever is in them.

    Args:
        dispatcher: Carries out valid requests.
    """

    def __init__(self, dispatcher: Dispatcher) -> None:
        self._dispatcher = dispatcher

    async def answer(self, job: object) -> Envelope:
        """Turn a job into its envelope. Only cancellation leaves as an exception: the SDK would show any other's
        traceback, host and worker to the caller.
        """  # noqa: D205 - one thought
        job_id = job.get("id") if isinstance(job, dict) else None
        started = time.monotonic()
        try:
            envelope = success(await self._dispatcher(contract.parse(job)))
        except JobError as error:
            return self._refuse(error, job_id)
        except Exception as error:  # noqa: BLE001 - every job gets an answer
            # The exception's own text could hold a signed URL: where it happened is enough.
            where = "".join(traceback.format_tb(error.__traceback__))
            log.error(f"{type(error).__name__} at\n{where}", job_id)
            return self._refuse(
                JobError(Code.INTERNAL_ERROR, "the worker failed to process the job; try again"), job_id
            )
        log.info(f"Answered in {time.monotonic() - started:.3f} s.", job_id)
        return envelope

    def _refuse(self, error: JobError, job_id: str | None) -> Envelope:
        said = f"{error.code.value}: {error.message}"
        if error.code in (Code.INTERNAL_ERROR, Code.MODEL_UNAVAILABLE, Code.OUT_OF_MEMORY):
            log.error(f"{said} ({error.__cause__!r})" if error.__cause__ else said, job_id)
        else:
            log.warn(said, job_id)
        return failure(error)


def build_worker(settings: Settings) -> Worker:
    """Assemble the worker. The model is loaded by the first job that needs it."""

    def load() -> Recognizer:
        # OpenMP's threads wait for each other by spinning, for milliseconds unless told otherwise. Beside another busy
        # process that made forward passes three times slower; so short a spin costs 7 percent on idle cores. It is
        # read when torch is loaded.
        os.environ.setdefault("GOMP_SPINCOUNT", "1000")
        # torch and NeMo take seconds to import, and only a transcription needs them.
        from parakeet_worker.model.device import make_plan, use_plan
        from parakeet_worker.model.recognizer import NemoRecognizer

        plan = make_plan(settings, card.parameters)
        use_plan(plan, settings.cpu_threads)
        return NemoRecognizer(settings.model_dir, plan)

    if not settings.is_gpu_expected:
        keep_large_blocks()
    card = Card.read(settings.model_dir)
    limits = DownloadLimits(settings.max_download_mb * 1_000_000, settings.download_timeout_s)
    return Worker(Dispatcher(Engine(load), card, limits, settings.concurrency_on_device))


def start(handler: Handler, build: Callable[[], Worker]) -> None:
    """Hand the handler to RunPod's SDK, which reads the command line and runs until it is stopped.

    Args:
        handler: What answers a job.
        build: Makes the worker behind the handler. Called first, so that nonsense in the settings stops the start.

    Raises:
        SystemExit: A setting is nonsense; the message names it.
    """
    try:
        build()
        concurrency = Settings.from_env().concurrency_on_device
    except SettingsError as error:
        raise SystemExit(f"parakeet-worker: {error}") from error
    # The SDK's own default, DEBUG, prints every job's input and output. --rp_log_level still has the last word.
    if not os.environ.keys() & {"RUNPOD_LOG_LEVEL", "RUNPOD_DEBUG_LEVEL"}:
        log.level = "INFO"
    # Constant: the SDK lets every job end before it changes the number.
    runpod.serverless.start({"handler": handler, "concurrency_modifier": lambda _: concurrency})
