"""What touches RunPod's SDK: the worker behind the handler, its log, its fitness, and the SDK's loop."""

import os
import time
import traceback
from collections.abc import Awaitable, Callable
from typing import Any

import runpod
from runpod.serverless.modules.rp_logger import RunPodLogger

from parakeet_worker import contract
from parakeet_worker.dispatch import Caller, Dispatcher
from parakeet_worker.envelope import Envelope, failure, success
from parakeet_worker.errors import Code, JobError

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
            envelope = success(await self._dispatcher(contract.parse(job), _caller(job)))
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

    async def ready(self) -> None:
        """Wait until the model is loaded and checked.

        Raises:
            Exception: What keeps the worker from serving.
        """
        await self._dispatcher.ready()

    def close(self) -> None:
        """End, once all jobs that wait for the model are answered."""
        self._dispatcher.close()

    def _refuse(self, error: JobError, job_id: str | None) -> Envelope:
        said = f"{error.code.value}: {error.message}"
        if error.code in (Code.INTERNAL_ERROR, Code.MODEL_UNAVAILABLE, Code.OUT_OF_MEMORY):
            log.error(f"{said} ({error.__cause__!r})" if error.__cause__ else said, job_id)
        else:
            log.warn(said, job_id)
        return failure(error)


def _caller(job: object) -> Caller:
    """Say what the platform takes for the caller of a job: 20 MB for `/runsync`, 10 MB otherwise, and some room."""
    known = job if isinstance(job, dict) else {}
    is_sync = str(known.get("id", "")).startswith("sync-")

    def report(done: float, total: float | None) -> None:
        runpod.serverless.progress_update(known, {"seconds_done": done, "seconds_total": total})

    def ignore(done: float, total: float | None) -> None:
        pass

    is_on_platform = "id" in known and "RUNPOD_WEBHOOK_POST_OUTPUT" in os.environ
    return Caller(19_000_000 if is_sync else 9_500_000, report if is_on_platform else ignore)


def serve(handler: Handler, worker: Worker, concurrency: int) -> None:
    """Hand the handler to RunPod's SDK, which reads the command line and runs until it is stopped.

    On the platform, a worker whose model cannot be loaded or does not transcribe as it should exits before it takes a
    job, and says why.

    Args:
        handler: What answers a job.
        worker: What is behind it.
        concurrency: Jobs that it takes at a time.
    """

    async def model_is_fit() -> None:
        await worker.ready()

    # The SDK's own default, DEBUG, prints every job's input and output. --rp_log_level still has the last word.
    if not os.environ.keys() & {"RUNPOD_LOG_LEVEL", "RUNPOD_DEBUG_LEVEL"}:
        log.level = "INFO"
    runpod.serverless.register_fitness_check(model_is_fit)
    try:
        # Constant: the SDK lets every job end before it changes the number.
        runpod.serverless.start({"handler": handler, "concurrency_modifier": lambda _: concurrency})
    finally:
        # A thread that is still loading must not outlive the interpreter.
        worker.close()
