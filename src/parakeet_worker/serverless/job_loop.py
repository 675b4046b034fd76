"""The worker's replacement of the SDK's job loop, and all use of the SDK's private parts.

`JobLoop` is a subclass of the SDK's `JobScaler` that takes jobs, delivers results and stops in other ways:

- A job starts when it arrives. In the SDK's loop it waits up to 0.1 s.
- A full worker asks for more when one job ends. The SDK's asks once a second.
- A result is posted for 300 seconds. The SDK posts it three times.
- A stop ends the open poll. The SDK's waits for it, up to 90 s.
- A job that arrives while the worker stops is answered. In the SDK's loop it is lost.
- No log level prints a transcript.

The SDK does not promise that the parts it builds on stay as they are. `install()` compares their source with that of
the pinned version. If it differs, the SDK's own loop runs.
"""

import asyncio
import hashlib
import inspect
import signal
import sys
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import runpod
from aiohttp import ClientError, ClientSession
from runpod import RunPodLogger
from runpod.http_client import AsyncClientSession, TooManyRequests
from runpod.serverless import worker as sdk_worker
from runpod.serverless.modules import rp_scale
from runpod.serverless.modules.rp_http import JOB_DONE_URL
from runpod.serverless.modules.rp_job import JOB_GET_URL, _job_stop_url
from runpod.serverless.modules.rp_logger import _set_batch_id
from runpod.serverless.modules.rp_scale import JobScaler
from runpod.serverless.modules.worker_state import JobsProgress

from parakeet_worker.errors import Code, JobError
from parakeet_worker.http.retry import backoff_s
from parakeet_worker.serverless.delivery import (
    LAST_UPDATE_S,
    Delivery,
    ProgressUpdates,
    describe,
    progress_callback,
)
from parakeet_worker.serverless.envelope import Envelope, StoreEnvelope, failure, internal_failure, is_last
from parakeet_worker.serverless.job_ids import quoted_id
from parakeet_worker.serverless.poll_response import parse_jobs

Job = Mapping[str, Any]

# As the SDK's: longer than the platform holds a poll open.
_POLL_TIMEOUT_S = 90.0

# Jobs that the platform is about to hand out when the worker is to stop are on their way for less than this.
_LAST_POLL_S = 1.0

# What the SDK does when the platform asks it to slow down.
_TOO_MANY_S = 5.0

# Between polls that come back empty at once.
_EMPTY_S = 0.1

# Waits after polls that fail.
_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.25, 8.0

# Container engines kill what has not stopped after 10 seconds. Jobs that are not done by then are given back.
_STOPPING_S = 8.0

# An answer of so many bytes is parsed beside the event loop.
_LARGE_BYTES = 1 << 20

_PARTS = (JobScaler, JobsProgress, AsyncClientSession, _job_stop_url, _set_batch_id, sdk_worker.run_worker)
_DIGEST = "23ca1f79389d7527853bd8fd851a80ac971e4a4ff739376cbd2f97b7b1f2c1db"

log = RunPodLogger()


class _PollError(Exception):
    """A poll failed. The message, which the SDK logs, names no address."""


class JobLoop(JobScaler):  # type: ignore[misc]  # the SDK is not typed
    """Takes jobs from the platform and brings their answers back, until SIGTERM or SIGINT.

    Then it takes no more, waits some seconds for what it has, answers what is not done with `worker_busy`, and returns.

    Args:
        config: What `runpod.serverless.start` was given: `handler`, which answers a job, and `concurrency_modifier`,
            which is asked once for the number of jobs to hold. Our own `store`, if it is there, stores large results.
    """

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__(config)
        self.current_concurrency: int = self.concurrency_modifier(1)
        self.jobs_fetcher = self._fetch_jobs
        self.stop_signals_fetcher = self._fetch_stop_signals
        self._handler: Callable[[Job], Awaitable[Envelope]] = config["handler"]
        self._store: StoreEnvelope | None = config.get("store")
        self._has_room = asyncio.Event()
        self._delivering: set[str] = set()
        # Jobs to be stopped; also those that are not here yet: the signal can overtake the poll that brings the job.
        self._stopped: set[str] = set()
        self._is_answered = self._is_late = False

    async def run(self) -> None:
        """Run until stopped."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.kill_worker)

        def end_without_memory(lost: "sys.UnraisableHookArgs") -> None:
            """Stop the worker when a thread has ended for lack of memory, since its job would never be answered."""
            if lost.exc_type is MemoryError:
                loop.call_soon_threadsafe(self.kill_worker)
            sys.__unraisablehook__(lost)

        sys.unraisablehook = end_without_memory
        async with AsyncClientSession() as session:
            self._delivery = Delivery(session, JOB_DONE_URL, self._store)
            taking = asyncio.create_task(self.get_jobs(session))
            monitoring = asyncio.create_task(self.monitor_stop_signals(session))
            await self._shutdown_event.wait()
            deadline = loop.time() + _STOPPING_S
            await asyncio.wait({taking}, timeout=_LAST_POLL_S)
            if self._is_answered:
                # Jobs in an answer that has begun to arrive count as handed out: read it to its end.
                await asyncio.wait({taking}, timeout=_POLL_TIMEOUT_S)
            taking.cancel()
            await self._drain(deadline - loop.time())
            monitoring.cancel()
            await asyncio.wait({taking, monitoring})

    async def get_jobs(self, session: ClientSession) -> None:
        """Take jobs while the worker is not to stop."""
        failures = 0
        while self.is_alive():
            self._has_room.clear()
            if (room := self._room()) <= 0:
                await self._has_room.wait()
                continue
            try:
                jobs = await asyncio.wait_for(self.jobs_fetcher(session, room), _POLL_TIMEOUT_S)
            except TooManyRequests:
                await asyncio.sleep(_TOO_MANY_S)
            except TimeoutError:
                self._is_answered = False
            except Exception as error:  # noqa: BLE001 - whatever the platform answers, the next poll may go better
                if isinstance(error, MemoryError):
                    self.kill_worker()
                self._is_answered = False
                failures += 1
                wait = backoff_s(failures, _FIRST_WAIT_S, _LONGEST_WAIT_S)
                said = error if isinstance(error, _PollError) else describe(error)
                log.error(f"Could not ask for jobs ({said}); asking again in {wait:.1f} s.")
                await asyncio.sleep(wait)
            else:
                failures = 0
                for job in jobs:
                    self._begin(session, job)
                self._stopped &= self.jobs_tasks.keys()
                self._is_answered = False
                if not jobs:
                    await asyncio.sleep(_EMPTY_S)

    def _room(self) -> int:
        """Return how many jobs can be taken. Jobs whose result is being delivered do not count, unless too many are."""
        if len(self._delivering) >= self.current_concurrency:
            return 0
        return self.current_concurrency - (len(self.jobs_tasks) - len(self._delivering))

    async def _fetch_jobs(self, session: ClientSession, room: int) -> list[Any]:
        url = JOB_GET_URL
        if room > 1:
            url = url.replace("/job-take/", "/job-take-batch/") + f"&batch_size={room}"
        jobs = await self._ask(session, f"{url}&job_in_progress={int(bool(self.jobs_tasks))}", brings_jobs=True)
        return jobs if isinstance(jobs, list) else [] if jobs is None else [jobs]

    async def _fetch_stop_signals(self, session: ClientSession) -> list[str]:
        """Return the ids of jobs that their callers cancelled, or that expired."""
        answer = await self._ask(session, _job_stop_url())
        ids = answer.get("jobsToStop") if isinstance(answer, dict) else None
        return [job_id for job_id in map(quoted_id, ids if isinstance(ids, list) else []) if job_id]

    async def _ask(self, session: ClientSession, url: str, *, brings_jobs: bool = False) -> Any:  # noqa: ANN401
        try:
            async with session.get(url) as response:
                # 204 is an empty queue, 400 the status that FlashBoot gives while a worker sleeps.
                if response.status in (204, 400):
                    return None
                if response.status == 429:
                    raise TooManyRequests(response.request_info, response.history, status=429)
                response.raise_for_status()
                self._is_answered = self._is_answered or brings_jobs
                body = await response.read()
                return await asyncio.to_thread(parse_jobs, body) if len(body) > _LARGE_BYTES else parse_jobs(body)
        except (ClientError, OSError, ValueError) as error:
            if isinstance(error, TooManyRequests):
                raise
            raise _PollError(describe(error)) from error

    def _begin(self, session: ClientSession, job: Any) -> None:  # noqa: ANN401 - whatever the platform hands out
        job_id = quoted_id(job.get("id")) if isinstance(job, dict) else None
        if job_id is None:
            log.error("A job without an id was handed out; there is no way to answer it.")
        elif job_id in self.jobs_tasks:
            log.warn("Handed out again while it is in progress; it is answered once.", job_id)
        else:
            self.job_progress.add(job_id)
            self.jobs_tasks[job_id] = task = asyncio.create_task(self.handle_job(session, {**job, "id": job_id}))
            task.add_done_callback(lambda _: self._end(job_id))
            if job_id in self._stopped:
                # Soon: a task that is cancelled before its first step never takes it, and logs nothing.
                asyncio.get_running_loop().call_soon(task.cancel)

    def _end(self, job_id: str) -> None:
        del self.jobs_tasks[job_id]
        self.job_progress.remove(job_id)
        self._stopped.discard(job_id)
        self._has_room.set()

    async def stop_job(self, job_id: str) -> bool:
        """Cancel a job, or have it cancelled when it arrives; see `JobScaler`."""
        self._stopped.add(job_id)
        if job_id not in self.jobs_tasks:
            return False  # _begin() cancels it
        await asyncio.sleep(0)  # it may have begun just now: see _begin()
        return bool(await super().stop_job(job_id))

    async def _drain(self, seconds: float) -> None:
        """Wait for the jobs in hand, and give back those that are not done in time."""
        if self.jobs_tasks:
            await asyncio.wait(self.jobs_tasks.values(), timeout=max(0.0, seconds))
        self._is_late = True
        for job_id, task in self.jobs_tasks.items():
            if job_id not in self._delivering:
                task.cancel()
        if self.jobs_tasks:
            await asyncio.wait(self.jobs_tasks.values())

    async def handle_job(self, session: ClientSession, job: Job) -> None:
        """Answer one job and deliver the answer.

        Args:
            session: What asks the platform.
            job: The job, whose `id` is quoted.
        """
        job_id: str = job["id"]
        # The log's lines of a job that came in one of RunPod's batches say so.
        _set_batch_id(quoted_id(job.get("batchId")))
        updates = ProgressUpdates(self._delivery, job_id)
        progress_callback.set(updates.update)
        try:
            envelope = await self._answer(job)
            # From here on a worker that stops does not cancel this task: it would lose the answer.
            self._delivering.add(job_id)
            if is_last(envelope):
                self.kill_worker()
            self._has_room.set()
            await updates.end(0.0 if self._is_late else LAST_UPDATE_S)
            await self._delivery.deliver(job_id, envelope)
        except asyncio.CancelledError:
            log.debug("Stopped by the platform.", job_id)
        except Exception as error:  # noqa: BLE001 - the next job's turn must come
            log.error(f"The result could not be delivered ({describe(error)}).", job_id)
        finally:
            updates.is_over = True
            self._delivering.discard(job_id)

    async def _answer(self, job: Job) -> Envelope:
        try:
            return await self._handler(job)
        except asyncio.CancelledError:
            if not self._is_late or job["id"] in self._stopped:
                raise
            log.warn("Not done when the worker was stopped; its caller is told to send it again.", job["id"])
            return failure(JobError(Code.WORKER_BUSY, "the worker is being stopped; send it again"))
        except Exception as error:  # noqa: BLE001 - every job gets an answer
            log.error(describe(error), job["id"])
            return internal_failure()


def install() -> str | None:
    """Put `JobLoop` in the place of the SDK's loop.

    Returns:
        None, or the reason why not: the SDK is not the pinned version.
    """
    try:
        source = "".join(map(inspect.getsource, _PARTS))
    except (OSError, TypeError):
        return "the source of RunPod's SDK cannot be read"
    if hashlib.sha256(source.encode()).hexdigest() != _DIGEST or sdk_worker.rp_scale is not rp_scale:
        return f"version {runpod.__version__} of RunPod's SDK is not the one that the worker's loop was written for"
    rp_scale.JobScaler = JobLoop
    return None
