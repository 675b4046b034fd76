"""From the bytes of an audio file to the samples that the model hears: 16 kHz mono float32."""

import math
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

from parakeet_worker.audio import SAMPLE_RATE
from parakeet_worker.audio.abort import Abort
from parakeet_worker.audio.wav import mend_size, read_header
from parakeet_worker.errors import Code, JobError

# libsndfile's names of the containers that are taken, and the names under which callers know them.
_CONTAINERS = {"WAV": "WAV", "WAVEX": "WAV", "RF64": "WAV", "FLAC": "FLAC"}
SUPPORTED_FORMATS = tuple(dict.fromkeys(_CONTAINERS.values()))

# Speech is sampled between 6 kHz (old telephone lines) and 192 kHz (studios). A rate far outside is a damaged header.
_LOWEST_RATE, _HIGHEST_RATE = 1_000, 768_000

# Samples of all channels together, so that a header cannot ask for more memory than this.
_BLOCK_SAMPLES = 1 << 18

# libsndfile's SFE_UNIMPLEMENTED: a codec that it knows of and does not have.
_UNIMPLEMENTED = 18

# A streamed FLAC file declares no length, which libsndfile reports as 2^63 - 1 frames.
_UNKNOWN_FRAMES = 2**62

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


def decode(file: BinaryIO, max_seconds: float, abort: Abort) -> Audio:
    """Decode a WAV or FLAC file, block by block. The bytes decide what it is, not a name or a declared type.

    Channels are averaged; other sample rates are resampled (soxr, high quality).

    Args:
        file: The file, seekable and writable: a WAV header that lacks the length of the samples is mended.
        max_seconds: The longest recording that is taken.
        abort: Ends the decoding when its job is gone.

    Raises:
        Aborted: The job is gone.
        JobError: The file is empty, no supported audio, damaged, or too long.
    """
    _check_start(file)
    header = read_header(file)
    if header:
        if not header.is_codec_known:
            raise _unsupported("the WAV file's codec is not supported")
        if header.is_truncated:
            raise _truncated()
        mend_size(file, header)
    file.seek(0)
    try:
        with _Stream(file) as sound:
            _check_form(sound)
            samples, frames = _read(sound, max_seconds, abort)
            sample_rate, declared = int(sound.samplerate), int(sound.frames)
    except soundfile.LibsndfileError as error:
        raise _no_audio(file, error) from error
    if frames < declared < _UNKNOWN_FRAMES:
        raise _truncated()
    if frames == 0:
        raise JobError(Code.EMPTY_AUDIO, "the audio has no samples")
    return Audio(samples, frames / sample_rate, sample_rate)


def _check_start(file: BinaryIO) -> None:
    """Refuse an empty file, and a WAV file behind an ID3 tag, of which libsndfile loses as much as the tag is long."""
    file.seek(0)
    if not file.read(1):
        raise JobError(Code.EMPTY_AUDIO, "the audio file is empty: it has no bytes")
    if _past_id3(file) > 0 and file.read(4) in (b"RIFF", b"RIFX", b"RF64"):
        raise _unsupported("the WAV file begins with an ID3 tag; remove it")


def _past_id3(file: BinaryIO) -> int:
    """Move behind an ID3v2 tag (its size is four bytes of seven bits each), and return the position."""
    file.seek(0)
    tag = file.read(10)
    size = 0
    if tag[:3] == b"ID3" and len(tag) == 10:
        size = 10 + (tag[6] << 21 | tag[7] << 14 | tag[8] << 7 | tag[9])
    return file.seek(size)


def _check_form(sound: soundfile.SoundFile) -> None:
    if sound.format not in _CONTAINERS:
        raise _unsupported(f"the audio is {sound.format}")
    if not _LOWEST_RATE <= sound.samplerate <= _HIGHEST_RATE:
        raise JobError(Code.CORRUPT_AUDIO, f"the audio's sample rate of {sound.samplerate} Hz is not one of speech")


def _read(sound: soundfile.SoundFile, max_seconds: float, abort: Abort) -> tuple[NDArray[np.float32], int]:
    """Return the samples at 16 kHz, shape (samples,), and the number of frames that were read at the file's rate."""
    is_known = sound.frames < _UNKNOWN_FRAMES
    if is_known:
        _check_length(sound.frames / sound.samplerate, max_seconds)
    resampler = None
    if sound.samplerate != SAMPLE_RATE:
        resampler = soxr.ResampleStream(sound.samplerate, SAMPLE_RATE, 1, dtype="float32", quality="HQ")
    block_frames = max(1, _BLOCK_SAMPLES // sound.channels)
    frames = 0
    blocks: list[NDArray[np.float32]] = []
    # Not a frame more than declared is asked for: what follows may be a tag, which is no audio.
    while wanted := min(block_frames, sound.frames - frames):
        abort.check()
        block = sound.read(wanted, dtype="float32", always_2d=True)  # (frames, channels)
        if len(block) == 0:
            break
        frames += len(block)
        _check_length(frames / sound.samplerate, max_seconds, "at least ")
        mono = block.mean(axis=1, dtype=np.float32)
        mono = np.nan_to_num(mono, copy=False, nan=0.0, posinf=0.0, neginf=0.0)
        blocks.append(resampler.resample_chunk(mono) if resampler else mono)
    if resampler:
        blocks.append(resampler.resample_chunk(np.empty(0, np.float32), last=True))
    return _level(np.concatenate(blocks) if blocks else np.empty(0, np.float32)), frames


def _check_length(seconds: float, max_seconds: float, least: str = "") -> None:
    if seconds > max_seconds:
        raise JobError(
            Code.AUDIO_TOO_LONG,
            f"the audio lasts {least}{math.ceil(seconds * 10) / 10:.1f} seconds, "
            f"more than the {max_seconds:g} that are taken: split it",
        )


def _level(samples: NDArray[np.float32]) -> NDArray[np.float32]:
    """Bring samples that nobody scaled into [-1, 1], and cut single samples that are out of all proportion."""
    if np.abs(samples).max(initial=0.0) <= _OVERSHOOT:
        return samples
    usual = float(np.quantile(np.abs(samples), 0.999))
    scaled = samples / np.float32(usual) if usual > _OVERSHOOT else samples
    return np.clip(scaled, -_OVERSHOOT, _OVERSHOOT)


def _no_audio(file: BinaryIO, error: soundfile.LibsndfileError) -> JobError:
    """Say why libsndfile could not read a file: it is damaged, or no audio that we take."""
    start = file.read(4) if _past_id3(file) else file.read(12)
    is_wav = start[:4] in (b"RIFF", b"RF64", b"RIFX") and start[8:12] in (b"WAVE", b"")
    if is_wav and error.code == _UNIMPLEMENTED:
        return _unsupported("the WAV file's codec is not supported")
    if is_wav or start[:4] == b"fLaC":
        return JobError(Code.CORRUPT_AUDIO, "the audio is damaged or truncated and cannot be decoded")
    return _unsupported("the file is not audio, or of a format that is not supported")


def _truncated() -> JobError:
    return JobError(Code.CORRUPT_AUDIO, "the audio is truncated: the file ends before its declared length")


def _unsupported(what: str) -> JobError:
    return JobError(Code.UNSUPPORTED_FORMAT, f"{what}; send {' or '.join(SUPPORTED_FORMATS)}")
