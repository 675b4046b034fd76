"""The HTTP requests to RunPod, each tried again while that may help."""

import random
import threading
import time
from dataclasses import dataclass
from typing import Any, cast

import httpx

from parakeet_client.contract import TranscriptionError

BASE_URL = "https://api.runpod.ai/v2"

# Too many requests, and what a server says that cannot answer at the moment.
_TRY_AGAIN = frozenset({408, 429, 500, 502, 503, 504})
_REFUSALS = {
    401: ("unauthorized", "RunPod does not take the API key."),
    403: ("unauthorized", "The API key may not use this endpoint."),
    413: ("request_too_large", "The request is larger than RunPod takes: give a URL instead of a file."),
}


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
        timeout = httpx.Timeout(60.0, connect=15.0, pool=None)
        self._http = httpx.Client(timeout=timeout, limits=httpx.Limits(max_connections=None))

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
        """Ask once that a job is cancelled, and return whether RunPod took that."""
        try:
            response = self._http.post(f"{self._url}/cancel/{job_id}", headers=self._key, timeout=10.0)
        except httpx.RequestError:
            return False
        return response.is_success

    def fetch(self, url: str, limit: WaitLimit) -> object:
        """Return the JSON behind a URL in a bucket.

        Raises:
            TranscriptionError: There is none (`result_unavailable`).
        """
        # No message names the URL: it is signed, so whoever has it can read the result.
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
                    method, url, content=body, headers=headers, follow_redirects=follow_redirects
                )
            except httpx.UnsupportedProtocol:
                raise
            except httpx.RequestError as error:
                problem = str(error) or type(error).__name__
            else:
                if response.status_code not in _TRY_AGAIN:
                    return response
                problem = _status(response)
                wait = max(wait, _retry_after(response))
            if number + 1 < self._pace.requests:
                limit.sleep(wait)
        raise TranscriptionError("unreachable", f"No answer after {self._pace.requests} attempts: {problem}")


def _status(response: httpx.Response) -> str:
    return f"{response.status_code} {response.reason_phrase}"


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
