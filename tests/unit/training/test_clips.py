import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from manifest import read_manifest
from training.clips import write
from training.plan import FIRST_VOICE, OTHER_VOICES
from training.voice import SAMPLE_RATE

VOICES = (FIRST_VOICE, *OTHER_VOICES)


def test_all_voices_take_turns_with_other_sentences(tmp_path: Path) -> None:
    sentences = 4 * len(VOICES)
    for number, voice in enumerate(VOICES):
        samples = np.full(sentences * SAMPLE_RATE, number + 1, np.int16)
        (tmp_path / f"held-out-{voice}.pcm").write_bytes(samples.tobytes())
        lines = [{"text": f"W{n}.", "samples": SAMPLE_RATE, "times": [[0.25, 0.5]]} for n in range(sentences)]
        (tmp_path / f"held-out-{voice}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    out = tmp_path / "out"
    out.mkdir()
    write(tmp_path, out)
    written = {path.name: path.read_bytes() for path in out.iterdir()}
    one, several = read_manifest(out / "clips.jsonl")
    assert (one.duration or 0) >= 150
    samples, _ = soundfile.read(several.audio, dtype="int16")
    assert several.duration == pytest.approx(len(samples) / SAMPLE_RATE)
    for word in several.words:
        voice = samples[round((word.start + 0.1) * SAMPLE_RATE)] - 1
        assert int(word.word[1:-1]) // 4 == voice
    assert len({word.word for word in several.words}) == sentences
    write(tmp_path, out)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == written
