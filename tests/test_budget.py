"""No small file costs much: what silence unpacks to is bounded, and a quiet recording is taken."""

import io
import time

import av
import pytest

from audio_files import contain, data_url, decode, tone
from flac_files import silence
from parakeet_worker.audio.abort import Abort
from parakeet_worker.audio.budget import is_affordable
from parakeet_worker.audio.decode import open_recording
from parakeet_worker.errors import Code, JobError
from parakeet_worker.progress import Progress
from parakeet_worker.record import Record
from parakeet_worker.transcription import Transcription
from test_transcription import LIMITS, Model


def in_matroska(data: bytes) -> bytes:
    file = io.BytesIO()
    with av.open(io.BytesIO(data)) as source, av.open(file, "w", format="matroska") as target:
        stream = target.add_stream_from_template(source.streams.audio[0])
        for packet in source.demux():
            if packet.size:
                packet.stream = stream
                target.mux(packet)
    return file.getvalue()


@pytest.mark.parametrize("is_declared", [True, False])
@pytest.mark.parametrize("wrap", [bytes, in_matroska])
@pytest.mark.parametrize(("rate", "channels"), [(655_350, 8), (655_350, 1), (192_000, 8), (384_000, 2)])
def test_silence_of_absurd_forms_is_refused_at_once(rate, channels, wrap, is_declared):
    data = wrap(silence(120, rate, channels, is_declared=is_declared))
    started = time.process_time()
    with pytest.raises(JobError, match="too many samples for its size; send at most 48 kHz") as raised:
        decode(data)
    assert raised.value.code is Code.AUDIO_TOO_LARGE
    assert time.process_time() - started < 1


@pytest.mark.parametrize("is_declared", [True, False])
@pytest.mark.parametrize(("rate", "channels"), [(16_000, 1), (48_000, 2), (8_000, 8)])
def test_quiet_recordings_are_taken_however_small_they_are(rate, channels, is_declared):
    assert decode(silence(600, rate, channels, is_declared=is_declared)).duration == pytest.approx(600, abs=10)


@pytest.mark.parametrize(("rate", "channels"), [(96_000, 2), (192_000, 1), (48_000, 6), (192_000, 8)])
def test_quiet_recordings_of_studios_are_taken_as_encoders_write_them(rate, channels):
    assert decode(silence(60, rate, channels, block=4_096)).duration == pytest.approx(60, abs=1)


@pytest.mark.parametrize(("rate", "channels"), [(16_000, 1), (48_000, 2)])
def test_an_hour_of_silence_is_affordable(rate, channels):
    with open_recording(io.BytesIO(silence(3_600, rate, channels)), Abort()) as sound:
        assert sound.declared_seconds == pytest.approx(3_600, abs=10)


def test_silence_of_lossy_codecs_is_taken():
    for container, codec in (("ogg", "libopus"), ("webm", "libopus"), ("ipod", "aac"), ("mp3", "libmp3lame")):
        assert decode(contain(tone(20.0) * 0, container, codec)).duration == pytest.approx(20, abs=0.2)


def test_undeclared_hours_are_counted_before_anything_is_transcribed():
    model = Model()
    transcription = Transcription(model, LIMITS, Progress(lambda *_: None), Record())
    transcription.fetch(data_url(silence(5 * 3_600, 16_000, 1, is_declared=False)))
    with pytest.raises(JobError, match=r"the audio lasts at least 6\d\.\d seconds, more than the 60") as raised:
        transcription.decode()
    assert raised.value.code is Code.AUDIO_TOO_LONG
    assert model.lengths == []


def test_sound_is_always_affordable():
    for rate, channels in ((192_000, 8), (768_000, 2), (44_100, 6)):
        assert is_affordable(rate * 3_600, channels, rate, rate * 3_600 * channels // 4)
    assert is_affordable(600 * 48_000, 64, 48_000, 600 * 48_000 * 64 * 2)
    assert is_affordable(4 * 3_600 * 48_000, 2, 48_000, 0)
    assert not is_affordable(600 * 655_350, 8, 655_350, 213_000)
    assert not is_affordable(600 * 655_350, 8, 655_350, 3_484_000)
