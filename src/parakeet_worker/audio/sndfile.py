"""Sound files that libsndfile reads: WAV, FLAC, AIFF, CAF, and Ogg with Vorbis or Opus."""

import os
from collections.abc import Iterator
from typing import BinaryIO

import numpy as np
import soundfile
from numpy.typing import NDArray

from parakeet_worker.audio.abort import Abort
from parakeet_worker.audio.budget import TooMuchWork, is_affordable
from parakeet_worker.audio.resample import Resampler, no_frames

# Samples of all channels together, so that a header cannot ask for more memory than this.
_BLOCK_SAMPLES = 1 << 18

# A streamed FLAC file declares no length, which libsndfile reports as 2^63 - 1 frames.
_UNKNOWN_FRAMES = 2**62

# Float samples are meant to lie in [-1, 1]. Mastering overshoots that a little; far above it they are integers that
# somebody forgot to scale.
_OVERSHOOT = 2.0
_FLOATS = ("FLOAT", "DOUBLE")

# One in so many samples tells how loud a file is.
_STRIDE = 61


# Beyond the end of any file.
_FAR = 1 << 62


class _Seekable:
    """A file whose every place can be sought.

    A damaged header leads libsndfile to places before the start. What the file raises of that would be written to the
    log, since it cannot pass through libsndfile.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.read = file.read
        self.tell = file.tell
        self.readinto = file.readinto  # type: ignore[attr-defined]  # binary files have it

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move to a place, or as near to it as there is one."""
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._file.tell()}.get(whence)
        if start is None:
            start = self._file.seek(0, os.SEEK_END)
        return self._file.seek(min(max(0, start + offset), _FAR))


class _Stream(soundfile.SoundFile):  # type: ignore[misc]  # soundfile is not typed
    """A sound file that is read once, from front to back.

    soundfile seeks after every read of a seekable file, which fails at the end of a FLAC file of unknown length.
    """

    def seekable(self) -> bool:
        return False


class SoundFile:
    """A sound file, open for one pass.

    Args:
        file: Positioned at its start.
        abort: Ends the pass when its job is gone.

    Attributes:
        sample_rate: In hertz.
        declared_frames: Its length by its header, or None where that does not say.
        frames: How many have been decoded so far.

    Raises:
        soundfile.LibsndfileError: libsndfile cannot read it. Reading may raise that too.
        TooMuchWork: It has more samples than a file of its size may have. Reading may raise that too.
    """

    def __init__(self, file: BinaryIO, abort: Abort) -> None:
        self._file = file
        self._abort = abort
        self._sound = _Stream(_Seekable(file))
        position = file.tell()
        self.sample_rate = int(self._sound.samplerate)
        declared = int(self._sound.frames)
        self.declared_frames = declared if declared < _UNKNOWN_FRAMES else None
        self.frames = 0
        self._size = file.seek(0, os.SEEK_END)
        self._file.seek(position)
        self._check_work(self.declared_frames or 0)

    @property
    def declared_seconds(self) -> float | None:
        """Its length by its header, or None."""
        return None if self.declared_frames is None else self.declared_frames / self.sample_rate

    @property
    def decoded_seconds(self) -> float:
        """Length of what has been decoded so far."""
        return self.frames / self.sample_rate

    def lengths(self) -> Iterator[float]:
        """Decode to the end and keep nothing; yield the seconds so far. Reading begins anew afterwards."""
        frames = 0
        for block in self._read():
            frames += len(block)
            yield frames / self.sample_rate
        self._rewind()

    def blocks(self) -> Iterator[NDArray[np.float32]]:
        """Decode: 16 kHz mono float32 blocks, each of shape (samples,), in order."""
        loudness = _loudness(self._read()) if self._sound.subtype in _FLOATS else 1.0
        if self._sound.subtype in _FLOATS:
            self._rewind()
        resampler = Resampler(self.sample_rate)
        self.frames = 0
        for block in self._read():
            self.frames += len(block)
            if self._sound.subtype in _FLOATS:
                block = np.clip(_numbers(block) / np.float32(loudness), -_OVERSHOOT, _OVERSHOOT)
            yield resampler(block)
        yield resampler(no_frames(), is_last=True)

    def close(self) -> None:
        """Let go of the file, which stays open."""
        self._sound.close()

    def _rewind(self) -> None:
        self._sound.close()
        self._file.seek(0)
        self._sound = _Stream(_Seekable(self._file))

    def _check_work(self, frames: int) -> None:
        if not is_affordable(frames, self._sound.channels, self.sample_rate, self._size):
            raise TooMuchWork

    def _read(self) -> Iterator[NDArray[np.float32]]:
        """Yield blocks of shape (frames, channels)."""
        block_frames = max(1, _BLOCK_SAMPLES // self._sound.channels)
        left, frames = self._sound.frames, 0
        # Not a frame more than declared is asked for: what follows may be a tag, which is no audio.
        while wanted := min(block_frames, left):
            self._abort.check()
            block = self._sound.read(wanted, dtype="float32", always_2d=True)
            if len(block) == 0:
                return
            left -= len(block)
            frames += len(block)
            self._check_work(frames)
            yield block


def _numbers(block: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return samples with zeros in place of what is no number."""
    return np.nan_to_num(block, nan=0.0, posinf=0.0, neginf=0.0)


def _loudness(blocks: Iterator[NDArray[np.float32]]) -> float:
    """Return what to divide float samples by: 1 but for those that nobody scaled to [-1, 1]."""
    peak, some = 0.0, [np.zeros(1, np.float32)]
    for block in blocks:
        sizes = np.abs(_numbers(block).reshape(-1))
        peak = max(peak, float(sizes.max(initial=0.0)))
        some.append(sizes[::_STRIDE])
    usual = float(np.quantile(np.concatenate(some), 0.999)) if peak > _OVERSHOOT else 0.0
    return usual if usual > _OVERSHOOT else 1.0
