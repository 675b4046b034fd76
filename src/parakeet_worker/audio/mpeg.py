"""Streams of MP3 and AAC frames: how long they are, and whether they are all there.

Such a file has no header that can be relied on. MP3 files may have one in their first frame (Xing, Info or VBRI), which
says what one of several parts that were joined had, or nothing true. So the frames are counted.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

# What is no frame is searched for the next one; after so many places that only look like one, no more.
_MOST_PLACES = 200_000

# The header of an MP3 file stands behind four bytes of its first frame's own and 32 of side information at most.
_MP3_HEADER_WITHIN = 256

HEADER_BYTES = 7
"""What is needed to read a frame's header."""


class Bytes(Protocol):
    """A file's bytes, in memory or mapped."""

    def __len__(self) -> int: ...

    def __getitem__(self, key: slice, /) -> bytes: ...

    def find(self, sub: bytes, start: int, /) -> int:  # noqa: D102 - as of bytes
        ...


@dataclass(frozen=True)
class Frame:
    """What a frame's header says.

    Attributes:
        length: In bytes, with the header.
        samples: How many it has of each channel.
        rate: Their rate in hertz.
    """

    length: int
    samples: int
    rate: int


FrameReader = Callable[[bytes], Frame | None]
"""Reads a header of `HEADER_BYTES`, or returns None where it is none."""

_MPEG_1, _LAYER_3 = 3, 1
_MP3_KBPS = {
    True: (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 0),
    False: (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160, 0),
}
_MP3_RATES = {3: (44_100, 48_000, 32_000), 2: (22_050, 24_000, 16_000), 0: (11_025, 12_000, 8_000)}

_AAC_RATES = (96_000, 88_200, 64_000, 48_000, 44_100, 32_000, 24_000, 22_050, 16_000, 12_000, 11_025, 8_000, 7_350)


def mp3_frame(header: bytes) -> Frame | None:
    """Read the header of an MPEG audio frame of layer 3 (ISO 11172-3, 2.4), or return None where this is none."""
    return _mp3_frame(header[:3]) if len(header) > 3 else None


@lru_cache  # a file's headers are few different ones
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
    """Read the header of an ADTS frame (ISO 13818-7, 6.2), or return None where this is none."""
    if len(header) < HEADER_BYTES or header[0] != 0xFF or header[1] & 0xF6 != 0xF0:
        return None
    rate_index, length = header[2] >> 2 & 0x0F, (header[3] & 0x03) << 11 | header[4] << 3 | header[5] >> 5
    if rate_index >= len(_AAC_RATES) or length < HEADER_BYTES:
        return None
    return Frame(length, 1_024 * ((header[6] & 3) + 1), _AAC_RATES[rate_index])


@dataclass(frozen=True)
class Stream:
    """What the frames of a file say.

    Attributes:
        seconds: How long the whole frames last, without what the encoder has added.
        skip: Samples at the start that the encoder has added.
        samples: How many follow, where there is padding behind them; else None.
        is_truncated: Whether less than half of the declared frames are there, and the file ends within one.
    """

    seconds: float
    skip: int
    samples: int | None
    is_truncated: bool


class Frames:
    """The frames of a file, wherever they are: tags, padding and junk may be before, between and behind them.

    FFmpeg's own parser loses what follows junk that looks like a frame of another form. Here one counts where another
    follows it.

    Args:
        data: The file.
        start: Where the tags before the first frame end.
        read: Reads the headers.

    Attributes:
        is_cut: Whether the file ends within a frame, known at the end.
        is_searched: Whether all of the file was searched, known at the end.
    """

    def __init__(self, data: Bytes, start: int, read: FrameReader) -> None:
        self._data = data
        self._start = start
        self._read = read
        self.is_cut = False
        self.is_searched = True

    def __iter__(self) -> Iterator[tuple[int, Frame]]:
        """Yield where frames begin, and what their headers say."""
        data, read, position, end = self._data, self._read, self._start, len(self._data)
        last: Frame | None = None  # the one that ends at `position`
        places = 0
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
            places += 1
            if places > _MOST_PLACES:
                self.is_searched = False
                return
            position = data.find(b"\xff", position + 1)


def measure(data: Bytes, start: int, read: FrameReader) -> Stream | None:
    """Count the frames of a file; see `Frames`.

    Returns:
        What was found, or None where there is no frame, or so much else that it was not searched to its end.
    """
    frames = Frames(data, start, read)
    samples: Counter[int] = Counter()  # by their rate
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
    padding = header.padding if count - 1 == header.frames else 0  # else more has been joined to it
    added = header.delay + padding
    seconds = max(0.0, sum(number / rate for rate, number in samples.items()) - added / first.rate)
    skip = header.delay + first.samples * header.is_there
    most = samples[first.rate] - added if padding and len(samples) == 1 else None
    return Stream(seconds, skip, most, frames.is_cut and count < header.frames / 2)


@dataclass(frozen=True)
class _Header:
    """What the first frame of an MP3 file says of the others: how many there are, and what the encoder has added.

    `delay` and `padding` are samples at the start and the end, together with those of the decoder.
    """

    is_there: bool = False
    frames: int = 0
    delay: int = 0
    padding: int = 0


# What MP3 decoders are late by, which encoders do not count.
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
    # Behind the numbers of frames and bytes, the table and the quality, each if there is one: the encoder's name.
    place += 8 + 4 * (flags & 1) + 4 * (flags >> 1 & 1) + 100 * (flags >> 2 & 1) + 4 * (flags >> 3 & 1)
    if frame[place : place + 4] not in (b"LAME", b"Lavf", b"Lavc") or len(frame) < place + 24:
        return _Header(True, frames)
    added = int.from_bytes(frame[place + 21 : place + 24], "big")
    delay, padding = added >> 12, added & 0xFFF
    return _Header(True, frames, delay + _DECODER_DELAY, max(0, padding - _DECODER_DELAY))
