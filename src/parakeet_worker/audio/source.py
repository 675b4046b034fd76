"""From an `audio_url` to a readable file: a guarded download, or the bytes of a `data:` URL."""

import base64
import binascii
import io
import re
import socket
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from typing import BinaryIO
from urllib.parse import unquote_to_bytes

import requests
import urllib3
from runpod.serverless.utils.rp_ssrf import SSRFError, safe_get

from parakeet_worker import __version__
from parakeet_worker.errors import Code, JobError

# A stalled server is given up after this many seconds without a byte.
_STALL_TIMEOUT_S = 30
_CHUNK_BYTES = 1 << 16


@dataclass(frozen=True)
class DownloadLimits:
    """What one download may cost.

    Attributes:
        max_bytes: Largest body, in bytes.
        timeout_s: Longest time for the whole of it, in seconds.
    """

    max_bytes: int
    timeout_s: float


@contextmanager
def open_audio(url: str, limits: DownloadLimits) -> Iterator[BinaryIO]:
    """Open what `url` leads to, positioned at its first byte.

    A download goes to a temporary file that has no name from the moment it exists, so nothing is left on the disk
    however the job or the process ends.

    Args:
        url: An `http:`, `https:` or `data:` URL.
        limits: What the download may cost.

    Raises:
        JobError: The URL is malformed or not allowed, or its bytes could not be had.
    """
    if url[:5].lower() == "data:":
        with io.BytesIO(_data_url_bytes(url, limits.max_bytes)) as memory:
            yield memory
        return
    with tempfile.TemporaryFile(prefix="parakeet-") as file:
        _download(url, limits, file)
        file.seek(0)
        yield file


def _data_url_bytes(url: str, max_bytes: int) -> bytes:
    """Decode a base64 `data:` URL (RFC 2397), as forgivingly as browsers do: spaces and missing padding are fine."""
    header, comma, payload = url[5:].partition(",")
    if not comma or not header.lower().replace(" ", "").endswith(";base64"):
        raise JobError(Code.INVALID_URL, "a data: URL must have the form data:audio/wav;base64,<base64 of the file>")
    if len(payload) // 4 * 3 > max_bytes * 3:  # percent-encoding can triple the length of the text
        raise _too_large(max_bytes)
    text = re.sub(rb"[\t\n\f\r ]+", b"", unquote_to_bytes(payload))
    text = text.rstrip(b"=") if len(text) % 4 == 0 else text
    try:
        data = base64.b64decode(text + b"=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError) as error:
        raise JobError(Code.INVALID_URL, "the base64 of the data: URL is not valid") from error
    if len(data) > max_bytes:
        raise _too_large(max_bytes)
    return data


def _download(url: str, limits: DownloadLimits, file: BinaryIO) -> None:
    """Stream `url` into `file` through the SDK's guard, which refuses addresses that are not public."""
    deadline = time.monotonic() + limits.timeout_s
    headers = {"User-Agent": f"parakeet-worker/{__version__}", "Accept": "audio/*, */*;q=0.5"}
    try:
        with safe_get(
            url, timeout=min(_STALL_TIMEOUT_S, limits.timeout_s), headers=headers, max_bytes=limits.max_bytes
        ) as response:
            if not 200 <= response.status_code < 300:
                raise _failed(_status(response.status_code))
            for chunk in response.iter_content(_CHUNK_BYTES):
                if file.tell() + len(chunk) > limits.max_bytes:
                    raise _too_large(limits.max_bytes)
                if time.monotonic() > deadline:
                    raise _too_slow(limits.timeout_s)
                file.write(chunk)
    except SSRFError as error:
        raise _refused(error, limits) from error
    except requests.Timeout as error:
        raise _too_slow(limits.timeout_s) from error
    except requests.exceptions.ChunkedEncodingError as error:
        raise _failed("the connection closed before the end of the file") from error
    except requests.exceptions.SSLError as error:
        raise _failed("the server's certificate could not be verified") from error
    except (requests.exceptions.InvalidURL, requests.exceptions.MissingSchema) as error:
        raise _invalid_url() from error
    except requests.RequestException as error:
        if _is_stall(error):
            raise _too_slow(limits.timeout_s) from error
        raise _failed("the connection to the server failed") from error
    except ValueError as error:  # urllib's word for a port or a host name that cannot be
        raise _invalid_url() from error


def _status(code: int) -> str:
    try:
        return f"{code} {HTTPStatus(code).phrase}"
    except ValueError:
        return str(code)


def _is_stall(error: requests.RequestException) -> bool:
    """Say whether the server stopped sending; requests reports that inside a body as a connection error."""
    return bool(error.args) and isinstance(error.args[0], urllib3.exceptions.ReadTimeoutError)


def _refused(error: SSRFError, limits: DownloadLimits) -> JobError:
    """Translate the guard's refusal, of which only the text says the kind, into the caller's words."""
    text = str(error)
    if isinstance(error.__cause__, socket.gaierror):
        return _failed("the server's name could not be resolved")
    if "exceeds size cap" in text:
        return _too_large(limits.max_bytes)
    if "maximum redirects" in text:
        return _failed("too many redirects")
    if "redirect without Location" in text:
        return _failed("the server redirected to nowhere")
    if "URL has no host" in text:
        return _invalid_url()
    return JobError(Code.URL_NOT_ALLOWED, "audio_url must lead to a public address")


def _failed(reason: str) -> JobError:
    return JobError(Code.DOWNLOAD_FAILED, f"Failed to download audio: {reason}")


def _invalid_url() -> JobError:
    return JobError(Code.INVALID_URL, "audio_url is not a valid URL")


def _too_large(max_bytes: int) -> JobError:
    return JobError(Code.AUDIO_TOO_LARGE, f"the audio file is larger than the {max_bytes / 1e6:g} MB that are allowed")


def _too_slow(timeout_s: float) -> JobError:
    return JobError(
        Code.DOWNLOAD_TIMEOUT,
        f"Failed to download audio: the server stalled or took longer than the {timeout_s:g} seconds that are allowed",
    )
