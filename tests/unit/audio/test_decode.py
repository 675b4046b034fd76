"""Decoding: what is taken, what comes out, and what is said of everything else."""

import struct
from typing import Any

import numpy as np
import pytest

from audio_files import decode, encode, tone
from parakeet_worker.asr.types import SAMPLE_RATE
from parakeet_worker.cancellation import CancellationToken, JobCancelledError
from parakeet_worker.errors import Code, JobError


def test_a_job_that_is_gone_is_not_decoded() -> None:
    cancellation = CancellationToken()
    cancellation.cancel()
    with pytest.raises(JobCancelledError):
        decode(encode(tone(0.5)), cancellation)


def refusal(data: bytes) -> JobError:
    with pytest.raises(JobError) as raised:
        decode(data)
    return raised.value


def test_16_khz_mono_comes_out_as_it_is() -> None:
    samples = tone(1.5)
    audio = decode(encode(samples, subtype="FLOAT"))
    assert audio.samples.dtype == np.float32
    np.testing.assert_array_equal(audio.samples, samples)
    assert (audio.duration, audio.sample_rate) == (1.5, 16_000)


@pytest.mark.parametrize("container", ["WAV", "FLAC"])
@pytest.mark.parametrize("rate", [8_000, 11_025, 22_050, 44_100, 48_000, 96_000])
def test_other_rates_are_resampled(container: Any, rate: Any) -> None:
    audio = decode(encode(tone(2.0, rate), rate, container))
    assert (audio.duration, audio.sample_rate) == (2.0, rate)
    assert len(audio.samples) == 2 * SAMPLE_RATE
    np.testing.assert_allclose(audio.samples[800:-800], tone(2.0)[800:-800], atol=2e-4)


def test_a_recording_of_several_blocks_has_no_seams() -> None:
    rate = 44_100
    audio = decode(encode(tone(20.0, rate), rate, subtype="FLOAT"))
    np.testing.assert_allclose(audio.samples[800:-800], tone(20.0)[800:-800], atol=2e-4)


@pytest.mark.parametrize("channels", [1, 2, 6])
def test_channels_are_averaged(channels: Any) -> None:
    left = tone(0.5)
    samples = np.stack([left] + [np.zeros_like(left)] * (channels - 1), axis=1)
    audio = decode(encode(samples, subtype="FLOAT"))
    np.testing.assert_allclose(audio.samples, left / channels, atol=1e-7)


@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW", "ALAW"])
def test_sample_forms(subtype: Any) -> None:
    audio = decode(encode(tone(0.5), subtype=subtype))
    np.testing.assert_allclose(audio.samples, tone(0.5), atol=0.01)


@pytest.mark.parametrize("container", ["WAVEX", "RF64"])
def test_kinds_of_wav(container: Any) -> None:
    audio = decode(encode(tone(0.5), container=container))
    np.testing.assert_allclose(audio.samples, tone(0.5), atol=1e-4)


@pytest.mark.parametrize("size", [0xFFFFFFFF, 0x7FFFFFFF, 0])
def test_wav_written_to_a_pipe_has_no_sizes(size: Any) -> None:
    data = bytearray(encode(tone(0.5)))
    place = data.index(b"data")
    data[place + 4 : place + 8] = struct.pack("<I", size)
    audio = decode(bytes(data))
    assert audio.duration == 0.5
    np.testing.assert_allclose(audio.samples, tone(0.5), atol=1e-4)


@pytest.mark.parametrize("tag", [b"TAG" + bytes(125), b"\x00" * 500, b"APETAGEX" + bytes(80)])
@pytest.mark.parametrize("container", ["WAV", "FLAC"])
def test_what_follows_the_audio_does_not_matter(container: Any, tag: Any) -> None:
    assert decode(encode(tone(0.5), container=container) + tag).duration == 0.5


ID3 = b"ID3\x04\x00\x00\x00\x00\x02\x2c" + bytes(300)


def test_flac_behind_a_tag() -> None:
    assert decode(ID3 + encode(tone(0.5), container="FLAC")).duration == 0.5


def test_a_header_with_a_thousand_channels_asks_for_little_memory() -> None:
    import tracemalloc

    data = encode(np.zeros((1, 1_024), np.float32))
    tracemalloc.start()
    decode(data)
    assert tracemalloc.get_traced_memory()[1] < 20_000_000
    tracemalloc.stop()


def test_one_wild_sample_does_not_mute_the_rest() -> None:
    samples = tone(0.5)
    samples[100] = 1e30
    audio = decode(encode(samples, subtype="FLOAT"))
    np.testing.assert_array_equal(audio.samples[200:], samples[200:])
    assert abs(audio.samples[100]) <= 2


def test_samples_that_are_no_numbers_are_silenced() -> None:
    samples = tone(0.5)
    samples[100:103] = [np.nan, np.inf, -np.inf]
    audio = decode(encode(samples, subtype="FLOAT"))
    assert np.isfinite(audio.samples).all()
    assert not audio.samples[100:103].any()


def with_codec(tag: int) -> bytes:
    """A WAV file whose header names another codec."""
    data = encode(tone(0.5))
    place = data.index(b"fmt ") + 8
    return data[:place] + struct.pack("<H", tag) + data[place + 2 :]


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", Code.EMPTY_AUDIO),
        (encode(np.zeros(0, np.float32)), Code.EMPTY_AUDIO),
        (encode(np.zeros(0, np.float32), container="FLAC"), Code.EMPTY_AUDIO),
        (b"<html><body>Not here</body></html>", Code.UNSUPPORTED_FORMAT),
        (b"\x00" * 5_000, Code.UNSUPPORTED_FORMAT),
        (bytes(range(256)) * 40, Code.UNSUPPORTED_FORMAT),
        (b"R", Code.UNSUPPORTED_FORMAT),
        (encode(tone(2.0))[:-4_000], Code.CORRUPT_AUDIO),
        (encode(tone(2.0))[:20], Code.CORRUPT_AUDIO),
        (encode(tone(2.0), container="FLAC")[:-4_000], Code.CORRUPT_AUDIO),
        (encode(tone(2.0), container="FLAC")[:100], Code.CORRUPT_AUDIO),
        (encode(tone(2.0), container="FLAC")[:10], Code.CORRUPT_AUDIO),
        (encode(tone(2.0), container="FLAC")[:42], Code.CORRUPT_AUDIO),
        (encode(tone(2.0))[:44], Code.CORRUPT_AUDIO),
        (encode(tone(2.0), container="RF64")[:-4_000], Code.CORRUPT_AUDIO),
        (ID3 + encode(tone(2.0), container="FLAC")[:-4_000], Code.CORRUPT_AUDIO),
        (encode(tone(0.01), rate=100), Code.CORRUPT_AUDIO),
        (ID3 + encode(tone(2.0)), Code.UNSUPPORTED_FORMAT),
        (with_codec(0x55), Code.UNSUPPORTED_FORMAT),
        (with_codec(0xFF), Code.UNSUPPORTED_FORMAT),
    ],
)
def test_refusals(data: Any, code: Any) -> None:
    assert refusal(data).code is code


def test_the_message_names_the_alternatives() -> None:
    message = "the file is not audio, or of a format that is not supported; send WAV, FLAC, MP3, OGG, Opus, "
    assert refusal(b"<html></html>").message.startswith(message)
