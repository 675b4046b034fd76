"""MP3 files as they are found: tagged, joined, padded, and with headers that lie. All that is in them is heard.

What each of them holds is known: tones, of which each must be found with its length. FFmpeg's own
program hears the same, but for what follows junk that looks like a frame.
"""

import random
import time
from itertools import permutations
from typing import Any

import numpy as np
import pytest

from audio_files import contain, decode, tone
from mp3_files import JUNK, PARTS, SECONDS, TAGS, ape, id3, part, with_numbers, with_vbri
from parakeet_worker.audio.formats.mpeg import Stream, adts_frame, measure, mp3_frame
from parakeet_worker.errors import Code, JobError


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


@pytest.mark.parametrize("has_header", [True, False])
@pytest.mark.parametrize("name", ["low", "slow", "variable"])
@pytest.mark.parametrize("tag", TAGS)
def test_what_is_behind_a_recording_does_not_matter(tag: Any, name: Any, has_header: Any) -> None:
    check(part(name, has_header=has_header) + TAGS[tag], name)


@pytest.mark.parametrize("has_header", [True, False])
@pytest.mark.parametrize("tag", [tag for tag in TAGS if tag.startswith(("ID3v2", "APEv2"))])
def test_what_is_before_a_recording_does_not_matter(tag: Any, has_header: Any) -> None:
    if tag != "APEv2 without a header":  # which nobody finds there
        check(TAGS[tag] + part("high", has_header=has_header), "high")


@pytest.mark.parametrize("has_header", [True, False])
@pytest.mark.parametrize("tag", TAGS)
def test_what_is_between_two_recordings_does_not_matter(tag: Any, has_header: Any) -> None:
    first, second = (part(name, has_header=has_header) for name in ("low", "high"))
    check(first + TAGS[tag] + second, "low", "high")


@pytest.mark.parametrize("has_header", [True, False])
@pytest.mark.parametrize("names", list(permutations(PARTS, 2)), ids="-".join)
def test_parts_of_any_form_are_joined(names: Any, has_header: Any) -> None:
    check(b"".join(part(name, has_header=has_header) for name in names), *names)


@pytest.mark.parametrize("seed", range(20))
def test_parts_and_tags_in_any_order(seed: Any) -> None:
    draw = random.Random(seed)
    names = draw.sample(list(PARTS), draw.randint(2, 4))
    data = draw.choice([b"", id3(30_000), ape(3_000)])
    for name in names:
        data += part(name, has_header=draw.random() < 0.5) + TAGS[draw.choice(list(TAGS))]
    check(data, *names)


@pytest.mark.parametrize("frames", [0, 1, 10, 30, 60, 1_000, 100_000, 0xFFFFFFFF])
@pytest.mark.parametrize("size", [None, 0, 500, 1 << 30])
def test_a_header_that_lies_about_whole_frames_is_not_believed(frames: Any, size: Any) -> None:
    for name in ("low", "variable"):
        check(with_numbers(part(name), frames, size), name)


@pytest.mark.parametrize("frames", [0, 1, 39, 100, 100_000])
@pytest.mark.parametrize("size", [0, 500, 1 << 30])
def test_a_vbri_header_that_lies_is_not_believed(frames: Any, size: Any) -> None:
    check(with_vbri(part("low"), frames, size), "low")


def test_a_header_that_lies_in_front_of_joined_parts() -> None:
    check(with_numbers(part("low"), 10) + with_numbers(part("high"), 9_999) + part("mono"), "low", "high", "mono")


@pytest.mark.parametrize("name", PARTS)
@pytest.mark.parametrize("tag", ["nothing", "ID3v2 with a cover"])
def test_a_stream_that_ends_within_a_frame_and_lacks_half_of_them_is_truncated(name: Any, tag: Any) -> None:
    data = part(name)
    for share in (0.2, 0.31, 0.45):
        with pytest.raises(JobError, match="truncated: the file ends before its declared length") as raised:
            decode(TAGS[tag] + data[: int(len(data) * share) | 1])
        assert raised.value.code is Code.CORRUPT_AUDIO


def test_a_truncated_stream_with_a_vbri_header() -> None:
    data = with_vbri(part("high"), 39, 0)
    with pytest.raises(JobError, match="truncated"):
        decode(data[: len(data) * 2 // 5])


def test_most_of_a_stream_is_taken() -> None:
    data = part("high")
    assert decode(data[: len(data) * 9 // 10]).duration == pytest.approx(0.9, abs=0.1)


def test_what_the_encoder_has_added_is_left_out() -> None:
    audio = decode(part("low"))
    assert audio.duration == audio.declared == 1
    expected = tone(SECONDS, pitch=500)
    assert np.corrcoef(audio.samples, expected)[0, 1] > 0.999  # at its place


def test_a_stream_is_measured() -> None:
    data = part("low", has_header=False)
    whole = Stream(pytest.approx(1.045, abs=0.001), 0, None, is_truncated=False)  # type: ignore[arg-type]
    assert measure(data, 0, mp3_frame) == whole
    assert measure(JUNK + data + JUNK, 0, mp3_frame) == whole
    assert measure(part("low"), 0, mp3_frame) == Stream(pytest.approx(1, abs=1e-9), 2_257, 44_100, is_truncated=False)  # type: ignore[arg-type]
    assert measure(b"", 0, mp3_frame) is None
    assert measure(bytes(1_000), 0, mp3_frame) is None
    aac = contain(tone(2.0), "adts", "aac", 16_000, "mono")
    assert measure(aac, 0, adts_frame) == Stream(pytest.approx(2.05, abs=0.1), 0, None, is_truncated=False)  # type: ignore[arg-type]


@pytest.mark.parametrize("data", [b"\xff" * 10_000_000, b"\xff\xfb\x90" * 5_000_000, b"\xff\xf1\x50\x80" * 2_000_000])
def test_what_only_looks_like_frames_is_not_searched_for_long(data: Any) -> None:
    for read in (mp3_frame, adts_frame):
        started = time.monotonic()
        measure(data, 0, read)
        assert time.monotonic() - started < 3
