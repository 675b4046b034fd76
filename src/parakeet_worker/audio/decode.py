"""From the bytes of an audio file to the samples that the model hears: 16 kHz mono float32."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO, Protocol

import numpy as np
import soundfile
from numpy.typing import NDArray

from parakeet_worker.audio.abort import Abort
from parakeet_worker.audio.budget import TooMuchWork
from parakeet_worker.audio.chains import is_chained
from parakeet_worker.audio.container import ContainerError, ContainerFile
from parakeet_worker.audio.sndfile import SoundFile
from parakeet_worker.audio.sniff import SUPPORTED_FORMATS, Kind, has_tag, sniff
from parakeet_worker.audio.wav import mend_size, read_header
from parakeet_worker.errors import Code, JobError

# Speech is sampled between 6 kHz (old telephone lines) and 192 kHz (studios). A rate far outside is a damaged header.
_LOWEST_RATE, _HIGHEST_RATE = 1_000, 768_000

# libsndfile's SFE_UNIMPLEMENTED: a codec that it knows of and does not have.
_UNIMPLEMENTED = 18

# The length of a compressed stream is an estimate. Less than this part of it is a truncated file.
_LEAST_PART = 0.5


class Sound(Protocol):
    """A recording, open for one pass from its start to its end.

    Attributes:
        sample_rate: The file's, in hertz.
    """

    sample_rate: int

    @property
    def declared_seconds(self) -> float | None:
        """Its length by its header, or None where that does not say."""
        ...

    @property
    def decoded_seconds(self) -> float:
        """Length of what has been decoded so far, from the file's own frames and rate."""
        ...

    def lengths(self) -> Iterator[float]:
        """Decode what does not declare its length, and keep nothing: yield the seconds so far.

        Where that costs little beside transcribing a recording that is too long. `blocks` raises the same.
        """
        ...

    def blocks(self) -> Iterator[NDArray[np.float32]]:
        """Decode: 16 kHz mono float32 blocks, each of shape (samples,), in order.

        Raises:
            Aborted: The job is gone.
            JobError: The file is damaged or truncated, or has no samples.
        """
        ...


@contextmanager
def open_recording(file: BinaryIO, abort: Abort) -> Iterator[Sound]:
    """Open an audio file, or the sound track of another. The bytes decide what it is, not a name or a declared type.

    Channels are averaged; other sample rates are resampled.

    Args:
        file: The file, seekable and writable: a WAV header that lacks the length of the samples is mended.
        abort: Ends the decoding when its job is gone.

    Raises:
        JobError: The file is empty, no supported audio, or damaged.
    """
    kind = _kind(file)
    try:
        sound = _open(file, kind, abort)
    except TooMuchWork as error:
        raise _too_much_work() from error
    try:
        if not _LOWEST_RATE <= sound.sample_rate <= _HIGHEST_RATE:
            raise JobError(
                Code.CORRUPT_AUDIO, f"the audio's sample rate of {sound.sample_rate} Hz is not one of speech"
            )
        yield _Whole(sound, kind)
    finally:
        sound.close()


class _Whole:
    """A sound that is not truncated, empty or damaged, or says so to the caller."""

    def __init__(self, sound: SoundFile | ContainerFile, kind: Kind) -> None:
        self.sample_rate = sound.sample_rate
        self._sound = sound
        self._kind = kind

    @property
    def declared_seconds(self) -> float | None:
        return self._sound.declared_seconds

    @property
    def decoded_seconds(self) -> float:
        return self._sound.decoded_seconds

    def lengths(self) -> Iterator[float]:
        if self.declared_seconds is None and isinstance(self._sound, SoundFile):
            try:
                yield from self._sound.lengths()
            except soundfile.LibsndfileError as error:
                raise _damaged() from error
            except TooMuchWork as error:
                raise _too_much_work() from error

    def blocks(self) -> Iterator[NDArray[np.float32]]:
        try:
            yield from self._sound.blocks()
        except (soundfile.LibsndfileError, ContainerError) as error:
            raise _damaged() from error
        except TooMuchWork as error:
            raise _too_much_work() from error
        declared, decoded = self.declared_seconds, self.decoded_seconds
        if declared is not None and decoded < declared * (1.0 if self._kind.is_exact else _LEAST_PART):
            raise _truncated()
        if decoded == 0:
            raise JobError(Code.EMPTY_AUDIO, "the audio has no samples")


def _kind(file: BinaryIO) -> Kind:
    """Tell what a file is; refuse an empty one, and what is no audio."""
    file.seek(0)
    if not file.read(1):
        raise JobError(Code.EMPTY_AUDIO, "the audio file is empty: it has no bytes")
    kind = sniff(file)
    if kind is None:
        raise _unsupported("the file is not audio, or of a format that is not supported")
    if kind.name == "WAV":
        if has_tag(file):
            # libsndfile loses as much of it as the tag is long.
            raise _unsupported("the WAV file begins with an ID3 tag; remove it")
        header = read_header(file)
        if header:
            if not header.is_codec_known:
                raise _unsupported("the WAV file's codec is not supported")
            if header.is_truncated:
                raise _truncated()
            mend_size(file, header)
    file.seek(0)
    return kind


def _open(file: BinaryIO, kind: Kind, abort: Abort) -> SoundFile | ContainerFile:
    if kind.is_sound_file and not is_chained(file, kind, abort):
        file.seek(0)
        try:
            return SoundFile(file, abort)
        except soundfile.LibsndfileError as error:
            if kind.demuxer is None:
                if error.code == _UNIMPLEMENTED:
                    raise _unsupported(f"the {kind.name} file's codec is not supported") from error
                raise _damaged() from error
    assert kind.demuxer  # noqa: S101 - a file is one of the two, or both
    try:
        return ContainerFile(file, kind.demuxer, abort)
    except ContainerError as error:
        if str(error) == "truncated":
            raise _truncated() from error
        if str(error) == "no_sound":
            raise _unsupported("the file has no sound track") from error
        if str(error) == "codec":
            raise _unsupported(f"the {kind.name} file's codec is not supported") from error
        raise _damaged() from error


def _damaged() -> JobError:
    return JobError(Code.CORRUPT_AUDIO, "the audio is damaged or truncated and cannot be decoded")


def _truncated() -> JobError:
    return JobError(Code.CORRUPT_AUDIO, "the audio is truncated: the file ends before its declared length")


def _too_much_work() -> JobError:
    return JobError(
        Code.AUDIO_TOO_LARGE, "the audio unpacks to too many samples for its size; send at most 48 kHz and two channels"
    )


def _unsupported(what: str) -> JobError:
    formats = f"{', '.join(SUPPORTED_FORMATS[:-1])} or {SUPPORTED_FORMATS[-1]}"
    return JobError(Code.UNSUPPORTED_FORMAT, f"{what}; send {formats}")
