"""The audio of a page: a stretch of a recording as the worker's decoder gives it to the model, compressed again."""

import io
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO
from urllib.parse import urlsplit
from urllib.request import url2pathname

import av
import numpy as np
from numpy.typing import NDArray

from parakeet_worker.asr.types import SAMPLE_RATE
from parakeet_worker.audio.decode import open_reader
from parakeet_worker.audio.fetch.download import DownloadLimits
from parakeet_worker.audio.fetch.source import open_audio
from parakeet_worker.cancellation import CancellationToken

# Opus for speech of one channel at 16 kHz: what is lost cannot be heard. A minute is 240 KB.
_BITS_PER_SECOND = 32_000

# Of a `data:` URL, whose bytes are in memory already.
_NO_LIMITS = DownloadLimits(max_bytes=1 << 31, timeout_s=1)


def is_remote(audio: str) -> bool:
    """Return whether audio would have to be downloaded."""
    return audio.lower().startswith(("http:", "https:"))


def read_samples(audio: str, start: float, end: float) -> NDArray[np.float32]:
    """Decode a stretch of a recording that is on this machine.

    Args:
        audio: A path, or a `file:` or `data:` URL.
        start: Where it starts, in seconds.
        end: Where it ends, in seconds.

    Returns:
        16 kHz mono float32 of shape (samples,), shorter if the recording ends before.

    Raises:
        OSError: The file cannot be read.
        JobError: It is not audio that the worker takes.
    """
    first, last = round(start * SAMPLE_RATE), round(end * SAMPLE_RATE)
    blocks, position = [], 0
    with _open(audio) as file, open_reader(file, CancellationToken()) as reader:
        for block in reader.blocks():
            blocks.append(block[max(0, first - position) : max(0, last - position)])
            position += len(block)
            if position >= last:
                break
    return np.concatenate(blocks) if blocks else np.zeros(0, np.float32)


def compress(samples: NDArray[np.float32]) -> bytes:
    """Return samples as an Ogg Opus file, which is the same for the same samples.

    Args:
        samples: 16 kHz mono, of shape (samples,).
    """
    integers = np.round(np.clip(samples, -1, 1) * 32_767).astype(np.int16)
    file = io.BytesIO()
    # `bitexact` leaves out what is drawn at random: the number of the stream.
    with av.open(file, "w", format="ogg", options={"fflags": "+bitexact"}) as container:
        stream = container.add_stream("libopus", rate=SAMPLE_RATE, layout="mono", options={"vbr": "off"})
        stream.bit_rate = _BITS_PER_SECOND
        frame = av.AudioFrame.from_ndarray(integers[None], format="s16", layout="mono")
        frame.sample_rate = SAMPLE_RATE
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return file.getvalue()


@contextmanager
def _open(audio: str) -> Iterator[BinaryIO]:
    """Open a path, or a `file:` or `data:` URL."""
    if audio[:5].lower() == "data:":
        with open_audio(audio, _NO_LIMITS, CancellationToken()) as file:
            yield file
        return
    path = url2pathname(urlsplit(audio).path) if audio[:5].lower() == "file:" else audio
    # A copy, because the decoder repairs the headers of some WAV files in place.
    with Path(path).open("rb") as original, tempfile.TemporaryFile() as copy:
        shutil.copyfileobj(original, copy)
        yield copy
