"""Whether a file is several recordings joined end to end, of which libsndfile reads the first and says nothing.

Joining Ogg files byte by byte is common and allowed: players go on with the next one.
"""

from typing import BinaryIO

from parakeet_worker.audio.abort import Abort
from parakeet_worker.audio.sniff import Kind

# Ogg (RFC 3533): a page's header of 27 bytes, with its flags and number of segments, and their sizes.
_OGG_HEADER, _OGG_FLAGS, _OGG_SEGMENTS = 27, 5, 26
_OGG_FIRST_PAGE = 0x02


def is_chained(file: BinaryIO, kind: Kind, abort: Abort) -> bool:
    """Say whether there is another recording behind the first. Leaves the file anywhere.

    Raises:
        Aborted: The job is gone.
    """
    return kind.name == "OGG" and _is_chained_ogg(file, abort)


def _is_chained_ogg(file: BinaryIO, abort: Abort) -> bool:
    """Look for the first page of a stream behind pages that are none."""
    position, is_past_start = 0, False
    while True:
        abort.check()
        file.seek(position)
        header = file.read(_OGG_HEADER)
        if len(header) < _OGG_HEADER or header[:4] != b"OggS":
            return False
        is_first = bool(header[_OGG_FLAGS] & _OGG_FIRST_PAGE)
        if is_first and is_past_start:
            return True
        is_past_start = is_past_start or not is_first
        sizes = file.read(header[_OGG_SEGMENTS])
        position += _OGG_HEADER + len(sizes) + sum(sizes)
