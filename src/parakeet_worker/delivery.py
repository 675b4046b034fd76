"""Bringing results to RunPod: each one until it is taken, in a smaller form where it is too large."""

import asyncio
import json
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from http import HTTPStatus
from typing import Any

from aiohttp import ClientError, ClientSession, ClientTimeout
from runpod import RunPodLogger
from yarl import URL

from parakeet_worker.envelope import Envelope, failure, internal_failure
from parakeet_worker.errors import Code, JobError
from parakeet_worker.http_status import describe_status
from parakeet_worker.result import reductions

# How long a result is offered to a platform that is not ready for it, and one offer may take.
_DELIVERY_S = 300.0
_OFFER_S = 60.0

# A result waits as long for the progress update before it, so that none comes behind it.
_LAST_UPDATE_S = 2.0

# 401, 403 and 404 come for a while where a key is being changed, or an endpoint.
_MAY_PASS = frozenset({401, 403, 404, 408, 425, 429})

log = RunPodLogger()


class Delivery:
    """Posts the results and the progress of jobs.

    Args:
        session: What posts them.
        url: The address for a result, with `$ID` in the place of a job's id.
    """

    def __init__(self, session: ClientSession, url: str) -> None:
        self._session = session
        self._url = url

    async def bring(self, job_id: str, envelope: Envelope) -> None:
        """Offer a result until it is taken, or for 300 seconds.

        One that is too large (413) is offered without the timestamps of characters, then without those of words, then
        without any. One that is refused for good makes way for a failure that says so.

        Args:
            job_id: The job's id, quoted.
            envelope: The result.
        """
        smaller = reductions(envelope)
        body = _body(envelope, job_id)
        while status := await self._offer_until_decided(job_id, body):
            said = f"RunPod refused the result of {len(body)} bytes: {describe_status(status)}"
            if envelope.get("code") == Code.RESULT_REFUSED:
                log.error(f"{said}.", job_id)
                return
            log.warn(f"{said}.", job_id)
            offered = next(smaller, None) if status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE else None
            envelope = offered or failure(JobError(Code.RESULT_REFUSED, said))
            body = _body(envelope, job_id)

    async def _offer_until_decided(self, job_id: str, body: bytes) -> int | None:
        """Offer a body until it is taken or refused for good.

        Returns:
            The status of the refusal; None where the body was taken, or nothing came of 300 seconds.
        """
        deadline = time.monotonic() + _DELIVERY_S
        for wait in growing_waits():
            try:
                status = await self.offer(job_id, body)
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
            log.warn(f"The result could not be delivered ({said}); trying again in {wait:g} s.", job_id)
            await asyncio.sleep(wait)
        return None

    async def offer(self, job_id: str, body: bytes) -> int:
        """Post a result or an update once, and return the status of the answer.

        Raises:
            aiohttp.ClientError: There was none.
            OSError: There was none.
        """
        # As the SDK sends it.
        headers = {"charset": "utf-8", "Content-Type": "application/x-www-form-urlencoded", "X-Request-ID": job_id}
        # yarl would take the percent signs of an id for its own, or drop them.
        url = URL(f"{self._url.replace('$ID', job_id)}&isStream=false", encoded=True)
        async with self._session.post(url, data=body, headers=headers, timeout=ClientTimeout(_OFFER_S)) as response:
            await response.read()
            return response.status


class ProgressUpdates:
    """Posts the progress of one job: one update at a time, and none after the result.

    Args:
        delivery: What posts it.
        job_id: The job's id, quoted.

    Attributes:
        is_over: Whether no more are posted.
    """

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


def _body(envelope: Envelope, job_id: str) -> bytes:
    """Turn an envelope into what the platform takes; one that cannot be, into a failure."""
    try:
        return as_result(envelope)
    except (TypeError, ValueError, RecursionError) as error:
        log.error(f"The result is no JSON: {describe(error)}.", job_id)
        return as_result(internal_failure())


def as_result(envelope: Envelope) -> bytes:
    """Turn an envelope into what the platform takes: `error` and `stopPod` stand beside the `output`."""
    output = dict(envelope)
    error = output.pop("error", None)
    is_last = output.pop("refresh_worker", False)
    result: dict[str, Any] = {"output": output}
    result |= ({"error": error} if error else {}) | ({"stopPod": True} if is_last else {})
    return json.dumps(result, ensure_ascii=False, allow_nan=False).encode()


def growing_waits() -> Iterator[float]:
    """Yield the seconds to wait after the first failure, the second, and so on: from 0.25 to 8."""
    wait = 0.25
    while True:
        yield wait
        wait = min(2 * wait, 8.0)


def describe(error: BaseException) -> str:
    """Name an exception. Its own text would hold the platform's URL, with the key in its query."""
    status = getattr(error, "status", None)
    return f"{type(error).__name__} {status}" if status else type(error).__name__
