"""What a child does: decode the sound track of a file with FFmpeg, and nothing else.

It has the file as its standard input and its demuxer by name, so that FFmpeg looks for no other form in it. Before it
reads, it gives up the right to open anything else: a container that names other files or URLs names them in vain.
"""

import importlib
import json
import os
import pkgutil
from typing import Any, BinaryIO

import av
import numpy as np
from numpy.typing import NDArray

from parakeet_worker.audio import sandbox
from parakeet_worker.audio.messages import BLOCK, END, FAILED, HEADER, OPEN
from parakeet_worker.audio.resample import Resampler, no_frames

# A damaged packet is left out; a file of nothing else is damaged.
_MOST_DAMAGED = 1_000


class _Failure(Exception):  # noqa: N818 - what happened, not a mistake
    """The file cannot be decoded. Its argument is the reason for the parent: `no_sound`, `codec` or `damaged`."""


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
        demuxer: FFmpeg's name of the container.
        file: The file.
        out: Where the messages go.
    """
    box = sandbox.enter(os.fstat(file.fileno()).st_size)
    try:
        with av.open(file, format=demuxer, metadata_errors="ignore", options={"protocol_whitelist": ""}) as container:
            _decode(container, out)
    except _Failure as failure:
        _send(out, FAILED, str(failure).encode())
    except MemoryError:
        # A file that asks for more than any good one is damaged; where this process had less from the start, it is not.
        _send(out, FAILED, b"damaged" if box.is_memory_ours else b"memory")
    except Exception:  # noqa: BLE001 - whatever a damaged file makes of the libraries
        _send(out, FAILED, b"damaged")


def _decode(container: Any, out: BinaryIO) -> None:  # noqa: ANN401 - PyAV's types differ between its releases
    stream = container.streams.best("audio")
    if stream is None:
        raise _Failure("no_sound")
    if stream.codec_context is None or not stream.sample_rate:
        raise _Failure("codec")
    stream.codec_context.thread_count = 1  # the sandbox lets no thread begin
    rate = int(stream.sample_rate)
    declared = float(stream.duration * stream.time_base) if stream.duration else None
    if declared is None and container.duration:
        declared = container.duration / av.time_base
    _send(out, OPEN, json.dumps({"sample_rate": rate, "declared_seconds": declared}).encode())
    resampler, form, convert = Resampler(rate), None, av.AudioResampler(format="fltp", rate=rate)
    pending: list[NDArray[np.float32]] = []
    frames = sent = damaged = 0
    for packet in container.demux(stream):
        try:
            decoded = packet.decode()
        except av.error.FFmpegError as error:
            damaged += 1
            if damaged > _MOST_DAMAGED:
                raise _Failure("damaged") from error
            continue
        for frame in decoded:
            if form != (frame.format.name, frame.layout.name, frame.sample_rate):
                form = (frame.format.name, frame.layout.name, frame.sample_rate)
                convert = av.AudioResampler(format="fltp", rate=rate)
            for converted in convert.resample(frame):
                pending.append(_mono(converted))
                frames += len(pending[-1])
        if frames - sent >= rate:
            _send(out, BLOCK, resampler(np.concatenate(pending)).tobytes(), frames)
            pending, sent = [], frames
    if frames == 0 and damaged:
        raise _Failure("damaged")
    _send(out, BLOCK, resampler(np.concatenate([*pending, no_frames()]), is_last=True).tobytes(), frames)
    _send(out, END, b"", frames)


def _mono(frame: Any) -> NDArray[np.float32]:  # noqa: ANN401
    """Return a frame's samples, the channels averaged (they may change from frame to frame), shape (frames, 1)."""
    mono: NDArray[np.float32] = frame.to_ndarray().mean(axis=0, dtype=np.float32)
    return mono[:, None]


def _send(out: BinaryIO, kind: bytes, content: bytes, frames: int = 0) -> None:
    out.write(HEADER.pack(kind, len(content), frames))
    out.write(content)
