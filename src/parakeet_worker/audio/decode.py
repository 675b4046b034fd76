"""Decoding an audio file to the samples that the model takes: 16 kHz mono float32."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO, Protocol

import numpy as np
import soundfile
from numpy.typing import NDArray

from parakeet_worker.audio.formats.budget import TooManySamplesError
from parakeet_worker.audio.formats.container import ContainerError, ContainerFile
from parakeet_worker.audio.formats.ogg import is_chained
from parakeet_worker.audio.formats.sndfile import SoundFile
from parakeet_worker.audio.formats.sniff import SUPPORTED_FORMATS, AudioFormat, has_tag, sniff
from parakeet_worker.audio.formats.wav import mend_size, read_header
from parakeet_worker.cancellation import CancellationToken
from parakeet_worker.errors import Code, JobError

# Speech is sampled between 6 kHz (old telephone lines) and 192 kHz (studios). A rate far outside is a damaged header.
_LOWEST_RATE, _HIGHEST_RATE = 1_000, 768_000

# libsndfile's SFE_UNIMPLEMENTED: it recognizes the codec, but has no decoder for it.
_UNIMPLEMENTED = 18

# The declared length of a compressed stream is an estimate. A file that decodes to less than this share is truncated.
_LEAST_SHARE = 0.5


class AudioReader(Protocol):
    """An open recording, which is decoded once from start to end.

    Attributes:
        sample_rate: Sample rate of the file, in hertz.
    """

    sample_rate: int

    @property
    def declared_seconds(self) -> float | None:
        """Length that the header declares, in seconds, or None if it declares none."""
        ...

    @property
    def decoded_seconds(self) -> float:
        """Length decoded so far, in seconds: frames of the file divided by its sample rate."""
        ...

    def lengths(self) -> Iterator[float]:
        """Measure a recording whose length is not declared: decode it, discard the samples, yield the seconds so far.

        So a recording that is too long is refused before any of it is transcribed. Yields nothing if the length is
        declared, or if the file has a decoder process, which cannot start again at the beginning.

        Raises:
            JobCancelledError: The job was cancelled.
            JobError: The file is damaged.
        """
        ...

    def blocks(self) -> Iterator[NDArray[np.float32]]:
        """Decode the recording and yield it in blocks: 16 kHz mono float32, each of shape (samples,), in order.

        Raises:
            JobCancelledError: The job was cancelled.
            JobError: The file is damaged or truncated, has no samples or too many for its size, or the worker has no
                resources to decode it.
        """
        ...


@contextmanager
def open_reader(file: BinaryIO, cancellation: CancellationToken) -> Iterator[AudioReader]:
    """Open an audio file, or the audio track of a video file.

    The format is detected from the file's bytes, not from a name or a declared type. Channels are averaged, and other
    sample rates are resampled to 16 kHz.

    Args:
        file: The file, seekable and writable. If a WAV header lacks the length of the samples, it is repaired in place.
        cancellation: Stops the decoding when the job is cancelled.

    Raises:
        JobCancelledError: The job was cancelled.
        JobError: The file is empty, not supported or damaged, or the worker has no resources to decode it.
    """
    audio_format = _detect_format(file)
    try:
        reader = _open(file, audio_format, cancellation)
    except TooManySamplesError as error:
        raise _too_much_work() from error
    try:
        if not _LOWEST_RATE <= reader.sample_rate <= _HIGHEST_RATE:
            raise JobError(
                Code.CORRUPT_AUDIO, f"the audio's sample rate of {reader.sample_rate} Hz is not one of speech"
            )
        yield _CheckedReader(reader, audio_format)
    finally:
        reader.close()


class _CheckedReader:
    """An `AudioReader` that raises a JobError if the file turns out to be truncated, empty or damaged."""

    def __init__(self, reader: SoundFile | ContainerFile, audio_format: AudioFormat) -> None:
        self.sample_rate = reader.sample_rate
        self._reader = reader
        self._format = audio_format

    @property
    def declared_seconds(self) -> float | None:
        return self._reader.declared_seconds

    @property
    def decoded_seconds(self) -> float:
        return self._reader.decoded_seconds

    def lengths(self) -> Iterator[float]:
        if self.declared_seconds is None and isinstance(self._reader, SoundFile):
            try:
                yield from self._reader.lengths()
            except soundfile.LibsndfileError as error:
                raise _damaged() from error
            except TooManySamplesError as error:
                raise _too_much_work() from error

    def blocks(self) -> Iterator[NDArray[np.float32]]:
        try:
            yield from self._reader.blocks()
        except (soundfile.LibsndfileError, ContainerError) as error:
            raise _damaged() from error
        except TooManySamplesError as error:
            raise _too_much_work() from error
        declared, decoded = self.declared_seconds, self.decoded_seconds
        if declared is not None and decoded < declared * (1.0 if self._format.is_exact else _LEAST_SHARE):
            raise _truncated()
        if decoded == 0:
            raise JobError(Code.EMPTY_AUDIO, "the audio has no samples")


def _detect_format(file: BinaryIO) -> AudioFormat:
    """Return the format of a file, positioned at its start. Repair a WAV header without a length.

    Raises:
        JobError: The file is empty or of no supported format, or it is a WAV file that is truncated, has an
            unsupported codec or begins with a tag.
    """
    file.seek(0)
    if not file.read(1):
        raise JobError(Code.EMPTY_AUDIO, "the audio file is empty: it has no bytes")
    audio_format = sniff(file)
    if audio_format is None:
        raise _unsupported("the file is not audio, or of a format that is not supported")
    if audio_format.name == "WAV":
        if has_tag(file):
            # libsndfile would drop as many bytes of samples as the tag has.
            raise _unsupported("the WAV file begins with an ID3 tag; remove it")
        header = read_header(file)
        if header:
            if not header.is_codec_known:
                raise _unsupported("the WAV file's codec is not supported")
            if header.is_truncated:
                raise _truncated()
            mend_size(file, header)
    file.seek(0)
    return audio_format


def _open(file: BinaryIO, audio_format: AudioFormat, cancellation: CancellationToken) -> SoundFile | ContainerFile:
    """Open a file with libsndfile, or with its demuxer if libsndfile cannot read it."""
    is_chained_ogg = audio_format.name == "OGG" and is_chained(file, cancellation)
    if audio_format.is_sound_file and not is_chained_ogg:
        file.seek(0)
        try:
            return SoundFile(file, cancellation)
        except soundfile.LibsndfileError as error:
            if audio_format.demuxer is None:
                if error.code == _UNIMPLEMENTED:
                    raise _unsupported(f"the {audio_format.name} file's codec is not supported") from error
                raise _damaged() from error
    assert audio_format.demuxer  # noqa: S101 - every format has one of the two decoders, or both
    try:
        return ContainerFile(file, audio_format.demuxer, cancellation)
    except ContainerError as error:
        if str(error) == "truncated":
            raise _truncated() from error
        if str(error) == "no_audio_track":
            raise _unsupported("the file has no sound track") from error
        if str(error) == "codec":
            raise _unsupported(f"the {audio_format.name} file's codec is not supported") from error
        raise _damaged() from error


def _damaged() -> JobError:
    return JobError(Code.CORRUPT_AUDIO, "the audio is damaged or truncated and cannot be decoded")


def _truncated() -> JobError:
    return JobError(Code.CORRUPT_AUDIO, "the audio is truncated: the file ends before its declared length")


def _too_much_work() -> JobError:
    return JobError(
        Code.AUDIO_TOO_LARGE, "the audio unpacks to too many samples for its size; send at most 48 kHz and two channels"
    )


def _unsupported(reason: str) -> JobError:
    formats = f"{', '.join(SUPPORTED_FORMATS[:-1])} or {SUPPORTED_FORMATS[-1]}"
    return JobError(Code.UNSUPPORTED_FORMAT, f"{reason}; send {formats}")
