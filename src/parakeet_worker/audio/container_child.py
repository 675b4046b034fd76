"""What a child does: decode the sound track of a file, with FFmpeg most often, and nothing else.

It has the file as its standard input and its demuxer by name, so that FFmpeg looks for no other form in it. Before it
reads, it gives up the right to open anything else: a container that names other files or URLs names them in vain.
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

from parakeet_worker.audio import sandbox
from parakeet_worker.audio.abort import Abort
from parakeet_worker.audio.budget import TooMuchWork, is_affordable
from parakeet_worker.audio.messages import BLOCK, END, FAILED, HEADER, OPEN
from parakeet_worker.audio.mpeg import Frames, adts_frame, measure, mp3_frame
from parakeet_worker.audio.resample import Resampler, no_frames
from parakeet_worker.audio.sndfile import SoundFile
from parakeet_worker.audio.sniff import LIBSNDFILE, past_tags

# A damaged packet is left out; a file of nothing else is damaged.
_MOST_DAMAGED = 1_000


# Fewer of a stream's frames than this part of them are no recording.
_LEAST_PART = 0.5

# Streams of frames and nothing else, by their demuxers, with FFmpeg's names of their decoders.
_STREAMS = {"mp3": (mp3_frame, "mp3float"), "aac": (adts_frame, "aac")}


# Where FFmpeg keeps the channels of a frame; there is another list for more.
_PLANES = 8


class _Failure(Exception):  # noqa: N818 - what happened, not a mistake
    """The file cannot be decoded. Its argument is the reason for the parent; see `ContainerError`."""


def prepare() -> None:
    """Load everything that decoding needs, since nothing can be loaded afterwards."""
    # PyAV imports its parts as it meets their kinds of streams.
    for module in pkgutil.walk_packages(av.__path__, "av."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)


def run(demuxer: str) -> None:
    """Decode the standard input, as messages to the standard output."""
    with open(0, "rb", buffering=1 << 16) as file, open(1, "wb", buffering=1 << 20) as out:
        file.seek(0)
        main(demuxer, file, out)


def main(demuxer: str, file: BinaryIO, out: BinaryIO) -> None:
    """Decode a file to messages, in a sandbox that this process cannot leave.

    Args:
        demuxer: FFmpeg's name of the container, or `LIBSNDFILE` for what that reads.
        file: The file.
        out: Where the messages go.
    """
    # A mapping takes another descriptor for itself.
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
            _decode(_track_of_container(container), size, out)
    except _Failure as failure:
        _send(out, FAILED, str(failure).encode())
    except TooMuchWork:
        _send(out, FAILED, b"too_much_work")
    except MemoryError:
        # A file that asks for more than any good one is damaged; where this process had less from the start, it is not.
        _send(out, FAILED, b"damaged" if box.is_memory_ours else b"memory")
    except Exception:  # noqa: BLE001 - whatever a damaged file makes of the libraries
        _send(out, FAILED, b"damaged")


@dataclass(frozen=True)
class _Track:
    """What is decoded.

    Attributes:
        frames: FFmpeg's frames; see `_decoded`.
        rate: Of what is sent, in hertz.
        declared_seconds: Its length, or None where that is not known.
        is_measured: Whether the length was measured rather than declared.
        skip: Samples at its start that are left out.
        most: Samples that are taken behind them, or None for all.
    """

    frames: Iterable[Any]
    rate: int
    declared_seconds: float | None
    is_measured: bool = False
    skip: int = 0
    most: int | None = None


def _track_of_container(container: Any) -> _Track:  # noqa: ANN401 - PyAV's types differ between its releases
    stream = container.streams.best("audio")
    if stream is None:
        raise _Failure("no_sound")
    if stream.codec_context is None or not stream.sample_rate:
        raise _Failure("codec")
    stream.codec_context.thread_count = 1  # the sandbox lets no thread begin
    declared = None
    if stream.duration:
        declared = float(stream.duration * stream.time_base)
    elif container.duration:
        declared = container.duration / av.time_base
    return _Track(_decoded(container.demux(stream), stream.decode), int(stream.sample_rate), declared)


def _track_of_stream(data: mmap.mmap, start: int, demuxer: str) -> _Track | None:
    """Return the track of a file that is frames and nothing else, or None where none are found."""
    read, decoder = _STREAMS[demuxer]
    stream = measure(data, start, read)
    if stream is None:
        return None
    if stream.is_truncated:
        raise _Failure("truncated")
    codec: Any = av.CodecContext.create(decoder, "r")
    codec.thread_count = 1
    found = Frames(data, start, read)
    packets = (av.Packet(data[position : position + frame.length]) for position, frame in found)
    frames = _decoded(chain(packets, [None]), codec.decode)
    first = next(frames, None)
    if first is None:
        raise _Failure("damaged")
    # Half of the rate of AAC may be left out of its headers.
    return _Track(chain([first], frames), first.sample_rate, stream.seconds, True, stream.skip, stream.samples)


def _decoded(packets: Iterable[Any], decode: Callable[[Any], list[Any]]) -> Iterator[Any]:
    """Decode packets, but for those that are damaged."""
    frames = damaged = 0
    for packet in packets:
        try:
            decoded = decode(packet)
        except av.error.FFmpegError as error:
            damaged += 1
            if damaged > _MOST_DAMAGED:
                raise _Failure("damaged") from error
            continue
        frames += len(decoded)
        yield from decoded
    if damaged and not frames:
        raise _Failure("damaged")


def _decode_sound_file(file: BinaryIO, out: BinaryIO) -> None:
    with closing(SoundFile(file, Abort())) as sound:
        opened = {"sample_rate": sound.sample_rate, "declared_seconds": sound.declared_seconds}
        _send(out, OPEN, json.dumps(opened).encode())
        for block in sound.blocks():
            _send(out, BLOCK, block.tobytes(), sound.frames)
        _send(out, END, b"", sound.frames)


def _decode(track: _Track, size: int, out: BinaryIO) -> None:
    rate, declared = track.rate, track.declared_seconds
    _send(out, OPEN, json.dumps({"sample_rate": rate, "declared_seconds": declared}).encode())
    resampler, skip = Resampler(rate), track.skip
    pending: list[NDArray[np.float32]] = []
    frames = sent = work = 0
    for samples in chain.from_iterable(map(_Floats(rate), track.frames)):
        if frames - sent >= rate or (pending and len(samples) != len(pending[0])):
            _send(out, BLOCK, resampler(np.concatenate(pending, axis=1).T).tobytes(), frames)
            pending, sent = [], frames
        work += samples.size
        if not is_affordable(work // len(samples), len(samples), rate, size):
            raise TooMuchWork
        skipped = min(skip, samples.shape[1])
        skip -= skipped
        kept = samples[:, skipped : None if track.most is None else skipped + max(0, track.most - frames)]
        pending.append(kept)
        frames += kept.shape[1]
    if track.is_measured and declared and frames < rate * declared * _LEAST_PART:
        raise _Failure("damaged")
    last = np.concatenate(pending, axis=1).T if pending else no_frames()
    _send(out, BLOCK, resampler(last, is_last=True).tobytes(), frames)
    _send(out, END, b"", frames)


class _Floats:
    """Turns frames into float32 samples of one rate. Their form, rate and channels may change from frame to frame."""

    def __init__(self, rate: int) -> None:
        self._rate = rate
        self._form: tuple[str, str, int] | None = None
        self._convert: Any = None

    def __call__(self, frame: Any) -> list[NDArray[np.float32]]:  # noqa: ANN401
        """Return what a frame gives, each of shape (channels, samples)."""
        form = frame.format.name, frame.layout.name, frame.sample_rate
        converted = []
        if form != self._form:
            if self._convert and self._form and self._form[2] != self._rate:
                converted = self._convert.resample(None)  # what it holds back
            self._form = form
            # PyAV reads one plane too many of frames with 8 or more: their channels are interleaved instead.
            is_float = form[0] == "fltp" and form[2] == self._rate and frame.layout.nb_channels < _PLANES
            self._convert = None if is_float else av.AudioResampler(format="flt", rate=self._rate)
        converted += self._convert.resample(frame) if self._convert else []
        found = [samples.to_ndarray().reshape(-1, samples.layout.nb_channels).T for samples in converted]
        return found if self._convert else [*found, frame.to_ndarray()]


def _send(out: BinaryIO, kind: bytes, content: bytes, frames: int = 0) -> None:
    out.write(HEADER.pack(kind, len(content), frames))
    out.write(content)
