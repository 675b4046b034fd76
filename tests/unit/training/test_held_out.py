import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import soundfile

from training.corpus import Spoken
from training.held_out import empty_recordings, held_out, join, read_clips, with_silence, write_utterance
from training.voice import SAMPLE_RATE


def clip(seconds: float, *words: str) -> Spoken:
    """A clip of ones, whose words have each half a second, from 0.1 s on."""
    times = tuple((0.1 + 0.5 * number, 0.6 + 0.5 * number) for number in range(len(words)))
    return Spoken("hibari", words, times, np.ones(round(seconds * SAMPLE_RATE), np.int16))


def test_sentences_of_a_voice_are_read_from_its_shard(tmp_path: Path) -> None:
    (tmp_path / "held-out-kal.pcm").write_bytes(np.arange(5, dtype=np.int16).tobytes())
    lines = [{"text": "One.", "samples": 2, "times": [[0.0, 0.1]]}, {"text": "Two.", "samples": 3, "times": [[0, 0.1]]}]
    (tmp_path / "held-out-kal.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    first, second = held_out("kal", tmp_path)
    assert (first.words, second.words, second.samples.tolist()) == (("One.",), ("Two.",), [2, 3, 4])


def test_silence_moves_the_words() -> None:
    padded = with_silence(clip(1.0, "One."), 0.7)
    assert padded.seconds == pytest.approx(2.4)
    assert padded.times[0] == pytest.approx((0.8, 1.3))
    heard = np.flatnonzero(padded.samples)
    assert (heard[0], heard[-1]) == (0.7 * SAMPLE_RATE, 1.7 * SAMPLE_RATE - 1)


def test_joined_clips_keep_their_words_times_and_pauses() -> None:
    clips = [clip(1.0, "One."), clip(1.5, "Two", "three.")]
    joined = join(clips, 60, seed=3)
    recording, order = joined.recording, joined.order
    assert 60 <= recording.seconds < 64
    assert abs(order.count(0) - order.count(1)) <= 1
    assert recording.words == tuple(word for number in order for word in clips[number].words)
    edges = np.flatnonzero(np.diff(np.concatenate([[0], recording.samples, [0]]))) / SAMPLE_RATE
    starts, ends = edges[::2], edges[1::2]
    assert ends - starts == pytest.approx([clips[number].seconds for number in order], abs=1e-4)
    first_words = [time for word, time in zip(recording.words, recording.times, strict=True) if word != "three."]
    assert [start for start, _ in first_words] == pytest.approx(starts + 0.1, abs=1e-4)
    pauses = starts[1:] - ends[:-1]
    assert pauses.min() >= 0.299
    assert pauses.max() <= 2.001
    assert pauses.std() > 0.2


def test_the_seed_decides_how_clips_are_joined() -> None:
    clips = [clip(1.0, word) for word in "abcdef"]
    assert join(clips, 30, seed=1).order == join(clips, 30, seed=1).order != join(clips, 30, seed=2).order


def test_empty_recordings_have_the_level_that_they_are_called_by() -> None:
    recordings = empty_recordings(seed=1, seconds=4)
    assert not recordings.pop("digital silence").samples.any()
    assert len(recordings) == 7
    for name, recording in recordings.items():
        level = 20 * np.log10(np.sqrt(np.mean((recording.samples / 32767) ** 2)))
        # Rounding to 16 bits adds a little to the lowest.
        assert level == pytest.approx(float(name.split()[-2]), abs=0.5)
        assert not recording.words
        assert recording.seconds == 4


def test_pink_noise_falls_by_ten_decibels_a_decade() -> None:
    recordings = empty_recordings(seed=1, seconds=10)

    def fall(name: str) -> float:
        energy = np.abs(np.fft.rfft(recordings[name].samples)) ** 2
        return float(10 * np.log10(energy[1_500:2_500].mean() / energy[15_000:25_000].mean()))  # 200 Hz and 2 kHz

    assert fall("white noise at -50 dBFS") == pytest.approx(0, abs=1)
    assert fall("pink noise at -50 dBFS") == pytest.approx(10, abs=1)


def test_what_is_written_is_what_is_read(tmp_path: Path) -> None:
    recording = clip(1.5, "Two", "three.")
    utterance = write_utterance("a clip", recording, tmp_path)
    assert (utterance.text, utterance.duration) == ("Two three.", 1.5)
    assert soundfile.read(utterance.audio, dtype="int16")[0].tolist() == recording.samples.tolist()
    words = [asdict(word) for word in utterance.words]
    line = {"file": "a clip.flac", "text": utterance.text, "words": words}
    (tmp_path / "clips.jsonl").write_text(json.dumps(line) + "\n")
    (read,) = read_clips(tmp_path / "clips.jsonl", "hibari")
    assert (read.words, read.times) == (recording.words, recording.times)
    assert read.samples.tolist() == recording.samples.tolist()
