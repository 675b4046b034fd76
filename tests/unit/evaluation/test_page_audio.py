"""The audio of a page: which samples it is made of, and that it is them after compression."""

import base64
import io
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile

from audio_files import encode, tone
from page_audio import compress, is_remote, read_samples
from parakeet_worker.errors import JobError
from project import Clip


def test_a_stretch_is_cut_to_the_sample(clips: list[Clip]) -> None:
    whole, _ = soundfile.read(clips[3].path, dtype="float32")
    np.testing.assert_array_equal(read_samples(str(clips[3].path), 1.0, 2.5), whole[16_000:40_000])
    np.testing.assert_array_equal(read_samples(str(clips[3].path), 0.0, 60.0), whole)
    assert len(read_samples(str(clips[3].path), 50.0, 60.0)) == 0


def test_other_rates_and_channels_are_what_the_model_gets(tmp_path: Path) -> None:
    stereo = np.stack([tone(2.0, 48_000), np.zeros(96_000, np.float32)], axis=1)
    soundfile.write(tmp_path / "stereo.wav", stereo, 48_000)
    samples = read_samples(str(tmp_path / "stereo.wav"), 0.5, 1.5)
    assert samples.shape == (16_000,)
    assert np.abs(samples).max() == pytest.approx(np.abs(stereo).max() / 2, rel=0.05)


def test_a_file_is_not_changed(tmp_path: Path) -> None:
    path = tmp_path / "stream.wav"
    data = bytearray(encode(tone(1.0)))
    data[4:8] = data[data.index(b"data") + 4 : data.index(b"data") + 8] = b"\xff" * 4  # as a stream has it
    path.write_bytes(data)
    assert len(read_samples(str(path), 0.0, 60.0)) == 16_000
    assert path.read_bytes() == data


def test_urls_of_the_bytes_are_read(clips: list[Clip], tmp_path: Path) -> None:
    path = tmp_path / "a file.flac"
    path.write_bytes(clips[0].path.read_bytes())
    url = f"DATA:audio/flac;base64,{base64.b64encode(path.read_bytes()).decode()}"
    for audio in (path.as_uri(), url):
        np.testing.assert_array_equal(read_samples(audio, 0.0, 9.0), read_samples(str(path), 0.0, 9.0))


def test_what_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_samples(str(tmp_path / "missing.wav"), 0.0, 1.0)
    (tmp_path / "text.wav").write_text("no audio")
    with pytest.raises(JobError, match="not audio"):
        read_samples(str(tmp_path / "text.wav"), 0.0, 1.0)


@pytest.mark.parametrize(
    ("audio", "expected"),
    [("https://a/b.wav", True), ("HTTP://a/b.wav", True), ("file:///a.wav", False), ("data:,", False), ("/a", False)],
)
def test_is_remote(audio: str, expected: bool) -> None:
    assert is_remote(audio) is expected


def test_compressed_speech_is_the_same_speech_at_the_same_time(clips: list[Clip]) -> None:
    samples = read_samples(str(clips[3].path), 0.0, 60.0)
    data = compress(samples)
    with av.open(io.BytesIO(data)) as container:
        assert container.streams.audio[0].codec_context.name in ("opus", "libopus")
    decoded, rate = soundfile.read(io.BytesIO(data), dtype="float32")
    assert (rate, len(decoded)) == (16_000, len(samples))
    lags = range(-40, 41)
    similarity = [float(np.corrcoef(samples[100:-100], np.roll(decoded, lag)[100:-100])[0, 1]) for lag in lags]
    assert lags[int(np.argmax(similarity))] == 0
    assert max(similarity) > 0.95


def test_a_minute_has_its_size_whatever_it_contains() -> None:
    noise = np.random.default_rng(0).uniform(-1, 1, 60 * 16_000).astype(np.float32)
    assert 235_000 < len(compress(noise)) < 255_000


def test_the_same_samples_give_the_same_bytes(clips: list[Clip]) -> None:
    samples = read_samples(str(clips[0].path), 0.0, 60.0)
    assert compress(samples) == compress(samples)


def test_samples_beyond_full_scale_are_clipped() -> None:
    loud = 2 / np.abs(tone(1.0)).max() * tone(1.0)
    assert compress(loud) == compress(np.clip(loud, -1, 1))
