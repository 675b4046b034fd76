"""Opening the audio of a request as a file: a guarded download, or decoded base64."""

import base64
import io
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import BinaryIO

import numpy as np

from parakeet_worker.audio.fetch.download import DownloadLimits, download, too_large
from parakeet_worker.audio.fetch.scratch import ScratchFile
from parakeet_worker.cancellation import CancellationToken
from parakeet_worker.errors import Code, JobError

# Longest base64: it has 4 characters for 3 bytes, percent escapes have 3 for 1, and line breaks add some.
_MAX_PER_BYTE, _FREE_CHARACTERS = 5, 10_000

BLOCK_BYTES = 1 << 18

# Values of hexadecimal digits, by ASCII code.
_NO_DIGIT = 255
_DIGITS = np.full(256, _NO_DIGIT, np.uint8)
for _value, _digit in enumerate("0123456789abcdef"):
    _DIGITS[[ord(_digit), ord(_digit.upper())]] = _value


@contextmanager
def open_audio(url: str, limits: DownloadLimits, cancellation: CancellationToken) -> Iterator[BinaryIO]:
    """Fetch the file of a URL and open it, positioned at its first byte.

    A download is written to a temporary file without a name. The system removes it even if the process is killed.

    Args:
        url: An `http:`, `https:` or `data:` URL.
        limits: Limits of the download.
        cancellation: Stops the download when the job is cancelled.

    Raises:
        JobCancelledError: The job was cancelled.
        JobError: The URL is malformed or not allowed, or the download failed.
    """
    if url[:5].lower() == "data:":
        with io.BytesIO(_data_url_bytes(url, limits.max_bytes)) as memory:
            yield memory
        return
    with closing(ScratchFile(cancellation, limits.disk)) as scratch:
        download(url, limits, cancellation, scratch)
        yield scratch.open()


def open_base64(audio_base64: str, limits: DownloadLimits) -> BinaryIO:
    """Decode an audio file in standard base64 and open it.

    A `data:` URL is taken, too: some clients make one of every file.

    Args:
        audio_base64: The base64, or a `data:` URL of it.
        limits: Limits of the file's size.

    Raises:
        JobError: It is not base64, or too long.
    """
    if audio_base64[:5].lower() == "data:":
        return io.BytesIO(_data_url_bytes(audio_base64, limits.max_bytes, Code.INVALID_AUDIO_BASE64))
    try:
        return io.BytesIO(_decoded(audio_base64, limits.max_bytes))
    except ValueError as error:
        reason = "audio_base64 is not valid base64: send the audio file in standard base64"
        raise JobError(Code.INVALID_AUDIO_BASE64, reason) from error


def _data_url_bytes(url: str, max_bytes: int, code: Code = Code.INVALID_URL) -> bytes:
    """Decode a base64 `data:` URL (RFC 2397).

    Raises:
        JobError: The URL is malformed, with the given code, or too long.
    """
    comma = url.find(",")
    if comma < 0 or not url[5:comma].lower().replace(" ", "").endswith(";base64"):
        raise JobError(code, "a data: URL must have the form data:audio/wav;base64,<base64 of the file>")
    try:
        return _decoded(url[comma + 1 :], max_bytes, may_be_escaped=True)
    except ValueError as error:
        raise JobError(code, "the base64 of the data: URL is not valid") from error


def _decoded(base64_text: str, max_bytes: int, *, may_be_escaped: bool = False) -> bytes:
    """Decode base64. Spaces, line breaks and missing padding are accepted, as in `data:` URLs by browsers.

    Args:
        base64_text: The base64.
        max_bytes: Most bytes that it may be decoded to.
        may_be_escaped: Whether it may have percent escapes.

    Raises:
        JobError: It is too long.
        ValueError: It is not base64, which may be a character that is not ASCII.
    """
    if len(base64_text) > max_bytes * _MAX_PER_BYTE + _FREE_CHARACTERS:
        raise too_large(max_bytes)
    text = base64_text.encode("ascii")
    if may_be_escaped and b"%" in text:
        text = b"".join(map(_unescape, _blocks(text)))
    text = text.translate(None, delete=b"\t\n\f\r ")
    text = text.rstrip(b"=") if len(text) % 4 == 0 else text
    if len(text) > max_bytes // 3 * 4 + 4:
        raise too_large(max_bytes)
    data = base64.b64decode(text + b"=" * (-len(text) % 4), validate=True)
    if len(data) > max_bytes:
        raise too_large(max_bytes)
    return data


def _blocks(text: bytes) -> Iterator[bytes]:
    """Yield a text in blocks that do not split an escape. `_unescape` needs many times the memory of its argument."""
    begin = 0
    while begin < len(text):
        end = begin + BLOCK_BYTES
        split = text.rfind(b"%", end - 2, end)
        end = split if split > begin else end
        yield text[begin:end]
        begin = end


def _unescape(text: bytes) -> bytes:
    """Decode the percent escapes of a text (RFC 3986, 2.1).

    Raises:
        ValueError: One of them is malformed.
    """
    characters = np.frombuffer(text, np.uint8)
    escapes = np.flatnonzero(characters == ord("%"))
    if len(escapes) == 0:
        return text
    if escapes[-1] + 2 >= len(characters):
        raise ValueError("an escape without its digits")
    high, low = _DIGITS[characters[escapes + 1]], _DIGITS[characters[escapes + 2]]
    if max(high.max(), low.max()) == _NO_DIGIT:
        raise ValueError("an escape without its digits")
    decoded = characters.copy()
    decoded[escapes] = high << 4 | low
    is_kept = np.ones(len(characters), np.bool_)
    is_kept[escapes + 1] = is_kept[escapes + 2] = False
    return decoded[is_kept].tobytes()
