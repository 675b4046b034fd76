"""Decoding with libsndfile: WAV, FLAC, AIFF, CAF, and Ogg with Vorbis or Opus."""

import os
from collections.abc import Iterator
from typing import BinaryIO

import numpy as np
import soundfile
from numpy.typing import NDArray

from parakeet_worker.audio.formats.budget import TooManySamplesError, is_affordable
from parakeet_worker.audio.resample import Resampler, no_frames
from parakeet_worker.cancellation import CancellationToken

# Size of a block in samples of all channels together, so that a header with many channels cannot take much memory.
_BLOCK_SAMPLES = 1 << 18

# A streamed FLAC file declares no length, for which libsndfile returns 2^63 - 1 frames.
_UNKNOWN_FRAMES = 2**62

# Float samples should be within [-1, 1]. Mastered audio exceeds that a little. Samples far above it are integers that
# were not scaled.
_OVERSHOOT = 2.0
_FLOATS = ("FLOAT", "DOUBLE")

# The scale of float samples is estimated from one in 61 of them.
_STRIDE = 61

# A position beyond the end of any file.
_FAR = 1 << 62


class _Seekable:
    """A file whose `seek` never raises for a position out of range.

    With a damaged header libsndfile seeks to positions before the start. An exception cannot pass through libsndfile,
    and its traceback would be written to the log.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.read = file.read
        self.tell = file.tell
        self.readinto = file.readinto  # type: ignore[attr-defined]  # binary files have it

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Seek to a position, or to the nearest one that exists, and return it."""
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._file.tell()}.get(whence)
        if start is None:
            start = self._file.seek(0, os.SEEK_END)
        return self._file.seek(min(max(0, start + offset), _FAR))


class _Stream(soundfile.SoundFile):  # type: ignore[misc]  # soundfile is not typed
    """A sound file that is read once, from front to back.

    It claims not to be seekable: soundfile seeks after every read of a seekable file, which fails at the end of a FLAC
    file of unknown length.
    """

    def seekable(self) -> bool:
        return False


class SoundFile:
    """An open sound file, which is decoded once from start to end; see `AudioReader`.

    Args:
        file: The file, positioned at its start.
        cancellation: Stops the decoding when the job is cancelled.

    Attributes:
        sample_rate: Sample rate in hertz.
        declared_frames: Number of frames that the header declares, or None if it declares none.
        frames: Number of frames decoded so far.

    Raises:
        soundfile.LibsndfileError: libsndfile cannot read it. `lengths` and `blocks` may raise that too.
        TooManySamplesError: It has more samples than are allowed for its size. `lengths` and `blocks` may raise that
            too.
    """

    def __init__(self, file: BinaryIO, cancellation: CancellationToken) -> None:
        self._file = file
        self._cancellation = cancellation
        self._reader = _Stream(_Seekable(file))
        position = file.tell()
        self.sample_rate = int(self._reader.samplerate)
        declared = int(self._reader.frames)
        self.declared_frames = declared if declared < _UNKNOWN_FRAMES else None
        self.frames = 0
        self._size = file.seek(0, os.SEEK_END)
        self._file.seek(position)
        self._check_work(self.declared_frames or 0)

    @property
    def declared_seconds(self) -> float | None:
        """Length that the header declares, in seconds, or None if it declares none."""
        return None if self.declared_frames is None else self.declared_frames / self.sample_rate

    @property
    def decoded_seconds(self) -> float:
        """Length decoded so far, in seconds."""
        return self.frames / self.sample_rate

    def lengths(self) -> Iterator[float]:
        """Decode to the end, discard the samples and yield the seconds so far. Rewind for `blocks` afterwards."""
        frames = 0
        for block in self._read():
            frames += len(block)
            yield frames / self.sample_rate
        self._rewind()

    def blocks(self) -> Iterator[NDArray[np.float32]]:
        """Decode and yield blocks in order: 16 kHz mono float32, each of shape (samples,)."""
        scale = _scale(self._read()) if self._reader.subtype in _FLOATS else 1.0
        if self._reader.subtype in _FLOATS:
            self._rewind()
        resampler = Resampler(self.sample_rate)
        self.frames = 0
        for block in self._read():
            self.frames += len(block)
            if self._reader.subtype in _FLOATS:
                block = np.clip(_finite(block) / np.float32(scale), -_OVERSHOOT, _OVERSHOOT)
            yield resampler(block)
        yield resampler(no_frames(), is_last=True)

    def close(self) -> None:
        """Free what libsndfile holds. The file itself stays open."""
        self._reader.close()

    def _rewind(self) -> None:
        self._reader.close()
        self._file.seek(0)
        self._reader = _Stream(_Seekable(self._file))

    def _check_work(self, frames: int) -> None:
        if not is_affordable(frames, self._reader.channels, self.sample_rate, self._size):
            raise TooManySamplesError

    def _read(self) -> Iterator[NDArray[np.float32]]:
        """Yield blocks of float32, each of shape (frames, channels)."""
        block_frames = max(1, _BLOCK_SAMPLES // self._reader.channels)
        left, frames = self._reader.frames, 0
        # Never read more frames than are declared: a tag may follow them, which libsndfile would decode as audio.
        while wanted := min(block_frames, left):
            self._cancellation.check()
            block = self._reader.read(wanted, dtype="float32", always_2d=True)
            if len(block) == 0:
                return
            left -= len(block)
            frames += len(block)
            self._check_work(frames)
            yield block


def _finite(block: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the samples with zeros in place of NaN and infinities."""
    return np.nan_to_num(block, nan=0.0, posinf=0.0, neginf=0.0)


def _scale(blocks: Iterator[NDArray[np.float32]]) -> float:
    """Return the number to divide float samples by: 1, or the level of samples that were not scaled to [-1, 1]."""
    peak, sampled = 0.0, [np.zeros(1, np.float32)]
    for block in blocks:
        magnitudes = np.abs(_finite(block).reshape(-1))
        peak = max(peak, float(magnitudes.max(initial=0.0)))
        sampled.append(magnitudes[::_STRIDE])
    level = float(np.quantile(np.concatenate(sampled), 0.999)) if peak > _OVERSHOOT else 0.0
    return level if level > _OVERSHOOT else 1.0
