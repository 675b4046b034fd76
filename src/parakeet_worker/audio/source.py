"""From an `audio_url` to a readable file: a guarded download, or the bytes of a `data:` URL."""

import base64
import io
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import BinaryIO

import numpy as np

from parakeet_worker.audio.abort import Abort
from parakeet_worker.audio.download import DownloadLimits, download, too_large
from parakeet_worker.audio.scratch import Scratch
from parakeet_worker.errors import Code, JobError

# Four characters of base64 stand for three bytes, an escape has three for one, and line breaks add some.
_MOST_PER_BYTE, _FREE_CHARACTERS = 5, 10_000

_BLOCK_BYTES = 1 << 18

# What the ASCII characters are worth as hexadecimal digits.
_NO_DIGIT = 255
_DIGITS = np.full(256, _NO_DIGIT, np.uint8)
for _value, _digit in enumerate("0123456789abcdef"):
    _DIGITS[[ord(_digit), ord(_digit.upper())]] = _value


@contextmanager
def open_audio(url: str, limits: DownloadLimits, abort: Abort) -> Iterator[BinaryIO]:
    """Open what `url` leads to, positioned at its first byte.

    A download goes to a temporary file, of which nothing is left however the job or the process ends.

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
    with closing(Scratch(abort, limits.disk)) as scratch:
        download(url, limits, abort, scratch)
        yield scratch.open()


def _data_url_bytes(url: str, max_bytes: int) -> bytes:
    """Decode a base64 `data:` URL (RFC 2397), as forgivingly as browsers do: spaces and missing padding are fine."""
    comma = url.find(",")
    if comma < 0 or not url[5:comma].lower().replace(" ", "").endswith(";base64"):
        raise JobError(Code.INVALID_URL, "a data: URL must have the form data:audio/wav;base64,<base64 of the file>")
    if len(url) - comma > max_bytes * _MOST_PER_BYTE + _FREE_CHARACTERS:
        raise too_large(max_bytes)
    try:
        text = url[comma + 1 :].encode("ascii")
        if b"%" in text:
            text = b"".join(map(_unescape, _blocks(text)))
        text = text.translate(None, delete=b"\t\n\f\r ")
        text = text.rstrip(b"=") if len(text) % 4 == 0 else text
        if len(text) > max_bytes // 3 * 4 + 4:
            raise too_large(max_bytes)
        data = base64.b64decode(text + b"=" * (-len(text) % 4), validate=True)
    except ValueError as error:  # characters that are not ASCII among them
        raise JobError(Code.INVALID_URL, "the base64 of the data: URL is not valid") from error
    if len(data) > max_bytes:
        raise too_large(max_bytes)
    return data


def _blocks(text: bytes) -> Iterator[bytes]:
    """Cut a text into blocks, but not within an escape: what is computed of one is many times its size."""
    begin = 0
    while begin < len(text):
        end = begin + _BLOCK_BYTES
        torn = text.rfind(b"%", end - 2, end)
        end = torn if torn > begin else end
        yield text[begin:end]
        begin = end


def _unescape(text: bytes) -> bytes:
    """Decode the percent escapes of a text (RFC 3986, 2.1).

    Raises:
        ValueError: One of them is malformed.
    """
    given = np.frombuffer(text, np.uint8)
    escapes = np.flatnonzero(given == ord("%"))
    if len(escapes) == 0:
        return text
    if escapes[-1] + 2 >= len(given):
        raise ValueError("an escape without its digits")
    high, low = _DIGITS[given[escapes + 1]], _DIGITS[given[escapes + 2]]
    if max(high.max(), low.max()) == _NO_DIGIT:
        raise ValueError("an escape without its digits")
    decoded = given.copy()
    decoded[escapes] = high << 4 | low
    is_kept = np.ones(len(given), np.bool_)
    is_kept[escapes + 1] = is_kept[escapes + 2] = False
    return decoded[is_kept].tobytes()
