"""The worker's side of RunPod's queue: jobs are taken while there is room, answered once each, and never forgotten.

It stands in for the SDK's `JobScaler` and speaks the same protocol through the same functions. It differs where that
costs its users: a job starts when it arrives (there, up to 0.1 s later), a full worker asks for more as soon as one job
ends (there, once a second), a result is offered until the platform takes it (there, three times), a stop ends what the
worker is waiting for (there, when the poll of up to 90 s does), and no log level prints a transcript.
"""

import asyncio
import json
import signal
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import Any

from aiohttp import ClientError, ClientSession, ClientTimeout, TraceConfig
from runpod.http_client import AsyncClientSession, TooManyRequests
from runpod.serverless.modules.rp_http import JOB_DONE_URL
from runpod.serverless.modules.rp_job import get_job, get_stop_signals
from runpod.serverless.modules.rp_logger import RunPodLogger, _set_batch_id
from runpod.serverless.modules.worker_state import JobsProgress

from parakeet_worker.envelope import Envelope, internal_failure
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

# A poll for stop signals that comes back at once, as a platform without them answers, is not repeated sooner.
_STOP_INTERVAL_S = 1.0

# How long a result is offered to a platform that refuses it, and one offer may take.
_DELIVERY_S = 300.0
_OFFER_S = 60.0

# A result waits as long for the progress update before it, so that none comes behind it.
_LAST_UPDATE_S = 2.0

log = RunPodLogger()


class JobLoop:
    """Takes jobs from the platform and brings their answers back, until SIGTERM or SIGINT.

    Then it takes no more, waits until what it has is answered, and returns.

    Args:
        config: What `runpod.serverless.start` was given: `handler`, which answers a job, and `concurrency_modifier`,
            which is asked once for the number of jobs to hold.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        self._handler: Callable[[Job], Awaitable[Envelope]] = config["handler"]
        self._concurrency: int = config["concurrency_modifier"](1)
        self._jobs: dict[str, asyncio.Task[None]] = {}
        # Jobs to be stopped that were not here yet: the signal can overtake the poll that brings the job.
        self._stopped_early: set[str] = set()
        self._delivering = 0
        self._is_answered = self._is_over = False
        # What the heartbeat and the polls tell the platform is in progress.
        self._in_progress = JobsProgress()

    def start(self) -> None:
        """Run until stopped."""
        asyncio.run(self._run())

    async def _run(self) -> None:
        self._stopping = asyncio.Event()
        self._has_room = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, self._stopping.set)
        trace = TraceConfig()
        trace.on_request_end.append(self._note_answer)
        async with AsyncClientSession() as session, AsyncClientSession(trace_configs=[trace]) as polls:
            cancelling = asyncio.create_task(self._cancel_stopped(session))
            await self._take(polls, session)
            while self._jobs:
                await asyncio.wait(self._jobs.values())
            self._is_over = True
            cancelling.cancel()
            await asyncio.wait({cancelling})

    async def _note_answer(self, *_: object) -> None:
        """Note that the head of a poll's answer has come."""
        self._is_answered = True

    async def _take(self, polls: ClientSession, session: ClientSession) -> None:
        """Take jobs while the worker is not to stop."""
        waits = _growing_waits()
        while not self._stopping.is_set():
            room = self._room()
            if room <= 0:
                self._has_room.clear()
                await self._unless_stopping(self._has_room.wait())
                continue
            try:
                jobs = await self._poll(polls, room)
            except TooManyRequests:
                await self._pause(_TOO_MANY_S)
            except Exception as error:  # noqa: BLE001 - whatever the platform answers, the next poll may go better
                wait = next(waits)
                log.error(f"Could not ask for jobs ({_describe(error)}); asking again in {wait:g} s.")
                await self._pause(wait)
            else:
                waits = _growing_waits()
                for job in jobs:
                    self._begin(session, job)
                self._stopped_early.clear()
                if not jobs:
                    await self._pause(_EMPTY_S)

    def _room(self) -> int:
        """Say how many jobs can be taken: those whose result is on its way hold up no other, unless they pile up."""
        if self._delivering >= self._concurrency:
            return 0
        return self._concurrency - (len(self._jobs) - self._delivering)

    async def _poll(self, polls: ClientSession, room: int) -> list[Any]:
        """Ask for jobs, and wait until there are some, nobody answers, or the worker is to stop.

        An answer that has begun to come is waited for: the platform takes its jobs for handed out.
        """
        self._is_answered = False
        asking = asyncio.ensure_future(get_job(polls, room))
        stopping = asyncio.ensure_future(self._stopping.wait())
        await asyncio.wait({asking, stopping}, timeout=_POLL_TIMEOUT_S, return_when=asyncio.FIRST_COMPLETED)
        if stopping.done():
            await asyncio.wait({asking}, timeout=_LAST_POLL_S)
        stopping.cancel()
        if self._is_answered:
            await asyncio.wait({asking}, timeout=_POLL_TIMEOUT_S)
        asking.cancel()
        await asyncio.wait({asking})
        return [] if asking.cancelled() else asking.result() or []

    async def _unless_stopping(self, awaitable: Awaitable[object]) -> None:
        """Await something, or nothing any more once the worker is to stop."""
        waiting = asyncio.ensure_future(awaitable)
        stopping = asyncio.ensure_future(self._stopping.wait())
        await asyncio.wait({waiting, stopping}, return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        stopping.cancel()

    async def _pause(self, seconds: float) -> None:
        await self._unless_stopping(asyncio.sleep(seconds))

    def _begin(self, session: ClientSession, job: Any) -> None:  # noqa: ANN401 - whatever the platform hands out
        job_id = job.get("id") if isinstance(job, dict) else None
        if not isinstance(job_id, str):
            log.error("A job without an id was handed out; there is no way to answer it.")
        elif job_id in self._jobs:
            log.warn("Handed out again while it is in progress; it is answered once.", job_id)
        else:
            self._in_progress.add(job_id)
            self._jobs[job_id] = task = asyncio.create_task(self._answer(session, job))
            task.add_done_callback(lambda _: self._end(job_id))
            if job_id in self._stopped_early:
                self._stop(job_id)

    def _stop(self, job_id: str) -> None:
        if job_id in self._jobs:
            # Soon: a task that is cancelled before its first step never takes it, nor says so.
            asyncio.get_running_loop().call_soon(self._jobs[job_id].cancel)
        else:
            self._stopped_early.add(job_id)

    def _end(self, job_id: str) -> None:
        del self._jobs[job_id]
        self._in_progress.remove(job_id)
        self._has_room.set()

    async def _answer(self, session: ClientSession, job: Job) -> None:
        job_id: str = job["id"]
        # The log's lines of a job that came in one of RunPod's batches say so.
        _set_batch_id(job.get("batchId"))
        updates = _Updates(session, job_id)
        teller.set(updates.tell)
        try:
            body, is_last = await self._result(job)
            await updates.end()
            if is_last:
                self._stopping.set()
            await self._deliver(session, job_id, body)
        except asyncio.CancelledError:
            log.debug("Stopped by the platform.", job_id)
        except Exception as error:  # noqa: BLE001 - the next job's turn must come
            log.error(f"The result could not be delivered ({_describe(error)}).", job_id)
        finally:
            updates.is_over = True

    async def _deliver(self, session: ClientSession, job_id: str, body: bytes) -> None:
        self._delivering += 1
        self._has_room.set()
        try:
            await _offer_until_taken(session, job_id, body)
        finally:
            self._delivering -= 1

    async def _result(self, job: Job) -> tuple[bytes, bool]:
        """Return the result as the platform wants it, and whether the worker is to be replaced after it."""
        try:
            return _as_result(await self._handler(job))
        except Exception as error:  # noqa: BLE001 - every job gets an answer
            log.error(_describe(error), job["id"])
            return _as_result(internal_failure())

    async def _cancel_stopped(self, session: ClientSession) -> None:
        """Cancel the jobs that the platform wants stopped: cancelled by their callers, or expired."""
        waits = _growing_waits()
        # Python 3.11's wait_for() can swallow a cancellation.
        while not self._is_over:
            asked = time.monotonic()
            try:
                job_ids = await asyncio.wait_for(get_stop_signals(session), _POLL_TIMEOUT_S)
            except TooManyRequests:
                await asyncio.sleep(_TOO_MANY_S)
            except TimeoutError:
                pass
            except Exception as error:  # noqa: BLE001 - jobs must go on without
                wait = next(waits)
                log.warn(f"Could not ask for stop signals ({_describe(error)}); asking again in {wait:g} s.")
                await asyncio.sleep(wait)
            else:
                waits = _growing_waits()
                for job_id in job_ids:
                    self._stop(job_id)
                if not job_ids:
                    await asyncio.sleep(max(0.0, asked + _STOP_INTERVAL_S - time.monotonic()))


class _Updates:
    """Brings the progress of one job to the platform: one update at a time, and none after the result."""

    def __init__(self, session: ClientSession, job_id: str) -> None:
        self.is_over = False
        self._session = session
        self._job_id = job_id
        self._loop = asyncio.get_running_loop()
        self._sending: asyncio.Task[bool] | None = None

    def tell(self, done: float, total: float | None) -> None:
        """Send the seconds that are done and how many there are, soon. On any thread."""
        if not self.is_over:
            self._loop.call_soon_threadsafe(self._send, {"seconds_done": done, "seconds_total": total})

    def _send(self, progress: Mapping[str, Any]) -> None:
        if self.is_over or (self._sending and not self._sending.done()):
            return
        body = json.dumps({"status": "IN_PROGRESS", "output": progress}).encode()
        self._sending = asyncio.create_task(self._offer(body))

    async def _offer(self, body: bytes) -> bool:
        try:
            return await _offer(self._session, self._job_id, body) is None
        except (ClientError, OSError):
            return False  # the next update says more

    async def end(self) -> None:
        """Send no more, and wait for the one that is on its way."""
        self.is_over = True
        if self._sending:
            await asyncio.wait({self._sending}, timeout=_LAST_UPDATE_S)
            self._sending.cancel()


def _as_result(envelope: Envelope) -> tuple[bytes, bool]:
    """Turn an envelope into what the platform takes: `error` and `stopPod` stand beside the `output`."""
    output = dict(envelope)
    error = output.pop("error", None)
    is_last = bool(output.pop("refresh_worker", False))
    result = {"output": output} | ({"error": error} if error else {}) | ({"stopPod": True} if is_last else {})
    return json.dumps(result, ensure_ascii=False, allow_nan=False).encode(), is_last


async def _offer_until_taken(session: ClientSession, job_id: str, body: bytes) -> None:
    """Bring a result to the platform, again and again where that fails for a reason that may pass."""
    deadline = time.monotonic() + _DELIVERY_S
    for wait in _growing_waits():
        try:
            refusal = await _offer(session, job_id, body)
        except (ClientError, OSError) as error:  # TimeoutError among them
            refusal = _describe(error)
        else:
            if refusal is None:
                return
            if not refusal.startswith(("408", "425", "429", "5")):
                log.error(f"RunPod refused the result: {refusal}.", job_id)
                return
        if time.monotonic() + wait > deadline:
            log.error(f"The result could not be delivered: {refusal}.", job_id)
            return
        log.warn(f"The result could not be delivered ({refusal}); trying again in {wait:g} s.", job_id)
        await asyncio.sleep(wait)


async def _offer(session: ClientSession, job_id: str, body: bytes) -> str | None:
    """Post a result or an update. Return None if it was taken, else the status."""
    url = f"{JOB_DONE_URL.replace('$ID', job_id)}&isStream=false"
    # As the SDK sends it.
    headers = {
        "charset": "utf-8",
        "Content-Type": "application/x-www-form-urlencoded",
        "X-Request-ID": job_id,
    }
    async with session.post(url, data=body, headers=headers, timeout=ClientTimeout(_OFFER_S)) as response:
        await response.read()
        return None if response.status < 400 else f"{response.status} {response.reason}"


def _growing_waits() -> Iterator[float]:
    wait = 0.25
    while True:
        yield wait
        wait = min(2 * wait, 8.0)


def _describe(error: BaseException) -> str:
    """Name an exception. Its own text would hold the platform's URL, with the key in its query."""
    status = getattr(error, "status", None)
    return f"{type(error).__name__} {status}" if status else type(error).__name__
