"""RunPod's job loop, and all that is private of its SDK.

`JobLoop` is the SDK's `JobScaler` with other ways to take jobs, to deliver and to stop: a job starts when it arrives
(there, up to 0.1 s later), a full worker asks for more as soon as one job ends (there, once a second), a result is
offered for 300 seconds (there, three times), a stop ends what the worker waits for (there, when the poll of up to 90 s
does), a job that is handed out while the worker stops is answered (there, it is lost), and no log level prints a
transcript.

The SDK does not promise that the parts it builds on stay as they are. `install()` compares them with what they were at
the version that is pinned, and where they differ the SDK's own loop runs.
"""

import asyncio
import hashlib
import inspect
import json
import signal
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
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

from parakeet_worker.delivery import Delivery, describe, growing_waits
from parakeet_worker.envelope import Envelope, failure, internal_failure
from parakeet_worker.errors import Code, JobError
from parakeet_worker.job_answer import parse_jobs
from parakeet_worker.job_ids import quoted_id
from parakeet_worker.progress import teller

Job = Mapping[str, Any]

# As the SDK's: longer than the platform holds a poll open.
_POLL_TIMEOUT_S = 90.0

# Jobs that the platform is about to hand out when the worker is to stop are on their way for less than this.
_LAST_POLL_S = 1.0

# What the SDK does when the platform asks it to slow down.
_TOO_MANY_S = 5.0

# Between polls that come back empty at once.
_EMPTY_S = 0.1

# Container engines kill what has not stopped after 10 seconds. Jobs that are not done by then are given back.
_STOPPING_S = 7.0

# A result waits as long for the progress update before it, so that none comes behind it.
_LAST_UPDATE_S = 2.0

# An answer of so many bytes is parsed beside the event loop.
_LARGE_BYTES = 1 << 20

# After so many polls in a row that found no memory, the worker is of no more use.
_MOST_MEMORY_ERRORS = 3

_PARTS = (JobScaler, JobsProgress, AsyncClientSession, _job_stop_url, _set_batch_id, sdk_worker.run_worker)
_DIGEST = "23ca1f79389d7527853bd8fd851a80ac971e4a4ff739376cbd2f97b7b1f2c1db"

log = RunPodLogger()


class JobLoop(JobScaler):  # type: ignore[misc]  # the SDK is not typed
    """Takes jobs from the platform and brings their answers back, until SIGTERM or SIGINT.

    Then it takes no more, waits some seconds for what it has, answers what is not done with `worker_busy`, and returns.

    Args:
        config: What `runpod.serverless.start` was given: `handler`, which answers a job, and `concurrency_modifier`,
            which is asked once for the number of jobs to hold.
    """

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__(config)
        self.current_concurrency: int = self.concurrency_modifier(1)
        self.jobs_fetcher = self._fetch_jobs
        self.stop_signals_fetcher = self._fetch_stop_signals
        self._handler: Callable[[Job], Awaitable[Envelope]] = config["handler"]
        self._has_room = asyncio.Event()
        self._delivering: set[str] = set()
        # Jobs to be stopped; also those that are not here yet: the signal can overtake the poll that brings the job.
        self._stopped: set[str] = set()
        self._is_answered = self._is_late = False
        self._waits = growing_waits()

    async def run(self) -> None:
        """Run until stopped."""
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, self.kill_worker)
        async with AsyncClientSession() as session:
            self._delivery = Delivery(session, JOB_DONE_URL)
            monitoring = asyncio.create_task(self.monitor_stop_signals(session))
            await self.get_jobs(session)
            await self._drain()
            monitoring.cancel()
            await asyncio.wait({monitoring})

    async def get_jobs(self, session: ClientSession) -> None:
        """Take jobs while the worker is not to stop."""
        waits, memory_errors = growing_waits(), 0
        while self.is_alive():
            room = self._room()
            if room <= 0:
                self._has_room.clear()
                await self._unless_stopping(self._has_room.wait())
                continue
            try:
                jobs = await self._poll(session, room)
            except TooManyRequests:
                await self._pause(_TOO_MANY_S)
            except Exception as error:  # noqa: BLE001 - whatever the platform answers, the next poll may go better
                memory_errors = memory_errors + 1 if isinstance(error, MemoryError) else 0
                if memory_errors == _MOST_MEMORY_ERRORS:
                    log.error("There is no memory left to ask for jobs; the worker stops.")
                    self.kill_worker()
                wait = next(waits)
                log.error(f"Could not ask for jobs ({describe(error)}); asking again in {wait:g} s.")
                await self._pause(wait)
            else:
                waits, memory_errors = growing_waits(), 0
                for job in jobs:
                    self._begin(session, job)
                self._stopped &= self.jobs_tasks.keys()
                if not jobs:
                    await self._pause(_EMPTY_S)

    def _room(self) -> int:
        """Return how many jobs can be taken: those whose result is on its way hold up no other, unless they pile up."""
        if len(self._delivering) >= self.current_concurrency:
            return 0
        return self.current_concurrency - (len(self.jobs_tasks) - len(self._delivering))

    async def _poll(self, session: ClientSession, room: int) -> list[Any]:
        """Ask for jobs, and wait until there are some, nobody answers, or the worker is to stop.

        An answer that has begun to come is waited for: the platform takes its jobs for handed out.
        """
        self._is_answered = False
        asking = asyncio.ensure_future(self.jobs_fetcher(session, room))
        stopping = asyncio.ensure_future(self._shutdown_event.wait())
        await asyncio.wait({asking, stopping}, timeout=_POLL_TIMEOUT_S, return_when=asyncio.FIRST_COMPLETED)
        if stopping.done():
            await asyncio.wait({asking}, timeout=_LAST_POLL_S)
        stopping.cancel()
        if self._is_answered:
            await asyncio.wait({asking}, timeout=_POLL_TIMEOUT_S)
        asking.cancel()
        await asyncio.wait({asking})
        return [] if asking.cancelled() else asking.result()

    async def _fetch_jobs(self, session: ClientSession, room: int) -> list[Any]:
        url = JOB_GET_URL
        if room > 1:
            url = url.replace("/job-take/", "/job-take-batch/") + f"&batch_size={room}"
        jobs = await self._ask(session, f"{url}&job_in_progress={int(bool(self.jobs_tasks))}")
        return jobs if isinstance(jobs, list) else [] if jobs is None else [jobs]

    async def _fetch_stop_signals(self, session: ClientSession) -> list[str]:
        """Return the ids of jobs that their callers cancelled, or that expired; wait a while where that fails."""
        try:
            answer = await self._ask(session, _job_stop_url())
        except TooManyRequests:
            raise  # the SDK waits five seconds
        except Exception as error:  # noqa: BLE001 - jobs must go on without
            wait = next(self._waits)
            log.warn(f"Could not ask for stop signals ({describe(error)}); asking again in {wait:g} s.")
            await self._pause(wait)
            return []
        self._waits = growing_waits()
        ids = answer.get("jobsToStop") if isinstance(answer, dict) else None
        return [job_id for job_id in map(quoted_id, ids if isinstance(ids, list) else []) if job_id]

    async def _ask(self, session: ClientSession, url: str) -> Any:  # noqa: ANN401 - whatever JSON holds
        async with session.get(url) as response:
            self._is_answered = True
            # 204 is an empty queue, 400 what FlashBoot's platform says while a worker sleeps.
            if response.status in (204, 400):
                return None
            if response.status == 429:
                raise TooManyRequests(response.request_info, response.history, status=429)
            response.raise_for_status()
            body = await response.read()
            return await asyncio.to_thread(parse_jobs, body) if len(body) > _LARGE_BYTES else parse_jobs(body)

    async def _unless_stopping(self, awaitable: Awaitable[object]) -> None:
        """Await something, or nothing any more once the worker is to stop."""
        waiting = asyncio.ensure_future(awaitable)
        stopping = asyncio.ensure_future(self._shutdown_event.wait())
        await asyncio.wait({waiting, stopping}, return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        stopping.cancel()

    async def _pause(self, seconds: float) -> None:
        await self._unless_stopping(asyncio.sleep(seconds))

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
        await asyncio.sleep(0)  # see _begin()
        return bool(await super().stop_job(job_id))

    async def _drain(self) -> None:
        """Wait for the jobs in hand, and give back those that are not done in time."""
        if self.jobs_tasks:
            await asyncio.wait(self.jobs_tasks.values(), timeout=_STOPPING_S)
        self._is_late = True
        for job_id, task in self.jobs_tasks.items():
            if job_id not in self._delivering:
                task.cancel()
        if self.jobs_tasks:
            await asyncio.wait(self.jobs_tasks.values())

    async def handle_job(self, session: ClientSession, job: Job) -> None:
        """Answer one job and bring the answer to the platform.

        Args:
            session: What asks the platform.
            job: The job, whose `id` is quoted.
        """
        job_id: str = job["id"]
        # The log's lines of a job that came in one of RunPod's batches say so.
        _set_batch_id(quoted_id(job.get("batchId")))
        updates = _Updates(self._delivery, job_id)
        teller.set(updates.tell)
        try:
            envelope = await self._answer(job)
            await updates.end()
            if envelope.get("refresh_worker"):
                self.kill_worker()
            self._delivering.add(job_id)
            self._has_room.set()
            await self._delivery.bring(job_id, envelope)
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


class _Updates:
    """Brings the progress of one job to the platform: one update at a time, and none after the result."""

    def __init__(self, delivery: Delivery, job_id: str) -> None:
        self.is_over = False
        self._delivery = delivery
        self._job_id = job_id
        self._loop = asyncio.get_running_loop()
        self._sending: asyncio.Task[None] | None = None

    def tell(self, done: float, total: float | None) -> None:
        """Send the seconds that are done and how many there are, soon. On any thread."""
        if not self.is_over:
            self._loop.call_soon_threadsafe(self._send, {"seconds_done": done, "seconds_total": total})

    def _send(self, progress: Mapping[str, Any]) -> None:
        if self.is_over or (self._sending and not self._sending.done()):
            return
        body = json.dumps({"status": "IN_PROGRESS", "output": progress}).encode()
        self._sending = asyncio.create_task(self._offer(body))

    async def _offer(self, body: bytes) -> None:
        with suppress(ClientError, OSError):  # the next update says more
            await self._delivery.offer(self._job_id, body)

    async def end(self) -> None:
        """Send no more, and wait for the one that is on its way."""
        self.is_over = True
        if self._sending:
            await asyncio.wait({self._sending}, timeout=_LAST_UPDATE_S)
            self._sending.cancel()


def install() -> str | None:
    """Put `JobLoop` in the place of the SDK's loop.

    Returns:
        None, or what keeps it from that: the SDK is not as it was at the version that is pinned.
    """
    try:
        source = "".join(map(inspect.getsource, _PARTS))
    except (OSError, TypeError):
        return "the source of RunPod's SDK cannot be read"
    if hashlib.sha256(source.encode()).hexdigest() != _DIGEST or sdk_worker.rp_scale is not rp_scale:
        return f"version {runpod.__version__} of RunPod's SDK is not the one that the worker's loop was written for"
    rp_scale.JobScaler = JobLoop
    return None
