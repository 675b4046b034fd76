"""Finding and counting the frames of MP3 and AAC (ADTS) files, for their length and whether they are truncated.

Such a file has no reliable header. The first frame of an MP3 file may contain one (Xing, Info or VBRI), which may be
wrong, or describe only one of several files that were joined. So the frames are counted.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

# The search for frames stops after this many positions that only look like the start of one.
_MAX_FALSE_STARTS = 200_000

# The Xing, Info or VBRI header follows the frame's header (4 bytes) and at most 32 bytes of side information.
_MP3_HEADER_WITHIN = 256

HEADER_BYTES = 7
"""Number of bytes that are needed to parse a frame's header."""


class Bytes(Protocol):
    """A file's bytes, in memory or mapped."""

    def __len__(self) -> int: ...

    def __getitem__(self, key: slice, /) -> bytes: ...

    def find(self, sub: bytes, start: int, /) -> int:  # noqa: D102 - as of bytes
        ...


@dataclass(frozen=True)
class Frame:
    """A frame, as its header declares it.

    Attributes:
        length: Length in bytes, including the header.
        samples: Number of samples of each channel.
        rate: Sample rate in hertz.
    """

    length: int
    samples: int
    rate: int


FrameReader = Callable[[bytes], Frame | None]
"""Parses a frame's header from `HEADER_BYTES` bytes, or returns None if they are no header."""

_MPEG_1, _LAYER_3 = 3, 1
_MP3_KBPS = {
    True: (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 0),
    False: (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160, 0),
}
_MP3_RATES = {3: (44_100, 48_000, 32_000), 2: (22_050, 24_000, 16_000), 0: (11_025, 12_000, 8_000)}

_AAC_RATES = (96_000, 88_200, 64_000, 48_000, 44_100, 32_000, 24_000, 22_050, 16_000, 12_000, 11_025, 8_000, 7_350)


def mp3_frame(header: bytes) -> Frame | None:
    """Parse the header of an MPEG audio layer 3 frame (ISO 11172-3, 2.4). Return None if it is no such header."""
    return _mp3_frame(header[:3]) if len(header) > 3 else None


@lru_cache  # a file has few different headers
def _mp3_frame(header: bytes) -> Frame | None:
    if header[0] != 0xFF or header[1] & 0xE0 != 0xE0:
        return None
    version, layer = header[1] >> 3 & 3, header[1] >> 1 & 3
    kbps, rate_index = _MP3_KBPS[version == _MPEG_1][header[2] >> 4], header[2] >> 2 & 3
    if version not in _MP3_RATES or layer != _LAYER_3 or rate_index == 3 or kbps == 0:
        return None
    samples, rate = 1_152 if version == _MPEG_1 else 576, _MP3_RATES[version][rate_index]
    return Frame(samples // 8 * 1_000 * kbps // rate + (header[2] >> 1 & 1), samples, rate)


def adts_frame(header: bytes) -> Frame | None:
    """Parse the header of an ADTS frame (ISO 13818-7, 6.2). Return None if it is no such header."""
    if len(header) < HEADER_BYTES or header[0] != 0xFF or header[1] & 0xF6 != 0xF0:
        return None
    rate_index, length = header[2] >> 2 & 0x0F, (header[3] & 0x03) << 11 | header[4] << 3 | header[5] >> 5
    if rate_index >= len(_AAC_RATES) or length < HEADER_BYTES:
        return None
    return Frame(length, 1_024 * ((header[6] & 3) + 1), _AAC_RATES[rate_index])


@dataclass(frozen=True)
class Stream:
    """What counting the frames of a file has found.

    Attributes:
        seconds: Length of all complete frames in seconds, without the encoder's delay and padding.
        skip: Number of samples of delay at the start, which are no part of the recording.
        samples: Number of samples of the recording, if padding follows them. Otherwise None.
        is_truncated: Whether the file ends within a frame, and has less than half of the declared frames.
    """

    seconds: float
    skip: int
    samples: int | None
    is_truncated: bool


class Frames:
    """Finds the frames of a file. Tags, padding and junk may be before, between and after them.

    FFmpeg's parser loses frames after junk that looks like a frame of another format. So here the first frame of a run
    counts only if another one, or the end of the file, follows it.

    Args:
        data: The file.
        start: Position of the first byte after the tags at the start.
        read: Parses the headers of frames.

    Attributes:
        is_cut: Whether the file ends within a frame. Valid after the iteration.
        is_searched: Whether the whole file was searched. Valid after the iteration.
    """

    def __init__(self, data: Bytes, start: int, read: FrameReader) -> None:
        self._data = data
        self._start = start
        self._read = read
        self.is_cut = False
        self.is_searched = True

    def __iter__(self) -> Iterator[tuple[int, Frame]]:
        """Yield the position of each frame, and the frame."""
        data, read, position, end = self._data, self._read, self._start, len(self._data)
        last: Frame | None = None  # the frame that ends at `position`
        false_starts = 0
        while 0 <= position < end:
            frame = read(data[position : position + HEADER_BYTES])
            after = position + frame.length if frame else end
            if frame and after <= end and (last or after == end or read(data[after : after + HEADER_BYTES])):
                yield position, frame
                last, position = frame, after
                continue
            if last:
                is_start_of_header = end - position < HEADER_BYTES and data[position : position + 1] == b"\xff"
                self.is_cut = frame.rate == last.rate if frame and after > end else is_start_of_header
                last = None
            false_starts += 1
            if false_starts > _MAX_FALSE_STARTS:
                self.is_searched = False
                return
            position = data.find(b"\xff", position + 1)


def measure(data: Bytes, start: int, read: FrameReader) -> Stream | None:
    """Count the frames of a file; see `Frames`.

    Returns:
        What was found, or None if there is no frame or if the search stopped before the end of the file.
    """
    frames = Frames(data, start, read)
    samples: Counter[int] = Counter()  # by sample rate
    header, count = _Header(), 0
    for position, frame in frames:
        if count == 0 and read is mp3_frame:
            header = _read_header(data[position : position + frame.length])
        count += 1
        samples[frame.rate] += frame.samples
        if count == 1:
            first = frame
    if count == 0 or not frames.is_searched:
        return None
    if header.is_there:
        samples[first.rate] -= first.samples
    padding = header.padding if count - 1 == header.frames else 0  # another file was joined to it if they differ
    added = header.delay + padding
    seconds = max(0.0, sum(number / rate for rate, number in samples.items()) - added / first.rate)
    skip = header.delay + first.samples * header.is_there
    most = samples[first.rate] - added if padding and len(samples) == 1 else None
    return Stream(seconds, skip, most, frames.is_cut and count < header.frames / 2)


@dataclass(frozen=True)
class _Header:
    """The Xing, Info or VBRI header in the first frame of an MP3 file.

    Attributes:
        is_there: Whether the first frame is such a header.
        frames: Declared number of frames, or 0.
        delay: Samples at the start that the encoder and the decoder add.
        padding: Samples at the end that they add.
    """

    is_there: bool = False
    frames: int = 0
    delay: int = 0
    padding: int = 0


# Delay of an MP3 decoder in samples, which the header does not include.
_DECODER_DELAY = 529


def _read_header(frame: bytes) -> _Header:
    head = frame[:_MP3_HEADER_WITHIN]
    if (place := head.find(b"VBRI")) >= 0:
        return _Header(True, int.from_bytes(frame[place + 14 : place + 18], "big"))
    place = max(head.find(b"Xing"), head.find(b"Info"))
    if place < 0 or place + 8 > len(frame):
        return _Header()
    flags = frame[place + 7]
    frames = int.from_bytes(frame[place + 8 : place + 12], "big") if flags & 1 else 0
    # The encoder's name follows four optional fields: numbers of frames and of bytes, seek table, quality.
    place += 8 + 4 * (flags & 1) + 4 * (flags >> 1 & 1) + 100 * (flags >> 2 & 1) + 4 * (flags >> 3 & 1)
    if frame[place : place + 4] not in (b"LAME", b"Lavf", b"Lavc") or len(frame) < place + 24:
        return _Header(True, frames)
    added = int.from_bytes(frame[place + 21 : place + 24], "big")
    delay, padding = added >> 12, added & 0xFFF
    return _Header(True, frames, delay + _DECODER_DELAY, max(0, padding - _DECODER_DELAY))
