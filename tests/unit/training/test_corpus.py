from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tone_voice import ToneVoice, heard
from training.corpus import Shard, read, write
from training.corpus import _written_times as written_times
from training.voice import SAMPLE_RATE, Speech, Voice

SHARD = Shard("first", "tones", ("Am bn, co.", "Xx am.", "Dp er?", " ".join(["as"] * 60), "Bt am an."), seed=5)


def tones(name: str) -> Voice:
    assert name == "tones"
    return ToneVoice()


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    seconds = write(SHARD, tones, tmp_path)
    corpus = read([SHARD], tmp_path)
    assert sum(sentence.seconds for sentence in corpus) == pytest.approx(seconds)
    assert {sentence.voice for sentence in corpus} == {"tones"}
    for sentence in corpus:
        assert sentence.samples.dtype == np.int16
        assert 0.25 <= np.abs(sentence.samples).max() / 32767 <= 0.9
        samples = sentence.samples.astype(np.float32)
        for word, (start, end) in zip(sentence.words, sentence.times, strict=True):
            span = samples[round(start * SAMPLE_RATE) : round(end * SAMPLE_RATE)]
            assert heard(span) == word.strip(",.?").lower()
            assert 0.2 - 0.001 <= end - start <= 0.25 / 0.9 + 0.001


def test_unsaid_and_overlong_sentences_are_left_out(tmp_path: Path) -> None:
    write(SHARD, tones, tmp_path)
    assert [" ".join(sentence.words) for sentence in read([SHARD], tmp_path)] == ["Am bn, co.", "Dp er?", "Bt am an."]


def test_several_shards_follow_each_other(tmp_path: Path) -> None:
    other = replace(SHARD, name="second", sentences=("Es et.",), seed=6)
    for shard in (SHARD, other):
        write(shard, tones, tmp_path)
    assert [sentence.words[0] for sentence in read([other, SHARD], tmp_path)] == ["Es", "Am", "Dp", "Bt"]


def test_a_shard_depends_on_its_seed_alone(tmp_path: Path) -> None:
    contents = []
    for number, seed in enumerate((5, 5, 6)):
        folder = tmp_path / str(number)
        folder.mkdir()
        write(replace(SHARD, seed=seed), tones, folder)
        contents.append([(folder / f"first.{kind}").read_bytes() for kind in ("pcm", "jsonl")])
    assert contents[0] == contents[1]
    assert contents[0] != contents[2]


class BreakingVoice(ToneVoice):
    """Breaks down after two sentences."""

    def speak_many(self, sentences: Sequence[Sequence[str]], paces: Sequence[float]) -> Iterator[Speech | None]:
        yield from super().speak_many(sentences[:2], paces[:2])
        raise KeyboardInterrupt


def test_an_interrupted_shard_is_not_complete(tmp_path: Path) -> None:
    assert not SHARD.is_written(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        write(SHARD, lambda _: BreakingVoice(), tmp_path)
    assert not SHARD.is_written(tmp_path)
    with pytest.raises(FileNotFoundError):
        read([SHARD], tmp_path)
    write(SHARD, tones, tmp_path)
    assert SHARD.is_written(tmp_path)
    assert len(read([SHARD], tmp_path)) == 3


def test_a_number_lasts_as_long_as_all_its_words() -> None:
    said = [["In"], ["nineteen", "forty", "five"], ["it"]]
    times = [(0.1, 0.2), (0.3, 0.4), (0.45, 0.5), (0.5, 0.71234), (0.9, 1.0)]
    assert written_times(said, times) == [(0.1, 0.2), (0.3, 0.712), (0.9, 1.0)]


class CountingVoice:
    """Says anything: each word lasts 0.1 s."""

    name = "counting"

    def speak_many(self, sentences: Sequence[Sequence[str]], paces: Sequence[float]) -> Iterator[Speech | None]:
        """Say each sentence."""
        for words in sentences:
            times = tuple((number / 10, (number + 1) / 10) for number in range(len(words)))
            yield Speech(np.full(len(words) * SAMPLE_RATE // 10, 0.5, np.float32), times)


def test_a_number_is_spoken_in_words_and_written_in_digits(tmp_path: Path) -> None:
    pytest.importorskip("num2words", reason="num2words is in requirements-training.txt")
    shard = Shard("numbers", "counting", ("In 1945, it began.",), seed=1)
    write(shard, lambda _: CountingVoice(), tmp_path)
    (sentence,) = read([shard], tmp_path)
    assert sentence.words == ("In", "1945,", "it", "began.")
    assert sentence.times == ((0.0, 0.1), (0.1, 0.4), (0.4, 0.5), (0.5, 0.6))
