"""From the bytes of an audio file to the samples that the model hears: 16 kHz mono float32."""

import struct
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

from parakeet_worker.errors import Code, JobError

SAMPLE_RATE = 16_000

# libsndfile's names of the containers that are taken, and the names under which callers know them.
_CONTAINERS = {"WAV": "WAV", "WAVEX": "WAV", "RF64": "WAV", "FLAC": "FLAC"}
SUPPORTED_FORMATS = tuple(dict.fromkeys(_CONTAINERS.values()))

# Speech is sampled between 6 kHz (old telephone lines) and 192 kHz (studios). A rate far outside is a damaged header.
_LOWEST_RATE, _HIGHEST_RATE = 1_000, 768_000

_BLOCK_FRAMES = 1 << 18

# Float samples are meant to lie in [-1, 1]. Mastering overshoots that a little; far above it they are integers that
# somebody forgot to scale.
_OVERSHOOT = 2.0


@dataclass(frozen=True)
class Audio:
    """A decoded recording.

    Attributes:
        samples: The recording at 16 kHz, mono, float32, shape (samples,).
        duration: Its length in seconds, from the file's own frames and rate.
        sample_rate: The file's sample rate, in hertz.
    """

    samples: NDArray[np.float32]
    duration: float
    sample_rate: int


class _Stream(soundfile.SoundFile):  # type: ignore[misc]  # soundfile is not typed
    """A sound file that is read once, from front to back.

    soundfile seeks after every read of a seekable file, which fails at the end of a FLAC file of unknown length.
    """

    def seekable(self) -> bool:
        return False


def decode(file: BinaryIO, max_seconds: float) -> Audio:
    """Decode a WAV or FLAC file, block by block. The bytes decide what it is, not a name or a declared type.

    Channels are averaged; other sample rates are resampled (soxr, high quality).

    Args:
        file: The file, seekable, positioned at its first byte.
        max_seconds: The longest recording that is taken.

    Raises:
        JobError: The file is empty, no supported audio, damaged, or too long.
    """
    if not file.read(1):
        raise JobError(Code.EMPTY_AUDIO, "the audio file is empty: it has no bytes")
    file.seek(0)
    try:
        with _Stream(file) as sound:
            _check_header(sound, max_seconds)
            samples, frames = _read(sound, max_seconds)
            sample_rate = int(sound.samplerate)
            declared = int(sound.frames)
    except soundfile.LibsndfileError as error:
        raise _no_audio(file, error) from error
    if frames == 0:
        raise JobError(Code.EMPTY_AUDIO, "the audio has no samples")
    # A streamed FLAC file declares no length, which libsndfile reports as 2^63 - 1 frames.
    if frames < declared < 2**62 or _is_truncated_wav(file):
        raise JobError(Code.CORRUPT_AUDIO, "the audio is truncated: the file ends before its declared length")
    return Audio(samples, frames / sample_rate, sample_rate)


def _check_header(sound: soundfile.SoundFile, max_seconds: float) -> None:
    if sound.format not in _CONTAINERS:
        raise _unsupported(f"the audio is {sound.format}")
    if not _LOWEST_RATE <= sound.samplerate <= _HIGHEST_RATE:
        raise JobError(Code.CORRUPT_AUDIO, f"the audio's sample rate of {sound.samplerate} Hz is not one of speech")
    if sound.frames < 2**62:
        _check_length(sound.frames / sound.samplerate, max_seconds)


def _check_length(seconds: float, max_seconds: float) -> None:
    if seconds > max_seconds:
        raise JobError(
            Code.AUDIO_TOO_LONG,
            f"the audio lasts {seconds:.1f} seconds, more than the {max_seconds:g} that are taken: split it",
        )


def _read(sound: soundfile.SoundFile, max_seconds: float) -> tuple[NDArray[np.float32], int]:
    """Return the samples at 16 kHz, shape (samples,), and the number of frames that were read at the file's rate."""
    resampler = None
    if sound.samplerate != SAMPLE_RATE:
        resampler = soxr.ResampleStream(sound.samplerate, SAMPLE_RATE, 1, dtype="float32", quality="HQ")
    frames = 0
    blocks: list[NDArray[np.float32]] = []
    while len(block := sound.read(_BLOCK_FRAMES, dtype="float32", always_2d=True)):  # (frames, channels)
        frames += len(block)
        _check_length(frames / sound.samplerate, max_seconds)
        mono = block.mean(axis=1, dtype=np.float32)
        mono = np.nan_to_num(mono, copy=False, nan=0.0, posinf=0.0, neginf=0.0)
        blocks.append(resampler.resample_chunk(mono) if resampler else mono)
    if resampler:
        blocks.append(resampler.resample_chunk(np.empty(0, np.float32), last=True))
    samples = np.concatenate(blocks) if blocks else np.empty(0, np.float32)
    peak = float(np.abs(samples).max(initial=0.0))
    if peak > _OVERSHOOT:
        samples /= peak
    return samples, frames


def _is_truncated_wav(file: BinaryIO) -> bool:
    """Say whether a WAV file declares more data than it has, which libsndfile passes over in silence.

    Chunk sizes are 32-bit (Multimedia Programming Interface and Data Specifications 1.0, 1991). A program that wrote
    to a pipe could not go back to fill them in: those sizes are zero or near the maximum, and say nothing.
    """
    end = file.seek(0, 2)
    file.seek(0)
    if file.read(4) != b"RIFF":
        return False
    position = 12
    while position + 8 <= end:
        file.seek(position)
        name, size = struct.unpack("<4sI", file.read(8))
        if name == b"data":
            return bool(size < 0x7FFFF000 and position + 8 + size > end)
        position += 8 + size + size % 2
    return False


def _no_audio(file: BinaryIO, error: soundfile.LibsndfileError) -> JobError:
    """Say why libsndfile could not read a file: it is damaged, or no audio that we take."""
    file.seek(0)
    start = file.read(12)
    is_wav = start[:4] in (b"RIFF", b"RF64", b"RIFX") and start[8:12] in (b"WAVE", b"")
    if is_wav or start[:4] == b"fLaC":
        return JobError(Code.CORRUPT_AUDIO, "the audio is damaged or truncated and cannot be decoded")
    return _unsupported("the file is not audio, or of a format that is not supported")


def _unsupported(what: str) -> JobError:
    return JobError(Code.UNSUPPORTED_FORMAT, f"{what}; send {' or '.join(SUPPORTED_FORMATS)}")
