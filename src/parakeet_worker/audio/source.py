"""From an `audio_url` to a readable file: a guarded download, or the bytes of a `data:` URL."""

import base64
import io
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO
from urllib.parse import unquote_to_bytes

from parakeet_worker.audio.abort import Abort
from parakeet_worker.audio.download import DownloadLimits, download, too_large
from parakeet_worker.errors import Code, JobError


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
        try:
            download(url, limits, abort, file)
            file.seek(0)
            yield file
        finally:
            if limits.disk:
                limits.disk.take(-file.seek(0, io.SEEK_END))


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
