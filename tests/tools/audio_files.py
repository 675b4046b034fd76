"""Audio files made on the spot."""

import base64
import io
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import av
import numpy as np
import soundfile
import soxr

from parakeet_worker.audio.decode import open_reader
from parakeet_worker.cancellation import CancellationToken


def encode(samples: np.ndarray, rate: int = 16_000, container: str = "WAV", subtype: str | None = None) -> bytes:
    """Encode samples, shape (samples,) or (samples, channels)."""
    file = io.BytesIO()
    channels = samples.shape[1] if samples.ndim == 2 else 1
    with soundfile.SoundFile(file, "w", rate, channels, subtype, format=container) as sound:
        # libsndfile's Vorbis encoder overflows the stack with more at once.
        for start in range(0, len(samples), 100_000):
            sound.write(samples[start : start + 100_000])
    return file.getvalue()


def reencode(clip: bytes, rate: int, channels: int, container: str, subtype: str | None) -> bytes:
    """Give a 16 kHz mono clip another form, the same sound in every channel."""
    samples, _ = soundfile.read(io.BytesIO(clip), dtype="float32")
    resampled = soxr.resample(samples, 16_000, rate)
    return encode(np.stack([resampled] * channels, axis=1), rate, container, subtype)


def tone(seconds: float, rate: int = 16_000, pitch: float = 440) -> np.ndarray:
    return (0.1 * np.sin(2 * np.pi * pitch * np.arange(int(seconds * rate)) / rate)).astype(np.float32)


def data_url(data: bytes, media_type: str = "audio/wav") -> str:
    return f"data:{media_type};base64,{base64.b64encode(data).decode()}"


def contain(
    samples: np.ndarray,
    container: str,
    codec: str,
    rate: int = 48_000,
    layout: str = "stereo",
    quality: int | None = None,
    kbps: float | None = None,
    **options: str,
) -> bytes:
    """Put 16 kHz mono samples into a container, by FFmpeg's names of it and of the codec."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "sound"
        _write(
            path,
            samples,
            container,
            codec,
            rate,
            layout,
            quality,
            kbps or (12.2 if rate == 8_000 else 96),
            {name: str(value) for name, value in options.items()},
        )
        return path.read_bytes()


def _write(
    path: Path,
    samples: np.ndarray,
    container: str,
    codec: str,
    rate: int,
    layout: str,
    quality: int | None,
    kbps: float,
    options: dict[str, str],
) -> None:
    with av.open(str(path), "w", format=container, options=options) as output:
        stream: Any = output.add_stream(codec, rate=rate, layout=layout)
        stream.bit_rate = round(kbps * 1_000)
        if quality is not None:  # and whatever bit rate that takes
            stream.codec_context.flags |= av.codec.context.Flags.qscale
            stream.codec_context.global_quality = quality * 118  # FFmpeg's FF_QP2LAMBDA
        frame = av.AudioFrame.from_ndarray((samples * 32_767).astype(np.int16)[None], format="s16", layout="mono")
        frame.sample_rate = 16_000
        resampler = av.AudioResampler(
            stream.codec_context.format, layout, rate, stream.codec_context.frame_size or None
        )
        for converted in resampler.resample(frame) + resampler.resample(None):
            output.mux(stream.encode(converted))
        output.mux(stream.encode(None))


@dataclass(frozen=True)
class Decoded:
    samples: np.ndarray
    duration: float
    sample_rate: int
    declared: float | None


def decode(file: bytes | BinaryIO, cancellation: CancellationToken | None = None) -> Decoded:
    """Decode a file to its end."""
    with open_reader(
        io.BytesIO(file) if isinstance(file, bytes) else file, cancellation or CancellationToken()
    ) as sound:
        blocks = list(sound.blocks())
        samples = np.concatenate(blocks)
        return Decoded(samples, sound.decoded_seconds, sound.sample_rate, sound.declared_seconds)
