"""Delivering results and progress to RunPod: each result until it is taken, in a smaller form if it is too large."""

import asyncio
import itertools
import json
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from contextvars import ContextVar
from http import HTTPStatus
from typing import Any

from aiohttp import ClientError, ClientSession, ClientTimeout
from runpod import RunPodLogger
from yarl import URL

from parakeet_worker.errors import Code, JobError
from parakeet_worker.http.retry import backoff_s
from parakeet_worker.http.status import describe_status
from parakeet_worker.job.progress import ProgressCallback
from parakeet_worker.job.response import reductions, with_address
from parakeet_worker.serverless.envelope import Envelope, StoreEnvelope, as_result, failure, internal_failure

# Longest time in which a result is posted again and again, and longest time of one post.
_DELIVERY_S = 300.0
_POST_S = 60.0

# Waits between two posts.
_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.25, 8.0

# The platform answers 401, 403 and 404 for a while when a key or an endpoint is being changed.
_MAY_PASS = frozenset({401, 403, 404, 408, 425, 429})

log = RunPodLogger()

LAST_UPDATE_S = 2.0
"""Longest wait of a result for the progress update before it, which should not arrive after it, in seconds."""

progress_callback: ContextVar[ProgressCallback] = ContextVar("progress_callback")
"""Posts the progress of the job that the current task answers. Unset in the SDK's own loop and its local modes."""


class Delivery:
    """Posts the results and the progress of jobs.

    Args:
        session: HTTP session that posts them.
        url: The address for a result, with `$ID` in the place of a job's id.
        store: Stores results that are too large.
    """

    def __init__(self, session: ClientSession, url: str, store: StoreEnvelope | None = None) -> None:
        self._session = session
        self._url = url
        self._store = store

    async def deliver(self, job_id: str, envelope: Envelope) -> None:
        """Post a result until it is taken, for 300 seconds at most.

        One that is too large (413) is stored, if that is possible, and posted without the timestamps of characters,
        then without those of words, and so on. One that is refused for good is replaced by a failure, `result_refused`.

        Args:
            job_id: The job's id, quoted.
            envelope: The answer.
        """
        smaller: Iterator[Envelope] | None = None
        body = _body(envelope, job_id)
        while status := await self._post_until_decided(job_id, body):
            said = f"RunPod refused the result of {len(body)} bytes: {describe_status(status)}"
            if envelope.get("code") == Code.RESULT_REFUSED:
                log.error(f"{said}.", job_id)
                return
            log.warn(f"{said}.", job_id)
            reduced = None
            if status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
                smaller = smaller or await self._reductions(job_id, envelope)
                reduced = next(smaller, None)
            envelope = reduced or failure(JobError(Code.RESULT_REFUSED, said))
            body = _body(envelope, job_id)

    async def _reductions(self, job_id: str, envelope: Envelope) -> Iterator[Envelope]:
        """Return the reductions of a result, with the address of the whole if it can be stored and was not before."""
        is_reducible = next(reductions(envelope), None) is not None
        if self._store and is_reducible and "result_url" not in envelope:
            envelope = with_address(envelope, await self._store(job_id, envelope))
        return reductions(envelope)

    async def _post_until_decided(self, job_id: str, body: bytes) -> int | None:
        """Post a body until it is taken or refused for good.

        Returns:
            The status of the refusal; None if the body was taken, or could not be delivered within 300 seconds.
        """
        deadline = time.monotonic() + _DELIVERY_S
        for attempt in itertools.count(1):
            wait = backoff_s(attempt, _FIRST_WAIT_S, _LONGEST_WAIT_S)
            try:
                status = await self.post(job_id, body)
            except (ClientError, OSError) as error:  # TimeoutError among them
                said = describe(error)
            else:
                if status < HTTPStatus.BAD_REQUEST:
                    return None
                if status < HTTPStatus.INTERNAL_SERVER_ERROR and status not in _MAY_PASS:
                    return status
                said = describe_status(status)
            if time.monotonic() + wait > deadline:
                log.error(f"The result could not be delivered: {said}.", job_id)
                return None
            log.warn(f"The result could not be delivered ({said}); trying again in {wait:.1f} s.", job_id)
            await asyncio.sleep(wait)
        return None

    async def post(self, job_id: str, body: bytes) -> int:
        """Post a result or an update once, and return the status of the answer.

        Raises:
            aiohttp.ClientError: No answer came.
            OSError: No answer came.
        """
        # The SDK's headers.
        headers = {"charset": "utf-8", "Content-Type": "application/x-www-form-urlencoded", "X-Request-ID": job_id}
        # Unencoded, yarl would decode the percent signs of an id.
        url = URL(f"{self._url.replace('$ID', job_id)}&isStream=false", encoded=True)
        async with self._session.post(url, data=body, headers=headers, timeout=ClientTimeout(_POST_S)) as response:
            await response.read()
            return response.status


class ProgressUpdates:
    """Posts the progress of one job: one update at a time, and none after the result.

    Args:
        delivery: Posts the updates.
        job_id: The job's id, quoted.

    Attributes:
        is_over: Whether no more updates are posted.
    """

    def __init__(self, delivery: Delivery, job_id: str) -> None:
        self.is_over = False
        self._delivery = delivery
        self._job_id = job_id
        self._loop = asyncio.get_running_loop()
        self._posting: asyncio.Task[None] | None = None

    def update(self, done: float, total: float | None) -> None:
        """Post the seconds that are transcribed and the length of the recording, soon. Safe on any thread."""
        if not self.is_over:
            self._loop.call_soon_threadsafe(self._start_post, {"seconds_done": done, "seconds_total": total})

    def _start_post(self, progress: Mapping[str, Any]) -> None:
        if self.is_over or (self._posting and not self._posting.done()):
            return
        body = json.dumps({"status": "IN_PROGRESS", "output": progress}).encode()
        self._posting = asyncio.create_task(self._post(body))

    async def _post(self, body: bytes) -> None:
        with suppress(ClientError, OSError):  # the next update has more
            await self._delivery.post(self._job_id, body)

    async def end(self, seconds: float) -> None:
        """Post no more updates, and wait so many seconds at most for the one that is being posted."""
        self.is_over = True
        if self._posting:
            await asyncio.wait({self._posting}, timeout=seconds)
            self._posting.cancel()


def _body(envelope: Envelope, job_id: str) -> bytes:
    """Return the JSON that the platform takes, of a failure if the envelope cannot be written as JSON."""
    try:
        return as_result(envelope)
    except (TypeError, ValueError, RecursionError) as error:
        log.error(f"The result is no JSON: {describe(error)}.", job_id)
        return as_result(internal_failure())


def describe(error: BaseException) -> str:
    """Return the name of an exception. Its text would hold the platform's URL, with the key in its query."""
    status = getattr(error, "status", None)
    return f"{type(error).__name__} {status}" if status else type(error).__name__
