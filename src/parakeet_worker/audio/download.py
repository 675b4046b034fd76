"""Downloads that cannot hurt: guarded, limited in time, bytes and disk, and tried again where that may help."""

import errno
import logging
import socket
import sys
import threading
import time
from dataclasses import dataclass
from http import HTTPStatus
from typing import BinaryIO
from urllib.parse import urlsplit

import requests
import urllib3
from runpod.serverless.utils.rp_ssrf import SSRFError, safe_get

from parakeet_worker import __version__
from parakeet_worker.audio import guard
from parakeet_worker.audio.abort import Abort
from parakeet_worker.audio.guard import Expired, Watch
from parakeet_worker.errors import Code, JobError
from parakeet_worker.retry import backoff_s, retry_after_s

# urllib3 warns of malformed headers, and names the URL with its query.
logging.getLogger("urllib3").setLevel(logging.ERROR)

# For all of the process: whatever else downloads with it is guarded as well.
guard.install()

# A server is given up after this many seconds without a connection or a byte.
_STALL_TIMEOUT_S = 30

# A file that comes slower than this would take hours: bytes per second, on average over so many seconds.
_LEAST_RATE, _RATE_INTERVAL_S = 1_000, 30.0

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
    disk: "Disk | None" = None
    backoff_s: float = 1.0


class Disk:
    """Bytes on the disk that all downloads share.

    A download that does not fit fails, rather than wait: those that it would wait for may wait for it.

    Args:
        max_bytes: How many there are.
    """

    def __init__(self, max_bytes: int) -> None:
        self._left = max_bytes
        self._lock = threading.Lock()

    def take(self, count: int) -> None:
        """Take bytes; a negative number gives them back.

        Raises:
            JobError: There are not as many left.
        """
        with self._lock:
            if count > self._left:
                raise _no_room()
            self._left -= count


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
        is_valid = bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_valid = False
    if not is_valid:
        raise JobError(Code.INVALID_URL, "audio_url is not a valid URL")


def download(url: str, limits: DownloadLimits, abort: Abort, file: BinaryIO) -> None:
    """Bring what `url` leads to into `file`, in several attempts where the first ones fail for a moment.

    Args:
        url: An `http:` or `https:` URL.
        limits: What it may cost.
        abort: Ends it when its job is gone.
        file: Empty and writable.

    Raises:
        Aborted: The job is gone.
        JobError: The URL is malformed or not allowed, or its bytes could not be had.
    """
    _check_url(url)
    watch = Watch(limits.timeout_s, abort)
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
            if limits.disk:
                limits.disk.take(-file.tell())
            file.seek(0)
            file.truncate()


def _attempt(url: str, limits: DownloadLimits, watch: Watch, file: BinaryIO) -> None:
    """Stream `url` into `file` through the SDK's guard, which refuses addresses that are not public.

    Raises:
        _Retry: It failed, and may not the next time.
    """
    timeout = min(_STALL_TIMEOUT_S, limits.timeout_s)
    try:
        # The guard's own limit on the size would come before the status is known.
        with safe_get(url, timeout=timeout, headers=_HEADERS, max_bytes=sys.maxsize) as response:
            code = response.status_code
            if code == HTTPStatus.TOO_MANY_REQUESTS or code >= HTTPStatus.INTERNAL_SERVER_ERROR:
                raise _Retry(_failed(_status(code)), retry_after_s(response.headers.get("Retry-After")))
            if not 200 <= code < 300:
                raise _failed(_status(code))
            if int(response.headers.get("Content-Length", 0)) > limits.max_bytes:
                raise too_large(limits.max_bytes)
            _store(response.raw, limits, watch, file)
    except SSRFError as error:
        raise _refused(error) from error
    except Expired as error:
        raise _too_slow(limits.timeout_s) from error
    except (requests.Timeout, urllib3.exceptions.TimeoutError) as error:
        raise _too_slow(limits.timeout_s) from error
    except (requests.exceptions.SSLError, urllib3.exceptions.SSLError) as error:
        _check_time(watch, limits)
        raise _failed("no secure connection to the server could be made") from error
    except urllib3.exceptions.DecodeError as error:
        raise _failed("the server's compression of the file is damaged") from error
    except urllib3.exceptions.ProtocolError as error:
        _check_time(watch, limits)
        raise _Retry(_failed("the connection closed before the end of the file")) from error
    except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
        _check_time(watch, limits)
        raise _Retry(_failed("the connection to the server failed")) from error
    except ValueError as error:  # the word of urllib for a port or a host name that cannot be
        raise _failed("the server redirected to an invalid URL, or sent an invalid header") from error


def _check_time(watch: Watch, limits: DownloadLimits) -> None:
    """Tell a connection that was cut because of the time, or of the job, from one that failed by itself."""
    try:
        watch.check()
    except Expired as error:
        raise _too_slow(limits.timeout_s) from error


def _store(body: urllib3.BaseHTTPResponse, limits: DownloadLimits, watch: Watch, file: BinaryIO) -> None:
    """Write a body to `file`, as long as it stays within the limits."""
    since, before = time.monotonic(), 0
    # read1 returns what has arrived, so that a server that drips cannot hold off the look at the clock.
    while chunk := body.read1(_CHUNK_BYTES, decode_content=True):
        watch.check()
        size = file.tell() + len(chunk)
        if size > limits.max_bytes:
            raise too_large(limits.max_bytes)
        if limits.disk:
            limits.disk.take(len(chunk))
        try:
            file.write(chunk)
        except OSError as error:
            if limits.disk:
                limits.disk.take(file.tell() - size)
            raise (_no_room() if error.errno == errno.ENOSPC else error) from error
        if time.monotonic() - since >= _RATE_INTERVAL_S:
            if size - before < _LEAST_RATE * _RATE_INTERVAL_S:
                raise JobError(
                    Code.DOWNLOAD_TIMEOUT,
                    f"Failed to download audio: the server sends less than {_LEAST_RATE} bytes a second",
                )
            since, before = time.monotonic(), size
    watch.check()


def _status(code: int) -> str:
    try:
        return f"{code} {HTTPStatus(code).phrase}"
    except ValueError:
        return str(code)


def _refused(error: SSRFError) -> JobError:
    """Translate the guard's refusal, whose first words alone say the kind, into the caller's words."""
    if isinstance(error.__cause__, socket.gaierror):
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


def _no_room() -> JobError:
    return _failed("the worker has no room for it on its disk at the moment; send it again")


def too_large(max_bytes: int) -> JobError:
    """Say that a file has too many bytes."""
    return JobError(Code.AUDIO_TOO_LARGE, f"the audio file is larger than the {max_bytes / 1e6:g} MB that are allowed")


def _too_slow(timeout_s: float) -> JobError:
    return JobError(
        Code.DOWNLOAD_TIMEOUT,
        f"Failed to download audio: the server stalled or took longer than the {timeout_s:g} seconds that are allowed",
    )
