"""Silence: of absurd forms it is refused at once, as recorders write it it is taken."""

import io
import time
from typing import Any

import av
import pytest

from audio_files import contain, decode, tone
from flac_files import silence
from parakeet_worker.audio.decode import open_reader
from parakeet_worker.cancellation import CancellationToken
from parakeet_worker.errors import Code, JobError


def in_matroska(data: bytes) -> bytes:
    file = io.BytesIO()
    with av.open(io.BytesIO(data)) as source, av.open(file, "w", format="matroska") as target:
        stream = target.add_stream_from_template(source.streams.audio[0])
        for packet in source.demux():  # type: ignore[union-attr]
            if packet.size:
                packet.stream = stream
                target.mux(packet)
    return file.getvalue()


@pytest.mark.parametrize("is_declared", [True, False])
@pytest.mark.parametrize("wrap", [bytes, in_matroska])
@pytest.mark.parametrize(("rate", "channels"), [(655_350, 8), (655_350, 1), (192_000, 8), (384_000, 2)])
def test_silence_of_absurd_forms_is_refused_at_once(rate: Any, channels: Any, wrap: Any, is_declared: Any) -> None:
    data = wrap(silence(120, rate, channels, is_declared=is_declared))
    started = time.process_time()
    with pytest.raises(JobError, match="too many samples for its size; send at most 48 kHz") as raised:
        decode(data)
    assert raised.value.code is Code.AUDIO_TOO_LARGE
    assert time.process_time() - started < 1


@pytest.mark.parametrize("is_declared", [True, False])
@pytest.mark.parametrize(("rate", "channels"), [(16_000, 1), (48_000, 2), (8_000, 8)])
def test_quiet_recordings_are_taken_however_small_they_are(rate: Any, channels: Any, is_declared: Any) -> None:
    assert decode(silence(600, rate, channels, is_declared=is_declared)).duration == pytest.approx(600, abs=10)


@pytest.mark.parametrize(("rate", "channels"), [(96_000, 2), (192_000, 1), (48_000, 6), (192_000, 8)])
def test_quiet_recordings_of_studios_are_taken_as_encoders_write_them(rate: Any, channels: Any) -> None:
    assert decode(silence(60, rate, channels, block=4_096)).duration == pytest.approx(60, abs=1)


@pytest.mark.parametrize(("rate", "channels"), [(16_000, 1), (48_000, 2)])
def test_an_hour_of_silence_is_affordable(rate: Any, channels: Any) -> None:
    with open_reader(io.BytesIO(silence(3_600, rate, channels)), CancellationToken()) as sound:
        assert sound.declared_seconds == pytest.approx(3_600, abs=10)


def test_silence_of_lossy_codecs_is_taken() -> None:
    for container, codec in (("ogg", "libopus"), ("webm", "libopus"), ("ipod", "aac"), ("mp3", "libmp3lame")):
        assert decode(contain(tone(20.0) * 0, container, codec)).duration == pytest.approx(20, abs=0.2)
