"""Downloads: guarded against private addresses, limited in time, size and disk space, with retries."""

import logging
import os
import socket
import time
from dataclasses import dataclass
from http import HTTPStatus
from urllib.parse import urlsplit

import requests
import urllib3

from parakeet_worker import __version__
from parakeet_worker.audio.fetch import guard
from parakeet_worker.audio.fetch.guard import RefusedAddressError, guarded_get
from parakeet_worker.audio.fetch.scratch import DiskBudget, ScratchFile
from parakeet_worker.audio.fetch.watchdog import EndlessResponseError, Watchdog
from parakeet_worker.cancellation import CancellationToken, JobCancelledError
from parakeet_worker.errors import Code, JobError
from parakeet_worker.exhaustion import is_out_of_descriptors, worker_busy
from parakeet_worker.http.retry import backoff_s, retry_after_s
from parakeet_worker.http.status import describe_status

# urllib3's warnings of malformed headers contain the URL with its query, which may be secret.
logging.getLogger("urllib3").setLevel(logging.CRITICAL)

# In the whole process, so that other downloads with the SDK are guarded as well.
guard.install()

# Longest wait for a connection or for the next byte, in seconds.
STALL_TIMEOUT_S = 30

# Lowest download rate in bytes per second, on average over an interval in seconds. A slower one would take hours.
_MIN_RATE, RATE_INTERVAL_S = 1_000, 30.0

# Longest host name in ASCII (RFC 1035, 2.3.4).
_MAX_NAME = 253

# A wait that is limited to the time left may end this much before the deadline.
_LAST_WAIT_S = 0.05

_MAX_ATTEMPTS = 4
_CHUNK_BYTES = 1 << 16
_HEADERS = {
    "User-Agent": f"parakeet-worker/{__version__}",
    "Accept": "audio/*, */*;q=0.5",
    "Accept-Encoding": "identity",
}


@dataclass(frozen=True)
class DownloadLimits:
    """Limits of a download.

    Attributes:
        max_bytes: Largest file, in bytes.
        timeout_s: Longest time from the first connection to the last byte, in seconds, all attempts together.
        disk: Space that all downloads share, or None for no limit.
        backoff_s: Longest wait before the second attempt, in seconds; it doubles with each further one.
    """

    max_bytes: int
    timeout_s: float
    disk: DiskBudget | None = None
    backoff_s: float = 1.0


class _RetryableError(Exception):
    """An attempt failed, and another one may succeed.

    Args:
        error: The job's error if no attempt succeeds.
        after_s: Wait that the server requests (`Retry-After`), in seconds, or None.
    """

    def __init__(self, error: JobError, after_s: float | None = None) -> None:
        super().__init__(error.message)
        self.error = error
        self.after_s = after_s


def _check_url(url: str) -> None:
    """Check that a URL is valid.

    Raises:
        JobError: It is not.
    """
    try:
        parts = urlsplit(url)
        # The same encoding as for name resolution. It raises for labels that are empty or too long.
        name = (parts.hostname or "").encode("idna").rstrip(b".")
        is_valid = 0 < len(name) <= _MAX_NAME and b"\0" not in name and parts.port != 0
        requests.Request("GET", url).prepare()
    except (ValueError, requests.RequestException):
        is_valid = False
    if not is_valid:
        raise JobError(Code.INVALID_URL, "audio_url is not a valid URL")


def download(url: str, limits: DownloadLimits, cancellation: CancellationToken, file: ScratchFile) -> None:
    """Download a URL to `file`, and retry after failures that may be temporary.

    Args:
        url: An `http:` or `https:` URL.
        limits: Limits of the download, all attempts together.
        cancellation: Stops the download when the job is cancelled.
        file: The file to write to, empty.

    Raises:
        JobCancelledError: The job was cancelled.
        JobError: The URL is malformed or not allowed, or the download failed.
    """
    _check_url(url)
    watchdog = Watchdog(limits.timeout_s, cancellation, limits.max_bytes)
    with watchdog.running():
        for attempt in range(1, _MAX_ATTEMPTS + 1):
            try:
                _attempt(url, limits, watchdog, file)
            except _RetryableError as retry:
                wait = backoff_s(attempt, limits.backoff_s) if retry.after_s is None else retry.after_s
                if attempt == _MAX_ATTEMPTS or wait >= watchdog.left:
                    raise retry.error from retry.__cause__
            else:
                return
            cancellation.sleep(wait)
            file.clear()


def _attempt(url: str, limits: DownloadLimits, watchdog: Watchdog, file: ScratchFile) -> None:
    """Try once to download a URL to `file`.

    Raises:
        JobCancelledError: The job was cancelled.
        JobError: The download failed for good.
        _RetryableError: It failed, and another attempt may succeed.
    """
    try:
        _fetch(url, limits, watchdog, file)
    except (JobError, _RetryableError, JobCancelledError):
        raise
    except Exception as error:
        # The error may only be the result of a cancellation or of the deadline, which are reported instead. A refused
        # address is always reported as such, even if resolving its name has taken until the deadline.
        watchdog.cancellation.check()
        if watchdog.left < _LAST_WAIT_S and not isinstance(error, RefusedAddressError):
            reason = f"it took longer than the {limits.timeout_s:g} seconds that are allowed"
            raise _timed_out(reason) from error
        explained = _explain(error)
        if explained is None:
            raise
        raise explained from error


def _fetch(url: str, limits: DownloadLimits, watchdog: Watchdog, file: ScratchFile) -> None:
    """Send the request through the guard, check the response's status and size, and write its body to `file`."""
    with guarded_get(url, STALL_TIMEOUT_S, _HEADERS) as response:
        code = response.status_code
        if code == HTTPStatus.TOO_MANY_REQUESTS or code >= HTTPStatus.INTERNAL_SERVER_ERROR:
            raise _RetryableError(_failed(describe_status(code)), retry_after_s(response.headers.get("Retry-After")))
        if not 200 <= code < 300:
            raise _failed(describe_status(code))
        if _declared(response) > limits.max_bytes:
            raise too_large(limits.max_bytes)
        _store(response.raw, limits, watchdog, file)


def _explain(error: Exception) -> JobError | _RetryableError | None:
    """Return the job's error for an exception, as a `_RetryableError` if another attempt may succeed. None if unknown.

    The order matters: some classes are derived from others.
    """
    match error:
        case _ if is_out_of_descriptors(error) or (_is_unresolved(error) and not _has_descriptor()):
            return _RetryableError(worker_busy())
        case _ if isinstance(error, RefusedAddressError):
            return _refused(error)
        case EndlessResponseError():
            return _failed(str(error))
        case requests.ConnectTimeout():
            return _timed_out(f"the server could not be reached within {STALL_TIMEOUT_S} seconds")
        case requests.Timeout() | urllib3.exceptions.TimeoutError():
            return _timed_out(f"the server sent nothing for {STALL_TIMEOUT_S} seconds")
        case requests.exceptions.SSLError() | urllib3.exceptions.SSLError():
            return _failed("no secure connection to the server could be made")
        case urllib3.exceptions.DecodeError():
            return _failed("the server's compression of the file is damaged")
        case urllib3.exceptions.ProtocolError():
            return _RetryableError(_failed("the connection closed before the end of the file"))
        case requests.RequestException() | urllib3.exceptions.HTTPError() if not isinstance(error, ValueError):
            return _RetryableError(_failed("the connection to the server failed"))
        case ValueError():  # raised by requests and urllib for an invalid URL, port or host name
            return _failed("the server redirected to an invalid URL")
        case _:
            return None


def _declared(response: requests.Response) -> int:
    """Return the size of the body that the response declares, or 0 if it declares none.

    Raises:
        JobError: The declared size is no number.
    """
    try:
        return int(response.headers.get("Content-Length", 0))
    except ValueError as error:
        raise _failed("the server sent an invalid Content-Length") from error


def _is_unresolved(error: Exception) -> bool:
    """Return whether a host name could not be resolved."""
    return isinstance(error.__cause__, socket.gaierror)


def _has_descriptor() -> bool:
    """Return whether a file descriptor is free. Name resolution fails without one, but with an unrelated error."""
    try:
        os.close(os.open(os.devnull, os.O_RDONLY))
    except OSError:
        return False
    return True


def _store(body: urllib3.BaseHTTPResponse, limits: DownloadLimits, watchdog: Watchdog, file: ScratchFile) -> None:
    """Write a response's body to `file`.

    Raises:
        JobCancelledError: The job was cancelled.
        DeadlineError: The deadline has passed.
        JobError: The body is too large or comes too slowly, or there is no disk space.
    """
    since, before = time.monotonic(), 0
    # read1 returns as soon as bytes have arrived, so that the checks below also run for a slow server.
    while chunk := body.read1(_CHUNK_BYTES, decode_content=True):
        watchdog.check()
        if file.size + len(chunk) > limits.max_bytes:
            raise too_large(limits.max_bytes)
        file.write(chunk)
        if time.monotonic() - since >= RATE_INTERVAL_S:
            if file.size - before < _MIN_RATE * RATE_INTERVAL_S:
                raise _timed_out(f"the server sends less than {_MIN_RATE} bytes a second")
            since, before = time.monotonic(), file.size
    watchdog.check()


def _refused(error: Exception) -> JobError:
    """Return the job's error for an exception of the guard. Its type is known only from the start of its text."""
    if _is_unresolved(error):
        return _failed("the server's name could not be resolved")
    errors = {
        "exceeded maximum redirects": _failed("too many redirects"),
        "redirect without Location": _failed("the server redirected to nowhere"),
        "URL has no host": _failed("the server redirected to an invalid URL"),
        "blocked URL scheme": _failed("the server redirected to something other than an http: or https: URL"),
        "refusing to fetch": JobError(
            Code.INTERNAL_ERROR, "the worker's proxy settings do not allow downloads; tell its operator"
        ),
    }
    for start, job_error in errors.items():
        if str(error).startswith(start):
            return job_error
    return JobError(Code.URL_NOT_ALLOWED, "audio_url must lead to a public address")


def _failed(reason: str) -> JobError:
    return JobError(Code.DOWNLOAD_FAILED, f"Failed to download audio: {reason}")


def _timed_out(reason: str) -> JobError:
    return JobError(Code.DOWNLOAD_TIMEOUT, f"Failed to download audio: {reason}")


def too_large(max_bytes: int) -> JobError:
    """Return the error of a job whose audio file is larger than `max_bytes`."""
    return JobError(Code.AUDIO_TOO_LARGE, f"the audio file is larger than the {max_bytes / 1e6:g} MB that are allowed")
