"""Downloads that cannot hurt: guarded, limited in time, bytes and disk, and tried again where that may help."""

import logging
import os
import socket
import sys
import time
from dataclasses import dataclass
from http import HTTPStatus
from urllib.parse import urlsplit

import requests
import urllib3
from runpod.serverless.utils.rp_ssrf import SSRFError, safe_get

from parakeet_worker import __version__
from parakeet_worker.audio import guard
from parakeet_worker.audio.abort import Abort, Aborted
from parakeet_worker.audio.guard import Endless, Watch
from parakeet_worker.audio.scratch import Disk, Scratch, is_out_of_descriptors
from parakeet_worker.errors import Code, JobError
from parakeet_worker.exhaustion import worker_busy
from parakeet_worker.http_status import describe_status
from parakeet_worker.retry import backoff_s, retry_after_s

# urllib3 warns of malformed headers, and names the URL with its query.
logging.getLogger("urllib3").setLevel(logging.CRITICAL)

# For all of the process: whatever else downloads with it is guarded as well.
guard.install()

# A server is given up after this many seconds without a connection or a byte.
_STALL_TIMEOUT_S = 30

# A file that comes slower than this would take hours: bytes per second, on average over so many seconds.
_LEAST_RATE, _RATE_INTERVAL_S = 1_000, 30.0

# A host name, in ASCII (RFC 1035, 2.3.4).
_LONGEST_NAME = 253

# A wait that ends with the time that is left ends a little sooner or later.
_LAST_WAIT_S = 0.05

_MOST_ATTEMPTS = 4
_CHUNK_BYTES = 1 << 16
_HEADERS = {
    "User-Agent": f"parakeet-worker/{__version__}",
    "Accept": "audio/*, */*;q=0.5",
    "Accept-Encoding": "identity",
}


@dataclass(frozen=True)
class DownloadLimits:
    """What one download may cost.

    Attributes:
        max_bytes: Largest file, in bytes.
        timeout_s: Longest time from the first connection to the last byte, in seconds, all attempts together.
        disk: What all downloads together may use, or None for any.
        backoff_s: Longest wait before the second attempt, in seconds; it doubles with each further one.
    """

    max_bytes: int
    timeout_s: float
    disk: Disk | None = None
    backoff_s: float = 1.0


class _Retry(Exception):  # noqa: N818 - what to do, not a mistake
    """An attempt failed in a way that another may not.

    Args:
        error: What the caller is told if none succeeds.
        after_s: How long the server asks to wait, in seconds, or None.
    """

    def __init__(self, error: JobError, after_s: float | None = None) -> None:
        super().__init__(error.message)
        self.error = error
        self.after_s = after_s


def _check_url(url: str) -> None:
    try:
        parts = urlsplit(url)
        # As the look-up of the name encodes it, which refuses labels that are empty or too long.
        name = (parts.hostname or "").encode("idna").rstrip(b".")
        is_valid = 0 < len(name) <= _LONGEST_NAME and b"\0" not in name and parts.port != 0
        requests.Request("GET", url).prepare()
    except (ValueError, requests.RequestException):
        is_valid = False
    if not is_valid:
        raise JobError(Code.INVALID_URL, "audio_url is not a valid URL")


def download(url: str, limits: DownloadLimits, abort: Abort, file: Scratch) -> None:
    """Bring what `url` leads to into `file`, in several attempts where the first ones fail for a moment.

    Args:
        url: An `http:` or `https:` URL.
        limits: What it may cost.
        abort: Ends it when its job is gone.
        file: Empty.

    Raises:
        Aborted: The job is gone.
        JobError: The URL is malformed or not allowed, or its bytes could not be had.
    """
    _check_url(url)
    watch = Watch(limits.timeout_s, abort, limits.max_bytes)
    with watch.running():
        for attempt in range(1, _MOST_ATTEMPTS + 1):
            try:
                _attempt(url, limits, watch, file)
            except _Retry as retry:
                wait = backoff_s(attempt, limits.backoff_s) if retry.after_s is None else retry.after_s
                if attempt == _MOST_ATTEMPTS or wait >= watch.left:
                    raise retry.error from retry.__cause__
            else:
                return
            abort.sleep(wait)
            file.clear()


def _attempt(url: str, limits: DownloadLimits, watch: Watch, file: Scratch) -> None:
    """Bring what `url` leads to into `file`, or say what kept it from that in the caller's words.

    Raises:
        _Retry: It failed, and may not the next time.
    """
    try:
        _fetch(url, limits, watch, file)
    except (JobError, _Retry, Aborted):
        raise
    except Exception as error:
        # A connection that was cut because of the job did not fail by itself, nor did one that had no time left. What
        # the guard refuses it refuses at any time: the look-up of a name may take longer than there is.
        watch.abort.check()
        if watch.left < _LAST_WAIT_S and not isinstance(error, SSRFError):
            reason = f"it took longer than the {limits.timeout_s:g} seconds that are allowed"
            raise _timed_out(reason) from error
        explained = _explain(error)
        if explained is None:
            raise
        raise explained from error


def _fetch(url: str, limits: DownloadLimits, watch: Watch, file: Scratch) -> None:
    """Stream `url` into `file` through the SDK's guard, which refuses addresses that are not public."""
    # The guard's own limit on the size would come before the status is known.
    with safe_get(url, timeout=_STALL_TIMEOUT_S, headers=_HEADERS, max_bytes=sys.maxsize) as response:
        code = response.status_code
        if code == HTTPStatus.TOO_MANY_REQUESTS or code >= HTTPStatus.INTERNAL_SERVER_ERROR:
            raise _Retry(_failed(describe_status(code)), retry_after_s(response.headers.get("Retry-After")))
        if not 200 <= code < 300:
            raise _failed(describe_status(code))
        if _declared(response) > limits.max_bytes:
            raise too_large(limits.max_bytes)
        _store(response.raw, limits, watch, file)


def _explain(error: Exception) -> JobError | _Retry | None:
    """Return what the caller is told of a failure, as a `_Retry` where it may pass, or None if it is none of these.

    The order matters: some of them are kinds of others.
    """
    match error:
        case _ if is_out_of_descriptors(error) or (_is_unresolved(error) and not _has_descriptor()):
            return _Retry(worker_busy())
        case SSRFError():
            return _refused(error)
        case Endless():
            return _failed(str(error))
        case requests.ConnectTimeout():
            return _timed_out(f"the server could not be reached within {_STALL_TIMEOUT_S} seconds")
        case requests.Timeout() | urllib3.exceptions.TimeoutError():
            return _timed_out(f"the server sent nothing for {_STALL_TIMEOUT_S} seconds")
        case requests.exceptions.SSLError() | urllib3.exceptions.SSLError():
            return _failed("no secure connection to the server could be made")
        case urllib3.exceptions.DecodeError():
            return _failed("the server's compression of the file is damaged")
        case urllib3.exceptions.ProtocolError():
            return _Retry(_failed("the connection closed before the end of the file"))
        case requests.RequestException() | urllib3.exceptions.HTTPError() if not isinstance(error, ValueError):
            return _Retry(_failed("the connection to the server failed"))
        case ValueError():  # what requests and urllib say of a URL, a port or a host name that cannot be
            return _failed("the server redirected to an invalid URL")
        case _:
            return None


def _declared(response: requests.Response) -> int:
    """Return the size of the body by its header, or 0 where that does not say."""
    try:
        return int(response.headers.get("Content-Length", 0))
    except ValueError as error:
        raise _failed("the server sent an invalid Content-Length") from error


def _is_unresolved(error: Exception) -> bool:
    return isinstance(error.__cause__, socket.gaierror)


def _has_descriptor() -> bool:
    """Say whether a file can be opened: the look-up of a name does not tell that it could not open one."""
    try:
        os.close(os.open(os.devnull, os.O_RDONLY))
    except OSError:
        return False
    return True


def _store(body: urllib3.BaseHTTPResponse, limits: DownloadLimits, watch: Watch, file: Scratch) -> None:
    """Write a body to `file`, as long as it stays within the limits."""
    since, before = time.monotonic(), 0
    # read1 returns what has arrived, so that a server that drips cannot hold off the look at the clock.
    while chunk := body.read1(_CHUNK_BYTES, decode_content=True):
        watch.check()
        if file.size + len(chunk) > limits.max_bytes:
            raise too_large(limits.max_bytes)
        file.write(chunk)
        if time.monotonic() - since >= _RATE_INTERVAL_S:
            if file.size - before < _LEAST_RATE * _RATE_INTERVAL_S:
                raise _timed_out(f"the server sends less than {_LEAST_RATE} bytes a second")
            since, before = time.monotonic(), file.size
    watch.check()


def _refused(error: SSRFError) -> JobError:
    """Translate the guard's refusal, whose first words alone say the kind, into the caller's words."""
    if _is_unresolved(error):
        return _failed("the server's name could not be resolved")
    kinds = {
        "exceeded maximum redirects": _failed("too many redirects"),
        "redirect without Location": _failed("the server redirected to nowhere"),
        "URL has no host": _failed("the server redirected to an invalid URL"),
        "blocked URL scheme": _failed("the server redirected to something other than an http: or https: URL"),
        "refusing to fetch": JobError(
            Code.INTERNAL_ERROR, "the worker's proxy settings do not allow downloads; tell its operator"
        ),
    }
    for start, refusal in kinds.items():
        if str(error).startswith(start):
            return refusal
    return JobError(Code.URL_NOT_ALLOWED, "audio_url must lead to a public address")


def _failed(reason: str) -> JobError:
    return JobError(Code.DOWNLOAD_FAILED, f"Failed to download audio: {reason}")


def _timed_out(reason: str) -> JobError:
    return JobError(Code.DOWNLOAD_TIMEOUT, f"Failed to download audio: {reason}")


def too_large(max_bytes: int) -> JobError:
    """Say that a file has too many bytes."""
    return JobError(Code.AUDIO_TOO_LARGE, f"the audio file is larger than the {max_bytes / 1e6:g} MB that are allowed")
