"""The worker: one job in, one envelope and one line of the log out."""

import asyncio
import gc
import traceback
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import runpod
from runpod import RunPodLogger

from parakeet_worker.errors import Code, JobError
from parakeet_worker.exhaustion import resource_error
from parakeet_worker.job.actions import Actions, JobContext
from parakeet_worker.job.metrics import CANCELLED, SUCCESS, JobMetrics
from parakeet_worker.job.request import Action, parse_request
from parakeet_worker.serverless.delivery import progress_callback
from parakeet_worker.serverless.envelope import Envelope, StoreEnvelope, failure, internal_failure, success
from parakeet_worker.serverless.job_ids import loggable_id
from parakeet_worker.serverless.logger import write_line
from parakeet_worker.serverless.platform import has_queue
from parakeet_worker.serverless.summary import Summary

# Faults of the worker rather than of the request.
_FAULTS = (Code.INTERNAL_ERROR, Code.MODEL_UNAVAILABLE, Code.OUT_OF_MEMORY, Code.DEVICE_FAILED, Code.WORKER_BUSY)

# After so many jobs that ran out of memory, and none between them that succeeded, the worker is replaced: it may be the
# cause.
_MOST_OUT_OF_MEMORY = 3

# The innermost frames of a traceback that are logged. The SDK's logger cuts a longer line in its middle.
_MOST_FRAMES = 20

# What the platform takes: 20 MB for `/runsync`, 10 MB for `/run`, less some room for its own fields.
_MAX_SYNC_BYTES, _MAX_ASYNC_BYTES = 19_000_000, 9_500_000

_log = RunPodLogger()


class Worker:
    """Answers jobs, whatever they hold.

    Args:
        actions: Carries out valid requests.
        logs_json: Whether a job's line in the log is a JSON object.
        summary: Counts jobs.
        store: Stores answers that are larger than the platform takes.

    Attributes:
        actions: Carries out valid requests.
        store: As above.
    """

    def __init__(
        self,
        actions: Actions,
        *,
        logs_json: bool = False,
        summary: Summary | None = None,
        store: StoreEnvelope | None = None,
    ) -> None:
        self.actions = actions
        self.store = store
        self._logs_json = logs_json
        self._out_of_memory = 0
        self._summary = summary or Summary()

    async def answer(self, job: object) -> Envelope:
        """Return the envelope of a job's answer, and log a line about it.

        Args:
            job: What the platform gave: `{"id": …, "input": {…}}`, if it is valid.

        Raises:
            asyncio.CancelledError: The job was cancelled. Nothing else is raised: the SDK would show a caller the
                traceback of any other exception.
        """
        job_id = loggable_id(job.get("id")) if isinstance(job, dict) else None
        metrics = JobMetrics()
        self._summary.begin()
        try:
            return await self._carry_out(job, job_id, metrics)
        except asyncio.CancelledError:
            metrics.code = CANCELLED
            raise
        finally:
            self._write(metrics, job_id)
            self._summary.end(metrics)

    async def ready(self) -> None:
        """Wait until the model is loaded and checked.

        Raises:
            Exception: It could not be loaded, or does not transcribe as it should.
        """
        await self.actions.ready()

    def start_summary(self) -> None:
        """Log a summary every five minutes from now on, and when the worker is closed."""
        self._summary.start(partial(write_line, level="INFO", as_json=self._logs_json))

    def close(self) -> None:
        """Close the worker, once the windows that are queued are decoded."""
        # First: the platform may not wait for the model.
        self._summary.close()
        self.actions.close()

    async def _carry_out(self, job: object, job_id: str | None, metrics: JobMetrics) -> Envelope:
        try:
            request = parse_request(job)
            metrics.action = request.action
            context = _context(job, request.action, metrics, self.store)
            envelope = success(request.action, await self.actions.run(request, context))
        except Exception as error:  # noqa: BLE001 - every job gets an answer
            envelope = self._failure(error, job_id)
        else:
            self._out_of_memory = 0
        metrics.code, metrics.error = envelope.get("code", SUCCESS), envelope.get("error", "")
        return envelope

    def _failure(self, error: Exception, job_id: str | None) -> Envelope:
        """Return the envelope for an exception. Log where it was raised if it is a fault of the worker."""
        job_error = error if isinstance(error, JobError) else resource_error(error)
        if job_error is None or (job_error.code in _FAULTS and job_error.__cause__):
            cause = job_error.__cause__ if job_error and job_error.__cause__ else error
            said = f"{type(cause).__name__} at {_where(cause)}"
            # The text of an exception could hold a signed URL, unless it comes from loading the model.
            if job_error and job_error.code is Code.MODEL_UNAVAILABLE:
                said = f"{str(cause).partition(chr(10))[0]} ({said})"
            _log.error(said, job_id)
        if job_error is None:
            return internal_failure()
        if job_error.code is not Code.OUT_OF_MEMORY:
            return failure(job_error)
        self._out_of_memory += 1
        # Frames and exceptions refer to each other, and hold the memory until they are collected.
        gc.collect()
        return failure(job_error, refresh_worker=self._out_of_memory >= _MOST_OUT_OF_MEMORY)

    def _write(self, metrics: JobMetrics, job_id: str | None) -> None:
        is_fine = metrics.code in (SUCCESS, CANCELLED)
        level = "INFO" if is_fine else "ERROR" if metrics.code in _FAULTS else "WARN"
        write_line(metrics, level, job_id, as_json=self._logs_json)


def _where(error: BaseException) -> str:
    """Return where an exception was raised, in one line, innermost frame first: `formats/wav.py:81 in read, …`."""
    frames = [(frame.f_code, number) for frame, number in traceback.walk_tb(error.__traceback__)]
    shown = frames[-_MOST_FRAMES:][::-1]
    places = [f"{'/'.join(Path(code.co_filename).parts[-2:])}:{number} in {code.co_name}" for code, number in shown]
    return ", ".join(places)


def _context(job: object, action: Action, metrics: JobMetrics, store: StoreEnvelope | None) -> JobContext:
    known = job if isinstance(job, dict) else {}
    is_sync = str(known.get("id", "")).startswith("sync-")

    def report(done: float, total: float | None) -> None:
        if has_queue():  # and the SDK's own loop, which sets no callback
            runpod.serverless.progress_update(known, {"seconds_done": done, "seconds_total": total})

    async def store_fields(fields: Mapping[str, Any]) -> str | None:
        return await store(known.get("id"), success(action, fields)) if store else None

    max_bytes = _MAX_SYNC_BYTES if is_sync else _MAX_ASYNC_BYTES
    return JobContext(max_bytes, progress_callback.get(report), metrics, store_fields if store else None)
