"""From an `audio_url` to a readable file: a guarded download, or the bytes of a `data:` URL."""

import base64
import io
import logging
import socket
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from typing import BinaryIO
from urllib.parse import unquote_to_bytes, urlsplit

import requests
import urllib3
from runpod.serverless.utils.rp_ssrf import SSRFError, safe_get

from parakeet_worker import __version__
from parakeet_worker.audio.abort import Abort
from parakeet_worker.errors import Code, JobError

# urllib3 warns of malformed headers, and names the URL with its query.
logging.getLogger("urllib3").setLevel(logging.ERROR)

# A server is given up after this many seconds without a connection or a byte.
_STALL_TIMEOUT_S = 30
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
        max_bytes: Largest body, in bytes.
        timeout_s: Longest time for the body, in seconds. Each wait for a connection or for headers is shorter.
    """

    max_bytes: int
    timeout_s: float


@contextmanager
def open_audio(url: str, limits: DownloadLimits, abort: Abort) -> Iterator[BinaryIO]:
    """Open what `url` leads to, positioned at its first byte.

    A download goes to a temporary file that has no name from the moment it exists, so nothing is left on the disk
    however the job or the process ends.

    Args:
        url: An `http:`, `https:` or `data:` URL.
        limits: What the download may cost.
        abort: Ends the download when its job is gone.

    Raises:
        Aborted: The job is gone.
        JobError: The URL is malformed or not allowed, or its bytes could not be had.
    """
    if url[:5].lower() == "data:":
        with io.BytesIO(_data_url_bytes(url, limits.max_bytes)) as memory:
            yield memory
        return
    with tempfile.TemporaryFile(prefix="parakeet-") as file:
        _download(url, limits, abort, file)
        file.seek(0)
        yield file


def _data_url_bytes(url: str, max_bytes: int) -> bytes:
    """Decode a base64 `data:` URL (RFC 2397), as forgivingly as browsers do: spaces and missing padding are fine."""
    header, comma, payload = url[5:].partition(",")
    if not comma or not header.lower().replace(" ", "").endswith(";base64"):
        raise JobError(Code.INVALID_URL, "a data: URL must have the form data:audio/wav;base64,<base64 of the file>")
    try:
        text = unquote_to_bytes(payload).translate(None, delete=b"\t\n\f\r ")
        text = text.rstrip(b"=") if len(text) % 4 == 0 else text
        if len(text) > max_bytes // 3 * 4 + 4:
            raise _too_large(max_bytes)
        data = base64.b64decode(text + b"=" * (-len(text) % 4), validate=True)
    except ValueError as error:  # characters that are not ASCII among them
        raise JobError(Code.INVALID_URL, "the base64 of the data: URL is not valid") from error
    if len(data) > max_bytes:
        raise _too_large(max_bytes)
    return data


def _check_url(url: str) -> None:
    try:
        parts = urlsplit(url)
        is_valid = bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_valid = False
    if not is_valid:
        raise JobError(Code.INVALID_URL, "audio_url is not a valid URL")


def _download(url: str, limits: DownloadLimits, abort: Abort, file: BinaryIO) -> None:
    """Stream `url` into `file` through the SDK's guard, which refuses addresses that are not public."""
    _check_url(url)
    deadline = time.monotonic() + limits.timeout_s
    timeout = min(_STALL_TIMEOUT_S, limits.timeout_s)
    try:
        # The guard's own limit on the size would come before the status is known.
        with (
            safe_get(url, timeout=timeout, headers=_HEADERS, max_bytes=sys.maxsize) as response,
            abort.waking(response.raw.shutdown),
        ):
            if not 200 <= response.status_code < 300:
                raise _failed(_status(response.status_code))
            if int(response.headers.get("Content-Length", 0)) > limits.max_bytes:
                raise _too_large(limits.max_bytes)
            # read1 returns what has arrived, so that a server that drips cannot hold off the look at the clock.
            while chunk := response.raw.read1(_CHUNK_BYTES, decode_content=True):
                abort.check()
                if file.tell() + len(chunk) > limits.max_bytes:
                    raise _too_large(limits.max_bytes)
                if time.monotonic() > deadline:
                    raise _too_slow(limits.timeout_s)
                file.write(chunk)
        abort.check()
    except SSRFError as error:
        raise _refused(error) from error
    except (requests.Timeout, urllib3.exceptions.TimeoutError) as error:
        raise _too_slow(limits.timeout_s) from error
    except (requests.exceptions.SSLError, urllib3.exceptions.SSLError) as error:
        raise _failed("no secure connection to the server could be made") from error
    except urllib3.exceptions.DecodeError as error:
        raise _failed("the server's compression of the file is damaged") from error
    except urllib3.exceptions.ProtocolError as error:
        raise _failed("the connection closed before the end of the file") from error
    except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
        raise _failed("the connection to the server failed") from error
    except ValueError as error:  # the word of urllib for a port or a host name that cannot be
        raise _failed("the server redirected to an invalid URL, or sent an invalid header") from error


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


def _too_large(max_bytes: int) -> JobError:
    return JobError(Code.AUDIO_TOO_LARGE, f"the audio file is larger than the {max_bytes / 1e6:g} MB that are allowed")


def _too_slow(timeout_s: float) -> JobError:
    return JobError(
        Code.DOWNLOAD_TIMEOUT,
        f"Failed to download audio: the server stalled or took longer than the {timeout_s:g} seconds that are allowed",
    )
