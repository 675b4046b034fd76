"""From an `audio_url` to a readable file: a guarded download, or the bytes of a `data:` URL."""

import base64
import io
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import BinaryIO
from urllib.parse import unquote_to_bytes

from parakeet_worker.audio.abort import Abort
from parakeet_worker.audio.download import DownloadLimits, download, too_large
from parakeet_worker.audio.scratch import Scratch
from parakeet_worker.errors import Code, JobError


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
    header, comma, payload = url[5:].partition(",")
    if not comma or not header.lower().replace(" ", "").endswith(";base64"):
        raise JobError(Code.INVALID_URL, "a data: URL must have the form data:audio/wav;base64,<base64 of the file>")
    try:
        text = unquote_to_bytes(payload).translate(None, delete=b"\t\n\f\r ")
        text = text.rstrip(b"=") if len(text) % 4 == 0 else text
        if len(text) > max_bytes // 3 * 4 + 4:
            raise too_large(max_bytes)
        data = base64.b64decode(text + b"=" * (-len(text) % 4), validate=True)
    except ValueError as error:  # characters that are not ASCII among them
        raise JobError(Code.INVALID_URL, "the base64 of the data: URL is not valid") from error
    if len(data) > max_bytes:
        raise too_large(max_bytes)
    return data
