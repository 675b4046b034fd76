"""MP3 files as they are found: tagged, joined, padded, and with headers that lie. All that is in them is heard.

What each of them holds is known: tones, of which each must be found with its length. FFmpeg's own
program hears the same, but for what follows junk that looks like a frame.
"""

import random
import struct
import time
from functools import cache
from itertools import permutations

import numpy as np
import pytest

from audio_files import contain, decode, tone
from parakeet_worker.audio.mpeg import Stream, adts_frame, measure, mp3_frame
from parakeet_worker.errors import Code, JobError

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
    return contain(samples, "mp3", "libmp3lame", **form, write_xing=int(has_header), id3v2_version=0)


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


def heard(samples: np.ndarray) -> list[tuple[int, float]]:
    """The tones of a recording, and how many seconds each of them lasts."""
    step = 800
    found: list[list[int]] = []
    for start in range(0, len(samples) - step + 1, step):
        piece = samples[start : start + step]
        spectrum = np.abs(np.fft.rfft(piece * np.hanning(step)))
        pitch = int(spectrum.argmax()) * 16_000 // step
        if np.sqrt(np.square(piece).mean()) < 0.03:
            continue  # an encoder's delay
        if found and abs(found[-1][0] - pitch) < 100:
            found[-1][1] += 1
        else:
            found.append([pitch, 1])
    return [(round(pitch, -2), count * step / 16_000) for pitch, count in found if count > 1]


def check(data: bytes, *names: str) -> None:
    audio = decode(data)
    tones = heard(audio.samples)
    assert [pitch for pitch, _ in tones] == [PARTS[name][0] for name in names]
    assert [seconds for _, seconds in tones] == pytest.approx([SECONDS] * len(names), abs=0.16)
    assert audio.duration == pytest.approx(SECONDS * len(names), abs=0.1 * len(names))
    assert audio.declared == pytest.approx(audio.duration, abs=0.1 * len(names))


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


@pytest.mark.parametrize("has_header", [True, False])
@pytest.mark.parametrize("name", ["low", "slow", "variable"])
@pytest.mark.parametrize("tag", TAGS)
def test_what_is_behind_a_recording_does_not_matter(tag, name, has_header):
    check(part(name, has_header=has_header) + TAGS[tag], name)


@pytest.mark.parametrize("has_header", [True, False])
@pytest.mark.parametrize("tag", [tag for tag in TAGS if tag.startswith(("ID3v2", "APEv2"))])
def test_what_is_before_a_recording_does_not_matter(tag, has_header):
    if tag != "APEv2 without a header":  # which nobody finds there
        check(TAGS[tag] + part("high", has_header=has_header), "high")


@pytest.mark.parametrize("has_header", [True, False])
@pytest.mark.parametrize("tag", TAGS)
def test_what_is_between_two_recordings_does_not_matter(tag, has_header):
    first, second = (part(name, has_header=has_header) for name in ("low", "high"))
    check(first + TAGS[tag] + second, "low", "high")


@pytest.mark.parametrize("has_header", [True, False])
@pytest.mark.parametrize("names", list(permutations(PARTS, 2)), ids="-".join)
def test_parts_of_any_form_are_joined(names, has_header):
    check(b"".join(part(name, has_header=has_header) for name in names), *names)


@pytest.mark.parametrize("seed", range(20))
def test_parts_and_tags_in_any_order(seed):
    draw = random.Random(seed)
    names = draw.sample(list(PARTS), draw.randint(2, 4))
    data = draw.choice([b"", id3(30_000), ape(3_000)])
    for name in names:
        data += part(name, has_header=draw.random() < 0.5) + TAGS[draw.choice(list(TAGS))]
    check(data, *names)


@pytest.mark.parametrize("frames", [0, 1, 10, 30, 60, 1_000, 100_000, 0xFFFFFFFF])
@pytest.mark.parametrize("size", [None, 0, 500, 1 << 30])
def test_a_header_that_lies_about_whole_frames_is_not_believed(frames, size):
    for name in ("low", "variable"):
        check(with_numbers(part(name), frames, size), name)


@pytest.mark.parametrize("frames", [0, 1, 39, 100, 100_000])
@pytest.mark.parametrize("size", [0, 500, 1 << 30])
def test_a_vbri_header_that_lies_is_not_believed(frames, size):
    check(with_vbri(part("low"), frames, size), "low")


def test_a_header_that_lies_in_front_of_joined_parts():
    check(with_numbers(part("low"), 10) + with_numbers(part("high"), 9_999) + part("mono"), "low", "high", "mono")


@pytest.mark.parametrize("name", PARTS)
@pytest.mark.parametrize("tag", ["nothing", "ID3v2 with a cover"])
def test_a_stream_that_ends_within_a_frame_and_lacks_half_of_them_is_truncated(name, tag):
    data = part(name)
    for share in (0.2, 0.31, 0.45):
        with pytest.raises(JobError, match="truncated: the file ends before its declared length") as raised:
            decode(TAGS[tag] + data[: int(len(data) * share) | 1])
        assert raised.value.code is Code.CORRUPT_AUDIO


def test_a_truncated_stream_with_a_vbri_header():
    data = with_vbri(part("high"), 39, 0)
    with pytest.raises(JobError, match="truncated"):
        decode(data[: len(data) * 2 // 5])


def test_most_of_a_stream_is_taken():
    data = part("high")
    assert decode(data[: len(data) * 9 // 10]).duration == pytest.approx(0.9, abs=0.1)


def test_what_the_encoder_has_added_is_left_out():
    audio = decode(part("low"))
    assert audio.duration == audio.declared == 1
    expected = tone(SECONDS, pitch=500)
    assert np.corrcoef(audio.samples, expected)[0, 1] > 0.999  # at its place


def test_a_stream_is_measured():
    data = part("low", has_header=False)
    whole = Stream(pytest.approx(1.045, abs=0.001), 0, None, is_truncated=False)
    assert measure(data, 0, mp3_frame) == whole
    assert measure(JUNK + data + JUNK, 0, mp3_frame) == whole
    assert measure(part("low"), 0, mp3_frame) == Stream(pytest.approx(1, abs=1e-9), 2_257, 44_100, is_truncated=False)
    assert measure(b"", 0, mp3_frame) is None
    assert measure(bytes(1_000), 0, mp3_frame) is None
    aac = contain(tone(2.0), "adts", "aac", 16_000, "mono")
    assert measure(aac, 0, adts_frame) == Stream(pytest.approx(2.05, abs=0.1), 0, None, is_truncated=False)


@pytest.mark.parametrize("data", [b"\xff" * 10_000_000, b"\xff\xfb\x90" * 5_000_000, b"\xff\xf1\x50\x80" * 2_000_000])
def test_what_only_looks_like_frames_is_not_searched_for_long(data):
    for read in (mp3_frame, adts_frame):
        started = time.monotonic()
        measure(data, 0, read)
        assert time.monotonic() - started < 3
