"""What touches RunPod's SDK: the worker behind the handler, its log, its fitness, and the SDK's start."""

import asyncio
import gc
import multiprocessing
import os
import signal
import sys
import threading
import traceback
from collections.abc import Awaitable, Callable
from functools import cache, partial
from pathlib import Path
from typing import Any, NoReturn

import runpod
from runpod import RunPodLogger
from runpod.serverless.modules.rp_logger import LOG_LEVELS

from parakeet_worker import contract
from parakeet_worker.dispatch import Caller, Dispatcher
from parakeet_worker.envelope import Envelope, failure, internal_failure, success
from parakeet_worker.errors import Code, JobError
from parakeet_worker.exhaustion import explain
from parakeet_worker.job_ids import loggable_id
from parakeet_worker.limits import jobs_for_files
from parakeet_worker.log import Line, drain, json_line, printable
from parakeet_worker.progress import teller
from parakeet_worker.record import CANCELLED, SUCCESS, Record
from parakeet_worker.summary import Summary

Handler = Callable[[Any], Awaitable[Envelope]]

# Faults of the worker rather than of the request.
_FAULTS = (Code.INTERNAL_ERROR, Code.MODEL_UNAVAILABLE, Code.OUT_OF_MEMORY, Code.DEVICE_FAILED, Code.WORKER_BUSY)

# After so many jobs in a row for which the memory was too small, it may be the worker's fault.
_MOST_OUT_OF_MEMORY = 3

# All jobs are answered before; what the model still decodes is for nobody.
_CLOSING_S = 1.0

# The innermost frames of a traceback, which say most; the SDK cuts what is longer in its middle.
_MOST_FRAMES = 20

_HELP = ("-h", "--help")

log = RunPodLogger()


class Worker:
    """Answers jobs, whatever is in them.

    Args:
        dispatcher: Carries out valid requests.
        logs_json: Whether a job's line in the log is a JSON object.
        summary: Counts jobs.
    """

    def __init__(self, dispatcher: Dispatcher, *, logs_json: bool = False, summary: Summary | None = None) -> None:
        self._dispatcher = dispatcher
        self._logs_json = logs_json
        self._out_of_memory = 0
        self._summary = summary or Summary()

    async def answer(self, job: object) -> Envelope:
        """Turn a job into its envelope. Only cancellation leaves as an exception: the SDK would show any other's
        traceback, host and worker to the caller.
        """  # noqa: D205 - one thought
        job_id = loggable_id(job.get("id")) if isinstance(job, dict) else None
        record = Record()
        self._summary.begin()
        try:
            return await self._carry_out(job, job_id, record)
        except asyncio.CancelledError:
            record.code = CANCELLED
            raise
        finally:
            self._log(record, job_id)
            self._summary.end(record)

    async def _carry_out(self, job: object, job_id: str | None, record: Record) -> Envelope:
        try:
            request = contract.parse(job)
            record.action = request.action
            envelope = success(await self._dispatcher(request, _caller(job), record))
        except Exception as error:  # noqa: BLE001 - every job gets an answer
            envelope = self._failure(error, job_id)
        else:
            self._out_of_memory = 0
        record.code, record.error = envelope.get("code", SUCCESS), envelope.get("error", "")
        return envelope

    def _failure(self, error: Exception, job_id: str | None) -> Envelope:
        """Wrap what kept a job from being answered, and log it where it is a fault of the worker."""
        told = error if isinstance(error, JobError) else explain(error)
        if told is None or (told.code in _FAULTS and told.__cause__):
            # An exception's own text could hold a signed URL: where it happened is enough.
            cause = told.__cause__ if told and told.__cause__ else error
            log.error(f"{type(cause).__name__} at {_where(cause)}", job_id)
        if told is None:
            return internal_failure()
        if told.code is not Code.OUT_OF_MEMORY:
            return failure(told)
        self._out_of_memory += 1
        # Frames and exceptions refer to each other, and keep what did not fit until they are collected.
        gc.collect()
        return failure(told, refresh_worker=self._out_of_memory >= _MOST_OUT_OF_MEMORY)

    def _log(self, record: Record, job_id: str | None) -> None:
        is_well = record.code in (SUCCESS, CANCELLED)
        level = "INFO" if is_well else "ERROR" if record.code in _FAULTS else "WARN"
        write_line(record, level, job_id, as_json=self._logs_json)

    async def ready(self) -> None:
        """Wait until the model is loaded and checked.

        Raises:
            Exception: What keeps the worker from serving.
        """
        await self._dispatcher.ready()

    def start_summary(self) -> None:
        """Log what is done from now on, every five minutes and when the worker is closed."""
        self._summary.start(partial(write_line, level="INFO", as_json=self._logs_json))

    def close(self) -> None:
        """End, once all jobs that wait for the model are answered."""
        # First: the platform may not wait for the model.
        self._summary.close()
        self._dispatcher.close()


def write_line(line: Line, level: str, job_id: str | None = None, *, as_json: bool) -> None:
    """Write a line that has fields, where the level of the log lets it through."""
    if not as_json:
        log.log(printable(str(line)), level, job_id)
    elif log.level != "NOTSET" and LOG_LEVELS.index(log.level) <= LOG_LEVELS.index(level):
        # The SDK's logger would put the object into a string.
        print(json_line(str(line), level, job_id, line.fields()), flush=True)  # noqa: T201


def _where(error: BaseException) -> str:
    """Return where an exception was raised, in one line and from the inside out: `audio/wav.py:81 in read, …`."""
    frames = [(frame.f_code, number) for frame, number in traceback.walk_tb(error.__traceback__)]
    shown = frames[-_MOST_FRAMES:][::-1]
    places = [f"{'/'.join(Path(code.co_filename).parts[-2:])}:{number} in {code.co_name}" for code, number in shown]
    return ", ".join(places)


def _caller(job: object) -> Caller:
    """Say what the platform takes for the caller of a job: 20 MB for `/runsync`, 10 MB otherwise, and some room."""
    known = job if isinstance(job, dict) else {}
    is_sync = str(known.get("id", "")).startswith("sync-")

    def report(done: float, total: float | None) -> None:
        if _has_queue():  # and the SDK's own loop, where nobody has set a teller
            runpod.serverless.progress_update(known, {"seconds_done": done, "seconds_total": total})

    return Caller(19_000_000 if is_sync else 9_500_000, teller.get(report))


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


def serve(handler: Handler, worker: Worker, concurrency: int, loop: str = "worker") -> None:
    """Hand the handler to RunPod's SDK, which reads the command line and runs until it is stopped.

    On the platform, a worker whose model cannot be loaded or does not transcribe as it should exits before it takes a
    job, and says why.

    Args:
        handler: What answers a job.
        worker: What is behind it.
        concurrency: Jobs that it takes at a time, if the limit on open files carries them.
        loop: `worker`, or `sdk` for RunPod's own loop.
    """

    async def model_is_fit() -> None:
        await worker.ready()
        # Here, since the SDK's local modes, whose output is a result, have no such checks.
        worker.start_summary()

    choose_log_level()
    runpod.serverless.register_fitness_check(model_is_fit)
    # A stop before the loop has begun: the first process of a container would otherwise not hear it.
    signal.signal(signal.SIGTERM, _stop)
    is_on_platform = _has_queue()
    if is_on_platform:
        _choose_loop(loop)
    jobs = jobs_for_files(concurrency)
    if jobs < concurrency:
        log.warn(f"The limit on open files carries {jobs} jobs at a time, not {concurrency}.")
    try:
        runpod.serverless.start({"handler": handler, "concurrency_modifier": lambda _: jobs})
    finally:
        if is_on_platform:
            _leave(worker)
        # A thread that is still loading must not outlive the interpreter.
        worker.close()


def _has_queue() -> bool:
    """Return whether the SDK takes jobs from a queue, as it decides itself, rather than run one of its local modes."""
    return "RUNPOD_WEBHOOK_GET_JOB" in os.environ


def _choose_loop(name: str) -> None:
    """Have the SDK run our loop, or say why it does not."""
    reason: str | None = "PARAKEET_LOOP is sdk"
    if name != "sdk":
        try:
            from parakeet_worker.loop import install

            reason = install()
        except ImportError:
            reason = f"version {runpod.__version__} of RunPod's SDK lacks what the worker's loop is built on"
    if reason is None:
        return
    log.warn(f"RunPod's own loop takes the jobs: {reason}. It is slower, and may lose jobs when the worker stops.")
    if LOG_LEVELS.index(log.level) < LOG_LEVELS.index("INFO") and log.level != "NOTSET":
        log.warn("The log level is INFO: below it, RunPod's own loop prints transcripts.")
        sys.argv += ["--rp_log_level", "INFO"]  # the SDK reads them once more, and takes the last


def _stop(*_: object) -> NoReturn:
    sys.exit(0)


def _leave(worker: Worker) -> None:
    """End the process without waiting for threads: a name that is looked up in vain holds one for half a minute."""
    error = sys.exc_info()[1]
    if error is not None and not isinstance(error, SystemExit):
        return
    closing = threading.Thread(target=worker.close, daemon=True)
    closing.start()
    closing.join(_CLOSING_S)
    for child in multiprocessing.active_children():  # the SDK's heartbeat
        child.terminate()
    drain()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(error.code if isinstance(error, SystemExit) and isinstance(error.code, int) else 0)
