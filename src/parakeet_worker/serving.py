"""What touches RunPod's SDK: the worker behind the handler, its log, its fitness, and the SDK's start."""

import asyncio
import os
import signal
import sys
import traceback
from collections.abc import Awaitable, Callable
from functools import cache
from typing import Any, NoReturn

import runpod
from runpod.serverless.modules import rp_scale
from runpod.serverless.modules.rp_logger import LOG_LEVELS, RunPodLogger

from parakeet_worker import contract
from parakeet_worker.dispatch import Caller, Dispatcher
from parakeet_worker.envelope import Envelope, failure, internal_failure, success
from parakeet_worker.errors import Code, JobError
from parakeet_worker.loop import JobLoop
from parakeet_worker.progress import teller
from parakeet_worker.record import CANCELLED, SUCCESS, Record

Handler = Callable[[Any], Awaitable[Envelope]]

# Faults of the worker rather than of the request.
_FAULTS = (Code.INTERNAL_ERROR, Code.MODEL_UNAVAILABLE, Code.OUT_OF_MEMORY, Code.DEVICE_FAILED)

_HELP = ("-h", "--help")

log = RunPodLogger()


class Worker:
    """Answers jobs, whatever is in them.

    Args:
        dispatcher: Carries out valid requests.
        logs_json: Whether a job's line in the log is a JSON object.
    """

    def __init__(self, dispatcher: Dispatcher, *, logs_json: bool = False) -> None:
        self._dispatcher = dispatcher
        self._logs_json = logs_json

    async def answer(self, job: object) -> Envelope:
        """Turn a job into its envelope. Only cancellation leaves as an exception: the SDK would show any other's
        traceback, host and worker to the caller.
        """  # noqa: D205 - one thought
        job_id = job.get("id") if isinstance(job, dict) else None
        record = Record()
        try:
            return await self._carry_out(job, job_id, record)
        except asyncio.CancelledError:
            record.code = CANCELLED
            raise
        finally:
            self._log(record, job_id)

    async def _carry_out(self, job: object, job_id: str | None, record: Record) -> Envelope:
        try:
            request = contract.parse(job)
            record.action = request.action
            envelope = success(await self._dispatcher(request, _caller(job), record))
        except JobError as error:
            if error.code in _FAULTS and error.__cause__:
                log.error(repr(error.__cause__), job_id)
            envelope = failure(error)
        except Exception as error:  # noqa: BLE001 - every job gets an answer
            # The exception's own text could hold a signed URL: where it happened is enough.
            where = "".join(traceback.format_tb(error.__traceback__))
            log.error(f"{type(error).__name__} at\n{where}", job_id)
            envelope = internal_failure()
        record.code, record.error = envelope.get("code", SUCCESS), envelope.get("error", "")
        return envelope

    def _log(self, record: Record, job_id: str | None) -> None:
        is_well = record.code in (SUCCESS, CANCELLED)
        level = "INFO" if is_well else "ERROR" if record.code in _FAULTS else "WARN"
        if not self._logs_json:
            log.log(str(record), level, job_id)
        elif log.level != "NOTSET" and LOG_LEVELS.index(log.level) <= LOG_LEVELS.index(level):
            print(record.as_json(job_id, level), flush=True)  # noqa: T201 - the SDK's logger would put it into a string

    async def ready(self) -> None:
        """Wait until the model is loaded and checked.

        Raises:
            Exception: What keeps the worker from serving.
        """
        await self._dispatcher.ready()

    def close(self) -> None:
        """End, once all jobs that wait for the model are answered."""
        self._dispatcher.close()


def _caller(job: object) -> Caller:
    """Say what the platform takes for the caller of a job: 20 MB for `/runsync`, 10 MB otherwise, and some room."""
    known = job if isinstance(job, dict) else {}
    is_sync = str(known.get("id", "")).startswith("sync-")

    def ignore(done: float, total: float | None) -> None:
        pass

    return Caller(19_000_000 if is_sync else 9_500_000, teller.get(ignore))


@cache
def choose_log_level() -> None:
    """Log what an operator needs, not the SDK's default, DEBUG. The environment and `--rp_log_level` decide otherwise.

    Once: the SDK reads and removes its arguments when it starts, which is too late for what is logged before.
    """
    options, _ = runpod.serverless.parser.parse_known_args([word for word in sys.argv[1:] if word not in _HELP])
    if options.rp_log_level and options.rp_log_level.upper() in LOG_LEVELS:
        log.level = options.rp_log_level.upper()
    elif not os.environ.keys() & {"RUNPOD_LOG_LEVEL", "RUNPOD_DEBUG_LEVEL"}:
        log.level = "INFO"


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

    choose_log_level()
    runpod.serverless.register_fitness_check(model_is_fit)
    # A stop before the loop has begun: the first process of a container would otherwise not hear it.
    signal.signal(signal.SIGTERM, _leave)
    rp_scale.JobScaler = JobLoop
    try:
        runpod.serverless.start({"handler": handler, "concurrency_modifier": lambda _: concurrency})
    finally:
        # A thread that is still loading must not outlive the interpreter.
        worker.close()


def _leave(*_: object) -> NoReturn:
    sys.exit(0)
