"""The HTTP requests to RunPod, each tried again while that may help."""

import contextlib
import logging
import random
import threading
import time
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, cast

import httpx

from parakeet_client.contract import TranscriptionError

BASE_URL = "https://api.runpod.ai/v2"

# RunPod takes 20 requests to cancel a job at a time, and 100 in ten seconds.
_MOST_CANCELLING = 16

# Longest that the cancelling of a job is tried, in seconds.
_CANCEL_S = 20.0

# The longest that a server may send nothing, and that a connection may take, in seconds.
_SILENCE_S, _CONNECT_S = 60.0, 15.0

_REFUSALS = {
    401: ("unauthorized", "RunPod does not take the API key."),
    403: ("unauthorized", "The API key may not use this endpoint."),
    413: ("request_too_large", "The request is larger than RunPod takes: give a URL instead of a file."),
}


_is_secret: ContextVar[bool] = ContextVar("_is_secret", default=False)


class _NoSecrets(logging.Filter):
    """Keeps httpx from logging the requests whose address is signed. At the level INFO, it logs each with its URL."""

    def filter(self, record: logging.LogRecord) -> bool:
        return not _is_secret.get()


logging.getLogger("httpx").addFilter(_NoSecrets())


@dataclass(frozen=True)
class Pace:
    """How long the client waits between its requests, in seconds.

    Attributes:
        first_poll: From sending a job to asking for it. Each further wait is half as long again.
        longest_poll: The longest of these waits. RunPod keeps some results for only a minute.
        first_retry: Before a request or a job is sent again. Each further wait is twice as long.
        longest_retry: The longest of these waits.
        requests: How often a request is sent at most, if there is no connection or RunPod cannot answer.
    """

    first_poll: float = 0.5
    longest_poll: float = 5.0
    first_retry: float = 1.0
    longest_retry: float = 30.0
    requests: int = 8

    def poll(self, number: int) -> float:
        """Return the wait before the status of a job is asked for; `number` counts from 0."""
        return min(self.longest_poll, self.first_poll * 1.5 ** min(number, 50))

    def retry(self, number: int) -> float:
        """Return the wait before something is sent again; `number` counts from 0."""
        # By chance, so that what failed together does not come back together.
        share = random.uniform(0.5, 1.0)  # noqa: S311
        return share * min(self.longest_retry, self.first_retry * 2.0 ** min(number, 50))


@dataclass(frozen=True)
class WaitLimit:
    """When waiting ends although nothing has come: an event, and a time of the monotonic clock."""

    stop: threading.Event
    deadline: float | None = None

    def at_most(self, seconds: float) -> float:
        """Return so many seconds, or those that are left if they are fewer; a hundredth at least."""
        return seconds if self.deadline is None else max(0.01, min(seconds, self.deadline - time.monotonic()))

    def sleep(self, seconds: float) -> None:
        """Wait.

        Raises:
            TranscriptionError: Waiting has ended (`stopped`, `timeout`).
        """
        left = seconds if self.deadline is None else min(seconds, self.deadline - time.monotonic())
        if self.stop.wait(max(0.0, left)):
            raise TranscriptionError("stopped", "The caller stopped waiting.")
        if left < seconds:
            raise TranscriptionError("timeout", "The job took longer than the caller waits.")


class Endpoint:
    """An endpoint of RunPod. Several threads may use it.

    Args:
        endpoint_id: The endpoint's id.
        api_key: A key that may use it.
        base_url: Where RunPod's endpoints are.
        pace: How long to wait between requests.
    """

    def __init__(self, endpoint_id: str, api_key: str, base_url: str, pace: Pace) -> None:
        self._url = f"{base_url.rstrip('/')}/{endpoint_id}"
        # Sent with some requests only: the address in a bucket comes with an answer, and must not get the key.
        self._key = {"Authorization": f"Bearer {api_key}"}
        self._pace = pace
        self._http = httpx.Client(limits=httpx.Limits(max_connections=None))
        self._cancelling = threading.BoundedSemaphore(_MOST_CANCELLING)

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def post(self, path: str, body: bytes, limit: WaitLimit) -> dict[str, Any]:
        """Return the answer to a request that queues a job.

        If the connection breaks before the answer, RunPod may have taken the job, and then it is done twice.

        Raises:
            TranscriptionError: There is none.
        """
        response = self._send("POST", f"{self._url}/{path}", limit, self._key, body)
        if response.status_code == httpx.codes.NOT_FOUND:
            raise TranscriptionError("unknown_endpoint", "RunPod knows no such endpoint.")
        return _job(response)

    def status(self, job_id: str, limit: WaitLimit) -> dict[str, Any]:
        """Return what RunPod says of a job.

        Raises:
            TranscriptionError: It says nothing; `expired` if it knows no such job.
        """
        response = self._send("GET", f"{self._url}/status/{job_id}", limit, self._key)
        if response.status_code in (httpx.codes.NOT_FOUND, httpx.codes.GONE):
            raise TranscriptionError("expired", "RunPod does not know the job any longer.")
        return _job(response)

    def cancel(self, job_id: str) -> bool:
        """Ask that a job is cancelled, a few times if RunPod cannot answer, and return whether RunPod took that."""
        with self._cancelling, contextlib.suppress(TranscriptionError):
            limit = WaitLimit(threading.Event(), time.monotonic() + _CANCEL_S)
            return self._send("POST", f"{self._url}/cancel/{job_id}", limit, self._key).is_success
        return False

    def fetch(self, url: str, limit: WaitLimit) -> object:
        """Return the JSON behind a URL in a bucket.

        Raises:
            TranscriptionError: There is none (`result_unavailable`).
        """
        # No message names the URL: it is signed, so whoever has it can read the result.
        token = _is_secret.set(True)
        try:
            response = self._send("GET", url, limit, {}, follow_redirects=True)
            if response.is_success:
                return cast("object", response.json())
            problem = _status(response)
        except (httpx.InvalidURL, httpx.UnsupportedProtocol):
            problem = "its address is not usable"
        except ValueError:
            problem = "it is not JSON"
        except TranscriptionError as error:
            if error.code != "unreachable":
                raise
            problem = error.message
        finally:
            _is_secret.reset(token)
        raise TranscriptionError("result_unavailable", f"The result cannot be fetched from the bucket: {problem}.")

    def _send(
        self,
        method: str,
        url: str,
        limit: WaitLimit,
        headers: dict[str, str],
        body: bytes | None = None,
        *,
        follow_redirects: bool = False,
    ) -> httpx.Response:
        """Return the answer to a request, which may be a refusal.

        Raises:
            TranscriptionError: There is no answer after several attempts (`unreachable`), or waiting has ended.
        """
        if body is not None:
            headers = headers | {"Content-Type": "application/json"}
        problem = ""
        for number in range(self._pace.requests):
            wait = self._pace.retry(number)
            try:
                response = self._http.request(
                    method,
                    url,
                    content=body,
                    headers=headers,
                    follow_redirects=follow_redirects,
                    timeout=httpx.Timeout(limit.at_most(_SILENCE_S), connect=limit.at_most(_CONNECT_S), pool=None),
                )
            except httpx.UnsupportedProtocol:
                raise
            except httpx.RequestError as error:
                problem = str(error) or type(error).__name__
            else:
                if not may_pass(response):
                    return response
                problem = _status(response)
                wait = max(wait, _retry_after(response))
            if number + 1 < self._pace.requests:
                limit.sleep(wait)
        raise TranscriptionError("unreachable", f"No answer after {self._pace.requests} attempts: {problem}")


def may_pass(response: httpx.Response) -> bool:
    """Return whether there were too many requests, or the server cannot answer at the moment."""
    return response.status_code in (408, 429) or response.is_server_error


def _status(response: httpx.Response) -> str:
    return f"{response.status_code} {response.reason_phrase}".strip()


def _retry_after(response: httpx.Response) -> float:
    """Return the seconds of `Retry-After`, two minutes at most; 0 without one, or if it is a date."""
    value = response.headers.get("Retry-After", "")
    return min(120.0, float(value)) if value.isascii() and value.isdigit() else 0.0


def _job(response: httpx.Response) -> dict[str, Any]:
    """Return the job in an answer.

    Raises:
        TranscriptionError: RunPod refused the request, or the answer is no job.
    """
    if response.status_code in _REFUSALS:
        raise TranscriptionError(*_REFUSALS[response.status_code])
    if not response.is_success:
        raise TranscriptionError("request_refused", f"RunPod refused the request: {_status(response)}.")
    try:
        job = response.json()
    except ValueError:
        job = None
    if not isinstance(job, dict) or not isinstance(job.get("id"), str) or not isinstance(job.get("status"), str):
        raise TranscriptionError("unexpected_answer", "RunPod's answer is not a job.")
    return job
