"""Chained Ogg files: several streams joined end to end, of which libsndfile reads only the first, without an error.

Joining Ogg files byte by byte is common and allowed (RFC 3533). Players play all of the streams.
"""

from typing import BinaryIO

from parakeet_worker.cancellation import CancellationToken

# Ogg (RFC 3533): length of a page's header in bytes, and the offsets of its flags and of its number of segments. The
# sizes of the segments follow the header.
_OGG_HEADER, _OGG_FLAGS, _OGG_SEGMENTS = 27, 5, 26
_OGG_FIRST_PAGE = 0x02


def is_chained(file: BinaryIO, cancellation: CancellationToken) -> bool:
    """Return whether an Ogg file has another stream after its first one. The file's position is undefined afterwards.

    Raises:
        JobCancelledError: The job was cancelled.
    """
    position, is_past_start = 0, False
    while True:
        cancellation.check()
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
