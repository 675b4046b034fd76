"""What a file is, by its first bytes alone. Neither a name nor a declared type is asked."""

from dataclasses import dataclass
from typing import BinaryIO

# Sound tracks of these kinds are for a container's demuxer; its name is FFmpeg's. Playlists are not among them, so that
# no file can name another one to be opened.
_EBML, _ASF, _MPEG = b"\x1a\x45\xdf\xa3", bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c"), b"\x00\x00\x01\xba"
_MP4_BOXES = (b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"styp", b"pnot", b"uuid")
_TS_PACKET = 188

# Files have one tag or two. A file of nothing else would keep a thread busy for a minute.
_MOST_TAGS = 100

# The header of an MP3 file stands behind four bytes of its first frame's own and 32 of side information at most.
_MP3_HEADER_WITHIN = 256

# A frame of MP3 or AAC has 2,900 bytes at most, and a part of another before it.
_HEAD_BYTES = 8_192


@dataclass(frozen=True)
class Kind:
    """What a file is.

    Attributes:
        name: What callers know it as.
        is_sound_file: Whether libsndfile is asked first.
        demuxer: FFmpeg's demuxer for it, where libsndfile is not asked or cannot read it; None where there is none.
        is_exact: Whether its header says exactly how long it is, so that a shorter one is truncated.
        is_guessed: Whether it has no header, so that its length is a guess from the bit rate of its first frames.
    """

    name: str
    is_sound_file: bool
    demuxer: str | None
    is_exact: bool = False
    is_guessed: bool = False


_WAV, _FLAC = Kind("WAV", True, None, True), Kind("FLAC", True, None, True)
_AIFF, _CAF = Kind("AIFF", True, None, True), Kind("CAF", True, "caf", True)
_MP3, _OGG = Kind("MP3", True, "mp3"), Kind("OGG", True, "ogg")
# libsndfile stops where it guesses the end.
_BARE_MP3 = Kind("MP3", False, "mp3", is_guessed=True)
_AAC = Kind("AAC", False, "aac", is_guessed=True)
_MP4, _WEBM = Kind("MP4", False, "mov"), Kind("WebM", False, "matroska")
_AMR, _WMA, _AVI = Kind("AMR", False, "amr"), Kind("WMA", False, "asf"), Kind("AVI", False, "avi")
_TS, _PS = Kind("MPEG-TS", False, "mpegts"), Kind("MPEG", False, "mpeg")

SUPPORTED_FORMATS = ("WAV", "FLAC", "MP3", "OGG", "Opus", "M4A", "MP4", "WebM", "AAC", "AIFF", "CAF", "AMR", "WMA")
"""What is taken, as callers know it. Other containers of the same codecs are, too."""


def sniff(file: BinaryIO) -> Kind | None:
    """Tell what a file is, or None where it is nothing that is known. Leaves the file anywhere."""
    start = past_id3(file)
    head = file.read(_HEAD_BYTES)
    kind = _kind(head)
    if kind is None and start:
        return _BARE_MP3  # an ID3 tag with room or junk behind it
    return _BARE_MP3 if kind is _MP3 and not _declares_frames(head) else kind


def has_id3(file: BinaryIO) -> bool:
    """Say whether a file begins with an ID3v2 tag. Leaves the file behind it."""
    return past_id3(file) > 0


def past_id3(file: BinaryIO) -> int:
    """Move behind ID3v2 tags at the start (the size is four bytes of seven bits each), and return the position."""
    position = 0
    for _ in range(_MOST_TAGS):
        file.seek(position)
        tag = file.read(10)
        if tag[:3] != b"ID3" or len(tag) < 10:
            break
        position += 10 + (tag[6] << 21 | tag[7] << 14 | tag[8] << 7 | tag[9])
    return file.seek(position)


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
    """Tell MP3 and AAC by a frame that another one follows. What was recorded off a stream begins within one."""
    for position in range(len(head) - 6):
        if head[position] == 0xFF and head[position + 1] & 0xE0 == 0xE0:
            for kind, length_of in ((_AAC, _adts_length), (_MP3, _mp3_length)):
                length = length_of(head[position : position + 6])
                follower = head[position + length : position + length + 6]
                if length and (length_of(follower) if len(follower) == 6 else position == 0):
                    return kind
    return None


def _adts_length(header: bytes) -> int:
    """Return the length of an ADTS frame in bytes (ISO 13818-7, 6.2), or 0 where this is no header of one."""
    if header[0] != 0xFF or header[1] & 0xF6 != 0xF0 or header[2] >> 2 & 0x0F > 12:
        return 0
    return (header[3] & 0x03) << 11 | header[4] << 3 | header[5] >> 5


def _declares_frames(head: bytes) -> bool:
    """Say whether the first frame of an MP3 file counts the frames, as a Xing or Info header may and a VBRI must."""
    frame = head[:_MP3_HEADER_WITHIN] + bytes(8)  # the file may end within the header
    places = [frame.find(name) for name in (b"Xing", b"Info")]
    return b"VBRI" in frame or any(place >= 0 and frame[place + 7] & 1 for place in places)


_MPEG_1, _LAYER_3 = 3, 1
_MP3_KBPS = {
    True: (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 0),
    False: (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160, 0),
}
_MP3_RATES = {3: (44_100, 48_000, 32_000), 2: (22_050, 24_000, 16_000), 0: (11_025, 12_000, 8_000)}


def _mp3_length(header: bytes) -> int:
    """Return the length of an MPEG audio frame of layer 3 in bytes (ISO 11172-3, 2.4), or 0 where this is none."""
    if header[0] != 0xFF or header[1] & 0xE0 != 0xE0:
        return 0
    version, layer = header[1] >> 3 & 3, header[1] >> 1 & 3
    kbps, rate_index = _MP3_KBPS[version == _MPEG_1][header[2] >> 4], header[2] >> 2 & 3
    if version not in _MP3_RATES or layer != _LAYER_3 or rate_index == 3 or kbps == 0:
        return 0
    samples = 144_000 if version == _MPEG_1 else 72_000
    return samples * kbps // _MP3_RATES[version][rate_index] + (header[2] >> 1 & 1)
