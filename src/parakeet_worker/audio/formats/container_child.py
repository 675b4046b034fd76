"""The program of a child process: decode the audio track of one file, with FFmpeg or libsndfile.

The file is its standard input. The demuxer is given by name, so that FFmpeg does not probe for other formats. Before
the child reads the file it enters a sandbox, in which nothing else can be opened: references to other files or URLs in
a container fail.
"""

import importlib
import json
import mmap
import os
import pkgutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from itertools import chain
from typing import Any, BinaryIO

import av
import numpy as np
from numpy.typing import NDArray

from parakeet_worker.audio.formats import sandbox
from parakeet_worker.audio.formats.budget import TooManySamplesError, is_affordable
from parakeet_worker.audio.formats.messages import BLOCK, END, FAILED, HEADER, OPEN
from parakeet_worker.audio.formats.mpeg import Frames, adts_frame, measure, mp3_frame
from parakeet_worker.audio.formats.sndfile import SoundFile
from parakeet_worker.audio.formats.sniff import LIBSNDFILE, past_tags
from parakeet_worker.audio.resample import Resampler, no_frames
from parakeet_worker.cancellation import CancellationToken

# Damaged packets are skipped, up to this many.
_MAX_DAMAGED = 1_000

# A stream is damaged if less than this share of its frames can be decoded.
_LEAST_SHARE = 0.5

# A sound track has a gap where a frame comes later than this, in seconds, after what is before it. In files without
# gaps, frames are less than 1 ms off, and the first one of WMA 93 ms.
_LEAST_GAP = 0.1

# Longest gap, in seconds: as long as the longest recording that a worker takes by default. A longer one is taken for a
# damaged time.
_MOST_GAP = 14_400.0

# FFmpeg's names of demuxers that tell the length of each track. Others give that of the whole file for it, and sound
# may be shorter than a picture.
_LENGTH_OF_TRACK = ("mov", "avi")

# The picture of an album's cover is a track, too.
_COVER = av.stream.Disposition.attached_pic

# Formats that are frames without a container, by FFmpeg's names of their demuxers: the function that reads a frame's
# header, and FFmpeg's name of the decoder.
_STREAMS = {"mp3": (mp3_frame, "mp3float"), "aac": (adts_frame, "aac")}

# Number of channels for which FFmpeg has pointers in the frame itself. Those of more channels are elsewhere.
_PLANES = 8


class _DecodingError(Exception):
    """The file cannot be decoded. The argument is the reason that is sent to the parent; see `ContainerError`."""


def prepare() -> None:
    """Import all modules that decoding needs, since nothing can be imported in the sandbox."""
    # PyAV imports the module for a type of stream when it first meets one.
    for module in pkgutil.walk_packages(av.__path__, "av."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)


def run(demuxer: str) -> None:
    """Decode the standard input, and write messages to the standard output; see `messages`."""
    with open(0, "rb", buffering=1 << 16) as file, open(1, "wb", buffering=1 << 20) as out:
        file.seek(0)
        main(demuxer, file, out)


def main(demuxer: str, file: BinaryIO, out: BinaryIO) -> None:
    """Enter the sandbox for good, decode a file, and write the messages.

    Args:
        demuxer: FFmpeg's name of the demuxer, or `LIBSNDFILE`.
        file: The file.
        out: The messages are written to it.
    """
    # Before the sandbox: a mapping needs a descriptor of its own.
    data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if demuxer in _STREAMS else None
    size = os.fstat(file.fileno()).st_size
    box = sandbox.enter(size)
    try:
        if demuxer == LIBSNDFILE:
            _decode_sound_file(file, out)
            return
        if data and (track := _track_of_stream(data, past_tags(file), demuxer)):
            _decode(track, size, out)
            return
        file.seek(0)
        with av.open(file, format=demuxer, metadata_errors="ignore", options={"protocol_whitelist": ""}) as container:
            _decode(_track_of_container(container, demuxer), size, out)
    except _DecodingError as failure:
        _send(out, FAILED, str(failure).encode())
    except TooManySamplesError:
        _send(out, FAILED, b"too_much_work")
    except MemoryError:
        # A file that needs more than the sandbox's limit is damaged. Under a lower limit it may be a good one.
        _send(out, FAILED, b"damaged" if box.is_memory_ours else b"memory")
    except Exception:  # noqa: BLE001 - damaged files make the libraries raise many types
        _send(out, FAILED, b"damaged")


@dataclass(frozen=True)
class _Track:
    """The audio track to decode.

    Attributes:
        frames: Decoded frames of FFmpeg.
        rate: Sample rate in hertz. Frames of another rate are resampled to it.
        declared_seconds: Length in seconds, or None if it is not known.
        is_measured: Whether the length was measured rather than declared.
        skip: Number of samples at the start to leave out.
        most: Number of samples to keep after those, or None for all.
        clock: Tells when the frames are heard, or None if they follow one another.
    """

    frames: Iterable[Any]
    rate: int
    declared_seconds: float | None
    is_measured: bool = False
    skip: int = 0
    most: int | None = None
    clock: "_Clock | None" = None


@dataclass(frozen=True)
class _Clock:
    """Tells when the frames of a container are heard.

    Attributes:
        start: Time of the container's start, in seconds.
        end: Time of its end, or None if it is not known.
    """

    start: float
    end: float | None

    def gap(self, frame: Any, position: float) -> float:  # noqa: ANN401
        """Return how much silence is before a frame, in seconds.

        Recorders leave out what nobody says or what was lost, and tell so by the times of the frames around it. The
        sound track of a video may begin later than the picture.

        Args:
            frame: A frame of FFmpeg.
            position: Seconds of sound before it.
        """
        if frame.pts is None or not frame.time_base:
            return 0.0
        time = float(frame.pts * frame.time_base)
        gap = time - self.start - position
        is_possible = gap <= _MOST_GAP and (self.end is None or time <= self.end)
        return gap if gap > _LEAST_GAP and is_possible else 0.0


def _track_of_container(container: Any, demuxer: str) -> _Track:  # noqa: ANN401 - PyAV's types vary by release
    stream = container.streams.best("audio")
    if stream is None:
        raise _DecodingError("no_audio_track")
    if stream.codec_context is None or not stream.sample_rate:
        raise _DecodingError("codec")
    stream.codec_context.thread_count = 1  # the sandbox allows no threads
    whole = container.duration / av.time_base if container.duration else None
    is_alone = all(other is stream or other.disposition & _COVER for other in container.streams)
    declared = None
    if is_alone or demuxer in _LENGTH_OF_TRACK:
        declared = float(stream.duration * stream.time_base) if stream.duration else whole
    clock = None
    if container.start_time is not None:
        start = container.start_time / av.time_base
        clock = _Clock(start, None if whole is None else start + whole)
    return _Track(_decoded(container.demux(stream), stream.decode), int(stream.sample_rate), declared, clock=clock)


def _track_of_stream(data: mmap.mmap, start: int, demuxer: str) -> _Track | None:
    """Return the track of a file of frames without a container, or None if no frames are found."""
    read, decoder = _STREAMS[demuxer]
    stream = measure(data, start, read)
    if stream is None:
        return None
    if stream.is_truncated:
        raise _DecodingError("truncated")
    codec: Any = av.CodecContext.create(decoder, "r")
    codec.thread_count = 1
    found = Frames(data, start, read)
    packets = (av.Packet(data[position : position + frame.length]) for position, frame in found)
    frames = _decoded(chain(packets, [None]), codec.decode)
    first = next(frames, None)
    if first is None:
        raise _DecodingError("damaged")
    # The decoder's rate is used: headers of HE-AAC may declare half of it.
    return _Track(chain([first], frames), first.sample_rate, stream.seconds, True, stream.skip, stream.samples)


def _decoded(packets: Iterable[Any], decode: Callable[[Any], list[Any]]) -> Iterator[Any]:
    """Decode packets and yield the frames. Skip damaged packets.

    Raises:
        _DecodingError: No packet could be decoded, or too many are damaged.
    """
    frames = damaged = 0
    for packet in packets:
        try:
            decoded = decode(packet)
        except av.error.FFmpegError as error:
            damaged += 1
            if damaged > _MAX_DAMAGED:
                raise _DecodingError("damaged") from error
            continue
        frames += len(decoded)
        yield from decoded
    if damaged and not frames:
        raise _DecodingError("damaged")


def _decode_sound_file(file: BinaryIO, out: BinaryIO) -> None:
    with closing(SoundFile(file, CancellationToken())) as reader:
        opened = {"sample_rate": reader.sample_rate, "declared_seconds": reader.declared_seconds}
        _send(out, OPEN, json.dumps(opened).encode())
        for block in reader.blocks():
            _send(out, BLOCK, block.tobytes(), reader.frames)
        _send(out, END, b"", reader.frames)


def _decode(track: _Track, size: int, out: BinaryIO) -> None:
    """Decode a track of a file of `size` bytes, and write the messages, one for about each second.

    Raises:
        _DecodingError: The file is damaged.
        TooManySamplesError: It has more samples than are allowed for its size.
    """
    rate, declared = track.rate, track.declared_seconds
    _send(out, OPEN, json.dumps({"sample_rate": rate, "declared_seconds": declared}).encode())
    resampler, skip = Resampler(rate), track.skip
    pending: list[NDArray[np.float32]] = []
    frames = sent = work = 0
    for samples in _arrays(track):
        if frames - sent >= rate or (pending and len(samples) != len(pending[0])):
            _send(out, BLOCK, resampler(np.concatenate(pending, axis=1).T).tobytes(), frames)
            pending, sent = [], frames
        work += samples.size
        if not is_affordable(work // len(samples), len(samples), rate, size):
            raise TooManySamplesError
        skipped = min(skip, samples.shape[1])
        skip -= skipped
        kept = samples[:, skipped : None if track.most is None else skipped + max(0, track.most - frames)]
        pending.append(kept)
        frames += kept.shape[1]
    if track.is_measured and declared and frames < rate * declared * _LEAST_SHARE:
        raise _DecodingError("damaged")
    last = np.concatenate(pending, axis=1).T if pending else no_frames()
    _send(out, BLOCK, resampler(last, is_last=True).tobytes(), frames)
    _send(out, END, b"", frames)


def _arrays(track: _Track) -> Iterator[NDArray[np.float32]]:
    """Yield the samples of a track, with silence where it has gaps, in arrays of shape (channels, samples)."""
    rate, floats = track.rate, _Floats(track.rate)
    position = 0  # in samples
    for frame in track.frames:
        missing = round(track.clock.gap(frame, position / rate) * rate) if track.clock else 0
        while missing:
            silence = np.zeros((frame.layout.nb_channels, min(missing, rate)), np.float32)
            missing -= silence.shape[1]
            position += silence.shape[1]
            yield silence
        for samples in floats(frame):
            position += samples.shape[1]
            yield samples


class _Floats:
    """Converts frames to float32 samples of one rate. Sample format, rate and channels may differ between frames."""

    def __init__(self, rate: int) -> None:
        self._rate = rate
        self._layout: tuple[str, str, int] | None = None
        self._convert: Any = None

    def __call__(self, frame: Any) -> list[NDArray[np.float32]]:  # noqa: ANN401
        """Return the samples of a frame in zero or more arrays, each of shape (channels, samples)."""
        layout = frame.format.name, frame.layout.name, frame.sample_rate
        converted = []
        if layout != self._layout:
            if self._convert and self._layout and self._layout[2] != self._rate:
                converted = self._convert.resample(None)  # the samples that it still holds
            self._layout = layout
            # PyAV reads one plane too many of planar frames with 8 or more channels. So these are interleaved first.
            is_float = layout[0] == "fltp" and layout[2] == self._rate and frame.layout.nb_channels < _PLANES
            self._convert = None if is_float else av.AudioResampler(format="flt", rate=self._rate)
        converted += self._convert.resample(frame) if self._convert else []
        arrays = [samples.to_ndarray().reshape(-1, samples.layout.nb_channels).T for samples in converted]
        return arrays if self._convert else [*arrays, frame.to_ndarray()]


def _send(out: BinaryIO, message_type: bytes, content: bytes, frames: int = 0) -> None:
    out.write(HEADER.pack(message_type, len(content), frames))
    out.write(content)
