"""Audio files made on the spot."""

import base64
import io

import numpy as np
import soundfile
import soxr


def encode(samples: np.ndarray, rate: int = 16_000, container: str = "WAV", subtype: str | None = None) -> bytes:
    """Encode samples, shape (samples,) or (samples, channels)."""
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format=container, subtype=subtype)
    return file.getvalue()


def reencode(clip: bytes, rate: int, channels: int, container: str, subtype: str | None) -> bytes:
    """Give a 16 kHz mono clip another form, the same sound in every channel."""
    samples, _ = soundfile.read(io.BytesIO(clip), dtype="float32")
    resampled = soxr.resample(samples, 16_000, rate)
    return encode(np.stack([resampled] * channels, axis=1), rate, container, subtype)


def tone(seconds: float, rate: int = 16_000) -> np.ndarray:
    return (0.1 * np.sin(2 * np.pi * 440 * np.arange(int(seconds * rate)) / rate)).astype(np.float32)


def data_url(data: bytes, media_type: str = "audio/wav") -> str:
    return f"data:{media_type};base64,{base64.b64encode(data).decode()}"
