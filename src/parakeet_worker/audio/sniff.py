"""What a file is, by its first bytes alone. Neither a name nor a declared type is asked."""

from dataclasses import dataclass
from typing import BinaryIO

# Sound tracks of these kinds are for a container's demuxer; its name is FFmpeg's. Playlists are not among them, so that
# no file can name another one to be opened.
_EBML, _ASF, _MPEG = b"\x1a\x45\xdf\xa3", bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c"), b"\x00\x00\x01\xba"
_MP4_BOXES = (b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"styp", b"pnot", b"uuid")
_TS_PACKET = 188


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
_MP3, _OGG = Kind("MP3", True, "mp3"), Kind("OGG", True, "ogg")
_MP4, _WEBM, _AAC = Kind("MP4", False, "mov"), Kind("WebM", False, "matroska"), Kind("AAC", False, "aac")
_AMR, _WMA, _AVI = Kind("AMR", False, "amr"), Kind("WMA", False, "asf"), Kind("AVI", False, "avi")
_TS, _PS = Kind("MPEG-TS", False, "mpegts"), Kind("MPEG", False, "mpeg")

SUPPORTED_FORMATS = ("WAV", "FLAC", "MP3", "OGG", "Opus", "M4A", "MP4", "WebM", "AAC", "AIFF", "CAF", "AMR", "WMA")
"""What is taken, as callers know it. Other containers of the same codecs are, too."""


def sniff(file: BinaryIO) -> Kind | None:
    """Tell what a file is, or None where it is nothing that is known. Leaves the file anywhere."""
    start = past_id3(file)
    head = file.read(512)
    kind = _kind(head)
    if kind is None and start:
        return _MP3  # an ID3 tag with room or junk behind it
    return kind


def has_id3(file: BinaryIO) -> bool:
    """Say whether a file begins with an ID3v2 tag. Leaves the file behind it."""
    return past_id3(file) > 0


def past_id3(file: BinaryIO) -> int:
    """Move behind ID3v2 tags at the start (the size is four bytes of seven bits each), and return the position."""
    position = 0
    while True:
        file.seek(position)
        tag = file.read(10)
        if tag[:3] != b"ID3" or len(tag) < 10:
            return file.seek(position)
        position += 10 + (tag[6] << 21 | tag[7] << 14 | tag[8] << 7 | tag[9])


def _kind(head: bytes) -> Kind | None:
    if head[:4] in (b"RIFF", b"RIFX", b"RF64"):
        return {b"WAVE": _WAV, b"": _WAV, b"AVI ": _AVI}.get(head[8:12])
    if head[:4] == b"FORM":
        return _AIFF if head[8:12] in (b"AIFF", b"AIFC") else None
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
    """Tell MP3 and AAC streams by the first frame's header: bits of sync, and a layer, of which AAC has none."""
    for position in range(min(len(head) - 1, 128)):
        if head[position] == 0xFF and head[position + 1] & 0xE0 == 0xE0:
            layer, version = head[position + 1] & 0x06, head[position + 1] & 0x18
            if head[position + 1] & 0xF0 == 0xF0 and layer == 0:
                return _AAC
            if layer != 0 and version != 0x08:
                return _MP3
        elif position == 0 and head[0] != 0:
            return None
    return None
