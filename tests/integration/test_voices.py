import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from project import ROOT
from training import voices
from training.debian_voices import VOICES
from training.plan import FIRST_VOICE
from training.voice import SAMPLE_RATE, MissingProgramError, Speech, Voice

SENTENCES = [
    ["Oh,", "she", "asked", "all", "of", "the", "children,", "and", "I", "don't", "know", "why."],
    ["He", "saw", "the", "end", "of", "an", "apple."],
    ["A", "well-cut", "suit."],
    ["Does", "it", "stand", "in", "the", "way", "of", "John's", "sister?"],
]
ONE_OF_EACH = [
    FIRST_VOICE,
    "flite-kal16",
    "flite-slt",
    "festival-kal",
    "festival-ked",
    "festival-slt-hts",
    "espeak-en-us-f2",
]


def load(name: str) -> Voice:
    if name == FIRST_VOICE:
        pytest.importorskip("hibari", reason="the packages of the training are not installed")
    try:
        return voices.voice(name)
    except MissingProgramError as error:
        pytest.skip(str(error))


def threads_after(statement: str) -> int:
    """Return how many threads a fresh process has after a statement."""
    count = "len(os.listdir('/proc/self/task'))"
    program = [sys.executable, "-c", f"{statement}; import os; print({count})"]
    return int(subprocess.run(program, cwd=ROOT, capture_output=True, text=True, check=True).stdout)


@pytest.fixture(params=ONE_OF_EACH)
def voice(request: pytest.FixtureRequest) -> Voice:
    return load(request.param)


def say(voice: Voice, *sentences: list[str], paces: tuple[float, ...] = ()) -> list[Speech]:
    """Return the speech of sentences that every voice says as written."""
    spoken = list(voice.speak_many(sentences, paces or (1.0,) * len(sentences)))
    said = [each for each in spoken if each is not None]
    assert len(said) == len(sentences)
    return said


def level(audio: NDArray[np.float32], start: float, end: float) -> float:
    part = audio[round(start * SAMPLE_RATE) : round(end * SAMPLE_RATE)]
    return float(np.sqrt(np.mean(part**2))) if len(part) else 0.0


def test_words_are_where_the_sound_is(voice: Voice) -> None:
    spoken = list(voice.speak_many(SENTENCES, [1.0] * len(SENTENCES)))
    refused = voice.name != FIRST_VOICE  # the others read "well-cut" as two words
    assert [each is None for each in spoken] == [False, False, refused, False]
    for words, each in zip(SENTENCES, spoken, strict=True):
        if each is None:
            continue
        assert len(each.words) == len(words)
        length = len(each.audio) / SAMPLE_RATE
        times = [0.0, *(time for word in each.words for time in word), length]
        assert times == sorted(times)
        quietest = min(level(each.audio, start, end) for start, end in each.words)
        # Some voices of eSpeak NG have an echo, and the times of hibari are late by about as much.
        margin = 0.04 if voice.name != FIRST_VOICE else 0.05
        assert level(each.audio, 0, max(0, each.words[0][0] - margin)) < quietest / 4
        assert level(each.audio, each.words[-1][1] + margin, length) < quietest / 4


def test_pause_after_a_comma_belongs_to_no_word(voice: Voice) -> None:
    (spoken,) = say(voice, ["Many", "years", "ago,", "all", "was", "well."])
    pause = spoken.words[2][1], spoken.words[3][0]
    assert pause[1] - pause[0] > 0.05
    middle = sum(pause) / 2
    assert level(spoken.audio, middle - 0.01, middle + 0.01) < 0.2 * level(spoken.audio, *spoken.words[2])


def test_pace(voice: Voice) -> None:
    sentence = SENTENCES[1]
    usual, fast = say(voice, sentence, sentence, paces=(1.0, 1.25))
    lengths = [each.words[-1][1] - each.words[0][0] for each in (usual, fast)]
    assert lengths[0] / lengths[1] == pytest.approx(1.25, abs=0.12)


def test_equal_sentences_give_equal_speech(voice: Voice) -> None:
    first, _, again = say(voice, SENTENCES[0], SENTENCES[1], SENTENCES[0], paces=(1.0, 1.25, 1.0))
    (alone,) = say(voice, SENTENCES[0])
    for other in (again, alone):
        assert other.words == first.words
        np.testing.assert_array_equal(other.audio, first.audio)


def test_onnx_runtime_sends_no_usage_data() -> None:
    load(FIRST_VOICE)
    assert threads_after("import training, onnxruntime") == threads_after("import numpy")


def test_numbers_that_hibari_reads_as_several_words_are_refused() -> None:
    assert list(load(FIRST_VOICE).speak_many([["Since", "1991", "it", "is."]], [1.0])) == [None]


def test_every_voice_has_its_own_name() -> None:
    made = []
    for name, make in VOICES.items():
        if name.startswith(("flite", "espeak")):
            try:
                made.append((name, make().name))
            except MissingProgramError as error:
                pytest.skip(str(error))
    assert all(name == own for name, own in made)


def test_missing_festival_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingProgramError, match="apt-get install festival festvox-kdlpc16k"):
        VOICES["festival-ked"]()
