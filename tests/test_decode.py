"""Decoding: what is taken, what comes out, and what is said of everything else."""

import io
import struct

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from audio_files import encode, tone
from parakeet_worker.audio import SAMPLE_RATE
from parakeet_worker.audio.abort import Abort, Aborted
from parakeet_worker.audio.decode import decode as decode_unless_aborted
from parakeet_worker.errors import Code, JobError

LIMIT = 60.0


def decode(file, limit):
    return decode_unless_aborted(file, limit, Abort())


def test_a_job_that_is_gone_is_not_decoded():
    abort = Abort()
    abort.set()
    with pytest.raises(Aborted):
        decode_unless_aborted(io.BytesIO(encode(tone(0.5))), LIMIT, abort)


def refusal(data: bytes, limit: float = LIMIT) -> JobError:
    with pytest.raises(JobError) as raised:
        decode(io.BytesIO(data), limit)
    return raised.value


def test_16_khz_mono_comes_out_as_it_is():
    samples = tone(1.5)
    audio = decode(io.BytesIO(encode(samples, subtype="FLOAT")), LIMIT)
    assert audio.samples.dtype == np.float32
    np.testing.assert_array_equal(audio.samples, samples)
    assert (audio.duration, audio.sample_rate) == (1.5, 16_000)


@pytest.mark.parametrize("container", ["WAV", "FLAC"])
@pytest.mark.parametrize("rate", [8_000, 11_025, 22_050, 44_100, 48_000, 96_000])
def test_other_rates_are_resampled(container, rate):
    audio = decode(io.BytesIO(encode(tone(2.0, rate), rate, container)), LIMIT)
    assert (audio.duration, audio.sample_rate) == (2.0, rate)
    assert len(audio.samples) == 2 * SAMPLE_RATE
    np.testing.assert_allclose(audio.samples[800:-800], tone(2.0)[800:-800], atol=2e-4)


def test_a_recording_of_several_blocks_has_no_seams():
    rate = 44_100
    audio = decode(io.BytesIO(encode(tone(20.0, rate), rate, subtype="FLOAT")), LIMIT)
    np.testing.assert_allclose(audio.samples[800:-800], tone(20.0)[800:-800], atol=2e-4)


@pytest.mark.parametrize("channels", [1, 2, 6])
def test_channels_are_averaged(channels):
    left = tone(0.5)
    samples = np.stack([left] + [np.zeros_like(left)] * (channels - 1), axis=1)
    audio = decode(io.BytesIO(encode(samples, subtype="FLOAT")), LIMIT)
    np.testing.assert_allclose(audio.samples, left / channels, atol=1e-7)


@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW", "ALAW"])
def test_sample_forms(subtype):
    audio = decode(io.BytesIO(encode(tone(0.5), subtype=subtype)), LIMIT)
    np.testing.assert_allclose(audio.samples, tone(0.5), atol=0.01)


@pytest.mark.parametrize("container", ["WAVEX", "RF64"])
def test_kinds_of_wav(container):
    audio = decode(io.BytesIO(encode(tone(0.5), container=container)), LIMIT)
    np.testing.assert_allclose(audio.samples, tone(0.5), atol=1e-4)


@pytest.mark.parametrize("size", [0xFFFFFFFF, 0x7FFFFFFF, 0])
def test_wav_written_to_a_pipe_has_no_sizes(size):
    data = bytearray(encode(tone(0.5)))
    place = data.index(b"data")
    data[place + 4 : place + 8] = struct.pack("<I", size)
    audio = decode(io.BytesIO(bytes(data)), LIMIT)
    assert audio.duration == 0.5
    np.testing.assert_allclose(audio.samples, tone(0.5), atol=1e-4)


@pytest.mark.parametrize("tag", [b"TAG" + bytes(125), b"\x00" * 500, b"APETAGEX" + bytes(80)])
@pytest.mark.parametrize("container", ["WAV", "FLAC"])
def test_what_follows_the_audio_does_not_matter(container, tag):
    assert decode(io.BytesIO(encode(tone(0.5), container=container) + tag), LIMIT).duration == 0.5


ID3 = b"ID3\x04\x00\x00\x00\x00\x02\x2c" + bytes(300)


def test_flac_behind_a_tag():
    assert decode(io.BytesIO(ID3 + encode(tone(0.5), container="FLAC")), LIMIT).duration == 0.5


def test_a_header_with_a_thousand_channels_asks_for_little_memory():
    import tracemalloc

    data = encode(np.zeros((1, 1_024), np.float32))
    tracemalloc.start()
    decode(io.BytesIO(data), LIMIT)
    assert tracemalloc.get_traced_memory()[1] < 20_000_000
    tracemalloc.stop()


def test_one_wild_sample_does_not_mute_the_rest():
    samples = tone(0.5)
    samples[100] = 1e30
    audio = decode(io.BytesIO(encode(samples, subtype="FLOAT")), LIMIT)
    np.testing.assert_array_equal(audio.samples[200:], samples[200:])
    assert abs(audio.samples[100]) <= 2


def test_samples_that_are_no_numbers_are_silenced():
    samples = tone(0.5)
    samples[100:103] = [np.nan, np.inf, -np.inf]
    audio = decode(io.BytesIO(encode(samples, subtype="FLOAT")), LIMIT)
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
        (encode(tone(0.5), container="AIFF"), Code.UNSUPPORTED_FORMAT),
        (encode(tone(0.5), container="OGG", subtype="VORBIS"), Code.UNSUPPORTED_FORMAT),
        (encode(tone(0.5), container="MP3"), Code.UNSUPPORTED_FORMAT),
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
def test_refusals(data, code):
    assert refusal(data).code is code


def test_the_message_names_the_format_and_the_alternatives():
    assert refusal(encode(tone(0.5), container="AIFF")).message == "the audio is AIFF; send WAV or FLAC"


@pytest.mark.parametrize("container", ["WAV", "FLAC"])
def test_too_long_is_known_from_the_header(container, monkeypatch):
    def no_reading(*_, **__):
        raise AssertionError("decoded before the length was checked")

    data = encode(np.zeros(16_000 * 90, np.float32), container=container)
    monkeypatch.setattr(soundfile.SoundFile, "read", no_reading)
    error = refusal(data)
    assert error.code is Code.AUDIO_TOO_LONG
    assert error.message == "the audio lasts 90.0 seconds, more than the 60 that are taken: split it"


GOOD = {container: encode(tone(0.3), container=container) for container in ("WAV", "FLAC")}


@settings(max_examples=500, deadline=None)
@given(
    st.sampled_from(["WAV", "FLAC"]),
    st.lists(st.tuples(st.integers(0, 400), st.binary(max_size=6)), max_size=5),
    st.integers(0, 12_000),
)
def test_damaged_files_give_samples_or_a_refusal(container, edits, length):
    data = bytearray(GOOD[container])
    for place, patch in edits:
        data[place : place + len(patch)] = patch
    try:
        audio = decode(io.BytesIO(bytes(data[:length])), LIMIT)
    except JobError as error:
        assert error.message
    else:
        assert np.isfinite(audio.samples).all()
        assert 0 < audio.duration <= LIMIT
