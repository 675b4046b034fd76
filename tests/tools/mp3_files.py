"""MP3 files as they are found: with tags, and with headers that lie."""

import random
import struct
from functools import cache

from audio_files import contain, tone
from parakeet_worker.audio.formats.mpeg import mp3_frame

PARTS = {  # pitch in hertz, and the form of the part
    "low": (500, {"rate": 44_100, "layout": "stereo", "kbps": 48}),
    "high": (1_000, {"rate": 44_100, "layout": "stereo", "kbps": 192}),
    "mono": (1_500, {"rate": 44_100, "layout": "mono", "kbps": 64}),
    "slow": (2_000, {"rate": 22_050, "layout": "mono", "kbps": 32}),
    "fast": (2_500, {"rate": 48_000, "layout": "stereo", "kbps": 320}),
    "variable": (3_000, {"rate": 44_100, "layout": "stereo", "quality": 4}),
}
SECONDS = 1.0


@cache
def part(name: str, *, has_header: bool = True) -> bytes:
    pitch, form = PARTS[name]
    samples = tone(SECONDS, pitch=pitch)
    return contain(samples, "mp3", "libmp3lame", **form, write_xing=int(has_header), id3v2_version=0)  # type: ignore[arg-type]


def id3(size: int) -> bytes:
    length = bytes(size >> shift & 0x7F for shift in (21, 14, 7, 0))
    return b"ID3\x04\x00\x00" + length + picture(size)


def ape(size: int, *, has_header: bool = True) -> bytes:
    """An APEv2 tag with a cover."""
    item = struct.pack("<II", size, 2) + b"Cover Art (Front)\x00" + picture(size)
    numbers = struct.pack("<III", 2_000, len(item) + 32, 1)
    header = b"APETAGEX" + numbers + struct.pack("<I", 0xA0000000) + bytes(8)
    footer = b"APETAGEX" + numbers + struct.pack("<I", 0x80000000 if has_header else 0) + bytes(8)
    return header * has_header + item + footer


def picture(size: int) -> bytes:
    """What a JPEG file may look like: it has bytes of 0xFF, which are followed by zero where they are no marker."""
    content = random.Random(size).randbytes(size).replace(b"\xff", b"\xff\x00")
    return (b"\xff\xd8\xff\xe0" + content)[:size]


ID3V1 = b"TAG" + b"title".ljust(125, b"\0")
JUNK = random.Random(0).randbytes(20_000)


def with_numbers(data: bytes, frames: int | None, size: int | None = None) -> bytes:
    """Write other numbers into the Xing or Info header."""
    place = max(data.find(b"Xing", 0, 200), data.find(b"Info", 0, 200))
    assert place > 0
    changed = bytearray(data)
    if frames is not None:
        changed[place + 8 : place + 12] = struct.pack(">I", frames)
    if size is not None:
        changed[place + 12 : place + 16] = struct.pack(">I", size)
    return bytes(changed)


def with_vbri(data: bytes, frames: int, size: int) -> bytes:
    """Put a VBRI header in the place of the Xing or Info header."""
    frame = mp3_frame(data[:4])
    assert frame
    vbri = b"VBRI" + struct.pack(">HHHIIHHHH", 1, 0, 75, size, frames, 0, 1, 2, 1)
    return data[:4] + (bytes(32) + vbri).ljust(frame.length - 4, b"\0") + data[frame.length :]


TAGS = {
    "nothing": b"",
    "ID3v2": id3(3_000),
    "ID3v2 with a cover": id3(200_000),
    "ID3v2 twice": id3(1_000) + id3(2_000),
    "ID3v1": ID3V1,
    "APEv2": ape(200),
    "APEv2 of 20 kB": ape(20_000),
    "APEv2 of 200 kB": ape(200_000),
    "APEv2 without a header": ape(20_000, has_header=False),
    "APEv2 and ID3v1": ape(20_000) + ID3V1,
    "zeros": bytes(1_000),
    "many zeros": bytes(200_000),
    "junk": JUNK,
    "0xFF": b"\xff" * 5_000,
}
