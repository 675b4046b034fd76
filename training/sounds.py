"""Sounds behind the speech (noise, hum, tones), and what speech goes through: rooms, telephones and codecs."""

import io
from collections.abc import Callable

import av
import numpy as np
import soxr
from numpy.typing import NDArray
from scipy.signal import fftconvolve

from training.voice import SAMPLE_RATE

Samples = NDArray[np.float32]
Draw = np.random.Generator


def noise(count: int, draw: Draw) -> Samples:
    """Return noise with an RMS of 1: white, pink or brown, or something between them."""
    return coloured(draw.standard_normal(count), -draw.uniform(0, 1))


def coloured(white: NDArray[np.float64], exponent: float) -> Samples:
    """Return white noise with another colour, and an RMS of 1.

    Args:
        white: Samples, at 16 kHz.
        exponent: Above 20 Hz, the amplitude is the frequency to this power: 0 is white, -0.5 pink, -1 brown.
    """
    frequencies = np.maximum(np.fft.rfftfreq(len(white), 1 / SAMPLE_RATE), 20.0)
    return _unit(np.fft.irfft(np.fft.rfft(white) * frequencies**exponent, len(white)))


def hum(count: int, draw: Draw) -> Samples:
    """Return the hum of the mains with some overtones; its RMS is 1."""
    base = draw.choice([50.0, 60.0])
    times = np.arange(count) / SAMPLE_RATE
    overtones = np.arange(1, draw.integers(3, 12))
    phases = draw.uniform(0, 2 * np.pi, len(overtones))
    weights = draw.uniform(0, 1, len(overtones)) / overtones
    waves = weights[:, None] * np.sin(2 * np.pi * base * overtones[:, None] * times + phases[:, None])
    return _unit(waves.sum(axis=0))


def tones(count: int, draw: Draw) -> Samples:
    """Return chords of tones that fade like plucked strings; the RMS is 1."""
    music = np.zeros(count)
    start = 0
    while start < count:
        length = int(draw.uniform(0.15, 1.2) * SAMPLE_RATE)
        times = np.arange(min(length, count - start)) / SAMPLE_RATE
        fade = np.exp(-times * draw.uniform(1, 8))
        for _ in range(draw.integers(1, 4)):
            pitch = 110 * 2 ** (draw.integers(0, 36) / 12)
            for overtone in range(1, draw.integers(2, 6)):
                music[start : start + length] += fade * np.sin(2 * np.pi * pitch * overtone * times) / overtone
        start += length
    return _unit(music)


BACKGROUNDS: tuple[Callable[[int, Draw], Samples], ...] = (noise, noise, noise, hum, tones)


def _unit(samples: NDArray[np.float64]) -> Samples:
    return (samples / max(float(np.sqrt(np.mean(samples**2))), 1e-9)).astype(np.float32)


def room(samples: Samples, draw: Draw) -> Samples:
    """Return the samples with the echo of a room: noise that has decayed by 60 dB after 0.15 to 0.7 s."""
    decay = draw.uniform(0.15, 0.7)
    times = np.arange(int(decay * SAMPLE_RATE)) / SAMPLE_RATE
    response = draw.standard_normal(len(times)) * 10 ** (-3 * times / decay)
    response[: int(0.002 * SAMPLE_RATE)] = 0
    # The direct sound has no delay, so no word moves. The echo has -12 to +3 dB of its energy.
    response *= 10 ** (draw.uniform(-12, 3) / 20) / np.sqrt(np.sum(response**2))
    response[0] = 1
    echoing: NDArray[np.float64] = fftconvolve(samples, response)[: len(samples)]
    return echoing.astype(np.float32)


def telephone(samples: Samples, draw: Draw) -> Samples:
    """Return the samples after a telephone: sampled at 8 kHz, and often with 8 bits of A-law (ITU-T G.711)."""
    narrow = soxr.resample(samples, SAMPLE_RATE, SAMPLE_RATE // 2)
    if draw.random() < 0.7:
        narrow = _a_law(np.clip(narrow, -1, 1))
    wide = soxr.resample(narrow, SAMPLE_RATE // 2, SAMPLE_RATE)
    return _fit(wide, len(samples))


def _a_law(samples: Samples) -> Samples:
    """Compress, round to 8 bits and expand by the formula that G.711 approximates, with A = 87.6."""
    a = 87.6
    scale = 1 + np.log(a)
    size = np.abs(samples)
    small = size < 1 / a
    packed = np.where(small, a * size, 1 + np.log(np.maximum(a * size, 1))) / scale
    packed = np.round(packed * 127) / 127
    unpacked = np.where(packed < 1 / scale, packed * scale / a, np.exp(packed * scale - 1) / a)
    signed: NDArray[np.float64] = np.sign(samples) * unpacked
    return signed.astype(np.float32)


def mp3(samples: Samples, draw: Draw) -> Samples:
    """Return the samples after MP3 at 16 to 48 kbit/s."""
    return _through_codec(samples, "mp3", "mp3", int(draw.choice([16, 24, 32, 48])))


def opus(samples: Samples, draw: Draw) -> Samples:
    """Return the samples after Opus at 8 to 24 kbit/s."""
    return _through_codec(samples, "ogg", "libopus", int(draw.choice([8, 12, 16, 24])))


def _through_codec(samples: Samples, container: str, codec: str, kilobits: int) -> Samples:
    """Encode and decode with FFmpeg, which removes the codec's delay."""
    file = io.BytesIO()
    with av.open(file, "w", format=container) as output:
        stream = output.add_stream(codec, rate=SAMPLE_RATE, layout="mono", format="fltp" if codec == "mp3" else "flt")
        if not isinstance(stream, av.AudioStream):
            raise TypeError(f"{codec} is no codec of audio")
        stream.bit_rate = kilobits * 1000
        frame = av.AudioFrame.from_ndarray(samples[None], format="flt", layout="mono")
        frame.rate = SAMPLE_RATE
        resampler = av.AudioResampler(
            format=stream.format, layout="mono", rate=SAMPLE_RATE, frame_size=stream.frame_size
        )
        for part in [*resampler.resample(frame), *resampler.resample(None)]:
            output.mux(stream.encode(part))
        output.mux(stream.encode(None))
    file.seek(0)
    resampler = av.AudioResampler(format="flt", layout="mono", rate=SAMPLE_RATE)
    with av.open(file, "r") as encoded:
        frames = [part for frame in encoded.decode(audio=0) for part in resampler.resample(frame)]
    frames += resampler.resample(None)
    return _fit(np.concatenate([frame.to_ndarray()[0] for frame in frames]), len(samples))


def _fit(samples: Samples, count: int) -> Samples:
    fitted = np.zeros(count, np.float32)
    fitted[: len(samples)] = samples[:count]
    return fitted


CHANNELS: tuple[Callable[[Samples, Draw], Samples], ...] = (telephone, mp3, opus)
