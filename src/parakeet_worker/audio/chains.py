"""Whether a file is several recordings joined end to end, of which libsndfile reads the first and says nothing.

Joining MP3 or Ogg files byte by byte is common and allowed: players go on with the next one.
"""

from typing import BinaryIO

from parakeet_worker.audio.abort import Abort
from parakeet_worker.audio.sniff import Kind, past_id3

# What a file may have behind its sound: tags, and what is left of a frame.
_LEAST_REST, _LEAST_PART = 1_024, 0.01

# Ogg (RFC 3533): a page's header of 27 bytes, with its flags and number of segments, and their sizes.
_OGG_HEADER, _OGG_FLAGS, _OGG_SEGMENTS = 27, 5, 26
_OGG_FIRST_PAGE = 0x02


def is_chained(file: BinaryIO, kind: Kind, abort: Abort) -> bool:
    """Say whether there is another recording behind the first. Leaves the file anywhere.

    Raises:
        Aborted: The job is gone.
    """
    if kind.name == "MP3":
        return _is_chained_mp3(file)
    return kind.name == "OGG" and _is_chained_ogg(file, abort)


def _is_chained_mp3(file: BinaryIO) -> bool:
    """Compare the file with the size that its first frame declares, where that is a Xing, Info or VBRI header."""
    start = past_id3(file)
    head = file.read(256) + bytes(16)  # the file may end within the header
    size = file.seek(0, 2) - start
    declared = 0
    for name in (b"Xing", b"Info"):
        place = head.find(name)
        if place >= 0 and head[place + 7] & 2:  # it has the number of bytes, behind that of frames if there is one
            place += 12 if head[place + 7] & 1 else 8
            declared = int.from_bytes(head[place : place + 4], "big")
    if (place := head.find(b"VBRI")) >= 0:
        declared = int.from_bytes(head[place + 10 : place + 14], "big")
    return declared > 0 and size - declared > max(_LEAST_REST, _LEAST_PART * size)


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
