"""What a file is, by its first bytes alone. Neither a name nor a declared type is asked."""

from dataclasses import dataclass
from typing import BinaryIO

from parakeet_worker.audio.mpeg import HEADER_BYTES, adts_frame, mp3_frame

# Sound tracks of these kinds are for a container's demuxer; its name is FFmpeg's. Playlists are not among them, so that
# no file can name another one to be opened.
_EBML, _ASF, _MPEG = b"\x1a\x45\xdf\xa3", bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c"), b"\x00\x00\x01\xba"
_MP4_BOXES = (b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"styp", b"pnot", b"uuid")
_TS_PACKET = 188

# Where a CAF file names its codec: behind its own header, and in its first chunk, behind the sample rate.
_CAF_CODEC = slice(28, 32)

# Files have one tag or two. A file of nothing else would keep a thread busy for a minute.
_MOST_TAGS = 100

# Headers of tags.
_ID3_BYTES, _APE_BYTES = 10, 32

# A frame of MP3 or AAC has 2,900 bytes at most, and a part of another before it.
_HEAD_BYTES = 8_192


LIBSNDFILE = "libsndfile"
"""In the place of a demuxer's name: libsndfile reads it, in a process of its own."""


@dataclass(frozen=True)
class Kind:
    """What a file is.

    Attributes:
        name: What callers know it as.
        is_sound_file: Whether libsndfile is asked first.
        demuxer: FFmpeg's demuxer for it, where libsndfile is not asked or cannot read it; None where there is none.
        is_exact: Whether its header says exactly how long it is, so that a shorter one is truncated.
    """

    name: str
    is_sound_file: bool
    demuxer: str | None
    is_exact: bool = False


_WAV, _FLAC = Kind("WAV", True, None, True), Kind("FLAC", True, None, True)
_AIFF, _CAF = Kind("AIFF", True, None, True), Kind("CAF", True, "caf", True)
# libsndfile's decoder of Apple Lossless writes to the log of its process. FFmpeg reads less of what that has encoded.
_CAF_ALAC = Kind("CAF", False, LIBSNDFILE, True)
# libsndfile stops where it guesses the end of an MP3 file, and mpg123 in it writes to the worker's log.
_MP3, _OGG, _AAC = Kind("MP3", False, "mp3"), Kind("OGG", True, "ogg"), Kind("AAC", False, "aac")
_MP4, _WEBM = Kind("MP4", False, "mov"), Kind("WebM", False, "matroska")
_AMR, _WMA, _AVI = Kind("AMR", False, "amr"), Kind("WMA", False, "asf"), Kind("AVI", False, "avi")
_TS, _PS = Kind("MPEG-TS", False, "mpegts"), Kind("MPEG", False, "mpeg")

SUPPORTED_FORMATS = ("WAV", "FLAC", "MP3", "OGG", "Opus", "M4A", "MP4", "WebM", "AAC", "AIFF", "CAF", "AMR", "WMA")
"""What is taken, as callers know it. Other containers of the same codecs are, too."""


def sniff(file: BinaryIO) -> Kind | None:
    """Tell what a file is, or None where it is nothing that is known. Leaves the file anywhere."""
    start = past_tags(file)
    kind = _kind(file.read(_HEAD_BYTES))
    return _MP3 if kind is None and start else kind  # a tag with room or junk behind it


def has_tag(file: BinaryIO) -> bool:
    """Say whether a file begins with a tag. Leaves the file behind it."""
    return past_tags(file) > 0


def past_tags(file: BinaryIO) -> int:
    """Move behind the tags at the start, and return the position.

    ID3v2 has its size in four bytes of seven bits each; that of APEv2 does not count its header.
    """
    position = 0
    for _ in range(_MOST_TAGS):
        file.seek(position)
        tag = file.read(_APE_BYTES)
        if tag[:3] == b"ID3" and len(tag) >= _ID3_BYTES:
            position += _ID3_BYTES + (tag[6] << 21 | tag[7] << 14 | tag[8] << 7 | tag[9])
        elif tag[:8] == b"APETAGEX" and len(tag) == _APE_BYTES:
            position += _APE_BYTES + int.from_bytes(tag[12:16], "little")
        else:
            break
    return file.seek(position)


def _kind(head: bytes) -> Kind | None:
    if head[:4] in (b"RIFF", b"RIFX", b"RF64"):
        return {b"WAVE": _WAV, b"": _WAV, b"AVI ": _AVI}.get(head[8:12])
    if head[:4] == b"FORM":
        return _AIFF if head[8:12] in (b"AIFF", b"AIFC") else None
    if head.startswith(b"caff") and head[_CAF_CODEC] == b"alac":
        return _CAF_ALAC
    for magic, kind in ((b"fLaC", _FLAC), (b"OggS", _OGG), (b"caff", _CAF), (b"#!AMR", _AMR), (b"riff", _WAV)):
        if head.startswith(magic):
            return kind
    if head[4:8] in _MP4_BOXES:
        return _MP4
    for magic, kind in ((_EBML, _WEBM), (_ASF, _WMA), (_MPEG, _PS), (b"ADIF", _AAC)):
        if head.startswith(magic):
            return kind
    if len(head) > _TS_PACKET and head[0] == head[_TS_PACKET] == 0x47:
        return _TS
    return _mpeg_audio(head)


def _mpeg_audio(head: bytes) -> Kind | None:
    """Tell MP3 and AAC by a frame that another one follows. What was recorded off a stream begins within one."""
    for position in range(len(head) - HEADER_BYTES + 1):
        if head[position] == 0xFF and head[position + 1] & 0xE0 == 0xE0:
            for kind, read in ((_AAC, adts_frame), (_MP3, mp3_frame)):
                frame = read(head[position : position + HEADER_BYTES])
                if frame:
                    after = position + frame.length
                    follower = head[after : after + HEADER_BYTES]
                    if read(follower) if len(follower) == HEADER_BYTES else position == 0:
                        return kind
    return None
