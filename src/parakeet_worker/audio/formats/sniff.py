"""Detecting the format of a file from its first bytes. Its name and its declared type are not used."""

from dataclasses import dataclass
from typing import BinaryIO

from parakeet_worker.audio.formats.mpeg import HEADER_BYTES, adts_frame, mp3_frame

# Magic numbers of containers that FFmpeg demuxes. Playlists are not supported, so that no file can have another one
# opened.
_EBML, _ASF, _MPEG = b"\x1a\x45\xdf\xa3", bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c"), b"\x00\x00\x01\xba"
_MP4_BOXES = (b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"styp", b"pnot", b"uuid")
_TS_PACKET = 188

# Position of the codec in a CAF file: in the first chunk, after the sample rate.
_CAF_CODEC = slice(28, 32)

# Files have one tag or two. A crafted file of tags only would keep a thread busy for a minute.
_MAX_TAGS = 100

# Lengths of the headers of tags.
_ID3_BYTES, _APE_BYTES = 10, 32

# Enough for a partial frame of MP3 or AAC at the start, a whole one, and the next one's header: a frame has at most
# 2,900 bytes.
_HEAD_BYTES = 8_192


LIBSNDFILE = "libsndfile"
"""Takes the place of a demuxer's name for files that libsndfile reads in a child process."""


@dataclass(frozen=True)
class AudioFormat:
    """The format of a file, and how it is decoded.

    Attributes:
        name: Name in messages to callers.
        is_sound_file: Whether libsndfile is tried first, in this process.
        demuxer: FFmpeg's name of the demuxer, or `LIBSNDFILE`, for a child process. It is used if `is_sound_file` is
            false or if libsndfile cannot read the file. None if there is no other way to read it.
        is_exact: Whether the declared length is exact, so that a shorter file is truncated.
    """

    name: str
    is_sound_file: bool
    demuxer: str | None
    is_exact: bool = False


_WAV, _FLAC = AudioFormat("WAV", True, None, True), AudioFormat("FLAC", True, None, True)
_AIFF, _CAF = AudioFormat("AIFF", True, None, True), AudioFormat("CAF", True, "caf", True)
# libsndfile's decoder of Apple Lossless writes to the process's log, so it runs in a child. FFmpeg cannot decode
# all of what libsndfile's encoder writes.
_CAF_ALAC = AudioFormat("CAF", False, LIBSNDFILE, True)
# libsndfile guesses the end of an MP3 file and stops there, and its mpg123 writes to the worker's log.
_MP3, _OGG, _AAC = AudioFormat("MP3", False, "mp3"), AudioFormat("OGG", True, "ogg"), AudioFormat("AAC", False, "aac")
_MP4, _WEBM = AudioFormat("MP4", False, "mov"), AudioFormat("WebM", False, "matroska")
_AMR, _WMA, _AVI = AudioFormat("AMR", False, "amr"), AudioFormat("WMA", False, "asf"), AudioFormat("AVI", False, "avi")
_TS, _PS = AudioFormat("MPEG-TS", False, "mpegts"), AudioFormat("MPEG", False, "mpeg")

SUPPORTED_FORMATS = ("WAV", "FLAC", "MP3", "OGG", "Opus", "M4A", "MP4", "WebM", "AAC", "AIFF", "CAF", "AMR", "WMA")
"""Names of the supported formats in messages to callers. Other containers with the same codecs work as well."""


def sniff(file: BinaryIO) -> AudioFormat | None:
    """Return the format of a file, or None if it is not supported. The file's position is undefined afterwards."""
    start = past_tags(file)
    audio_format = _format(file.read(_HEAD_BYTES))
    # MP3 files may have padding or junk between a tag and the first frame.
    return _MP3 if audio_format is None and start else audio_format


def has_tag(file: BinaryIO) -> bool:
    """Return whether a file begins with a tag (ID3v2 or APEv2). The file's position is after its tags afterwards."""
    return past_tags(file) > 0


def past_tags(file: BinaryIO) -> int:
    """Seek to the first byte after the tags at the start of a file (ID3v2 and APEv2), and return its position."""
    position = 0
    for _ in range(_MAX_TAGS):
        file.seek(position)
        tag = file.read(_APE_BYTES)
        if tag[:3] == b"ID3" and len(tag) >= _ID3_BYTES:
            # Seven bits of the size are in each of four bytes.
            position += _ID3_BYTES + (tag[6] << 21 | tag[7] << 14 | tag[8] << 7 | tag[9])
        elif tag[:8] == b"APETAGEX" and len(tag) == _APE_BYTES:
            # The size does not include the header.
            position += _APE_BYTES + int.from_bytes(tag[12:16], "little")
        else:
            break
    return file.seek(position)


def _format(head: bytes) -> AudioFormat | None:
    """Return the format of a file that begins with these bytes, or None if it is not supported."""
    if head[:4] in (b"RIFF", b"RIFX", b"RF64"):
        return {b"WAVE": _WAV, b"": _WAV, b"AVI ": _AVI}.get(head[8:12])
    if head[:4] == b"FORM":
        return _AIFF if head[8:12] in (b"AIFF", b"AIFC") else None
    if head.startswith(b"caff") and head[_CAF_CODEC] == b"alac":
        return _CAF_ALAC
    for magic, audio_format in ((b"fLaC", _FLAC), (b"OggS", _OGG), (b"caff", _CAF), (b"#!AMR", _AMR), (b"riff", _WAV)):
        if head.startswith(magic):
            return audio_format
    if head[4:8] in _MP4_BOXES:
        return _MP4
    for magic, audio_format in ((_EBML, _WEBM), (_ASF, _WMA), (_MPEG, _PS), (b"ADIF", _AAC)):
        if head.startswith(magic):
            return audio_format
    if len(head) > _TS_PACKET and head[0] == head[_TS_PACKET] == 0x47:
        return _TS
    return _mpeg_audio(head)


def _mpeg_audio(head: bytes) -> AudioFormat | None:
    """Return MP3 or AAC if two consecutive frames are found, else None.

    A frame at the very start of the file is enough if the next one is beyond these bytes. Recordings of a broadcast may
    start with a partial frame.
    """
    for position in range(len(head) - HEADER_BYTES + 1):
        if head[position] == 0xFF and head[position + 1] & 0xE0 == 0xE0:
            for audio_format, read in ((_AAC, adts_frame), (_MP3, mp3_frame)):
                frame = read(head[position : position + HEADER_BYTES])
                if frame:
                    after = position + frame.length
                    follower = head[after : after + HEADER_BYTES]
                    if read(follower) if len(follower) == HEADER_BYTES else position == 0:
                        return audio_format
    return None
