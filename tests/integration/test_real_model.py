"""Real speech through the real model: NeMo's words, true times, whatever the form of the file."""

import asyncio
import io
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from archives import write_archive
from audio_files import data_url, encode, reencode, tone
from loopback import LoopbackServer
from parakeet_worker.asr.alignment import align
from project import MODEL_DIR, TEXT, Clip


def samples_of(clip: Any) -> np.ndarray:
    return soundfile.read(clip.path, dtype="float32")[0]  # type: ignore[no-any-return]


@pytest.fixture(scope="session")
def nemo(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """NeMo's own model: the same weights, saved and restored by NeMo, and nothing of the worker's set-up."""
    from nemo.collections.asr.models import ASRModel
    from omegaconf import open_dict

    path = tmp_path_factory.mktemp("nemo") / "mini.nemo"
    write_archive(MODEL_DIR, path)
    model = ASRModel.restore_from(str(path), map_location="cpu").eval()
    with open_dict(model.cfg):
        model.cfg.validation_ds = {"use_start_end_token": False}  # transcribe() reads it
    return model


@pytest.fixture(scope="session")
def nemo_hypotheses(nemo: Any, clips: list[Clip]) -> Any:
    return nemo.transcribe([str(clip.path) for clip in clips], batch_size=1, timestamps=True, verbose=False)


def test_the_text_is_nemos_one_by_one(recognizer: Any, nemo_hypotheses: Any, clips: list[Clip]) -> None:
    for clip, expected in zip(clips, nemo_hypotheses, strict=True):
        assert recognizer.transcribe([samples_of(clip)])[0].text == expected.text


@pytest.mark.parametrize("size", [4, 16, 40])
def test_the_text_is_nemos_in_batches(recognizer: Any, nemo_hypotheses: Any, clips: list[Clip], size: Any) -> None:
    for start in range(0, len(clips), size):
        batch = recognizer.transcribe([samples_of(clip) for clip in clips[start : start + size]])
        assert [h.text for h in batch] == [h.text for h in nemo_hypotheses[start : start + size]]


def test_the_worker_answers_with_nemos_text(ask: Any, nemo_hypotheses: Any, clips: list[Clip]) -> None:
    for clip, expected in zip(clips[:10], nemo_hypotheses, strict=False):
        answer = ask({"input": {"audio_url": data_url(clip.path.read_bytes())}})
        assert answer["text"] == expected.text
        assert "timestamps" not in answer


def test_the_times_are_nemos(recognizer: Any, nemo_hypotheses: Any, clips: list[Clip]) -> None:
    for clip, expected in zip(clips, nemo_hypotheses, strict=True):
        hypothesis = recognizer.transcribe([samples_of(clip)])[0]
        aligned = align(hypothesis.text, hypothesis.tokens, clip.duration)
        for spans, level in ((aligned.words, "word"), (aligned.segments, "segment")):
            assert [span.text for span in spans] == [entry[level] for entry in expected.timestamp[level]]
            for span, entry in zip(spans, expected.timestamp[level], strict=True):
                assert span.start == pytest.approx(min(entry["start"], clip.duration))
                assert span.end == pytest.approx(min(entry["end"], clip.duration))


@pytest.fixture(scope="module")
def answers(ask: Any, clips: list[Clip]) -> list[Any]:
    """What is answered for each clip."""
    return [ask({"input": {"audio_url": data_url(clip.path.read_bytes()), "timestamps": True}}) for clip in clips]


def test_times_are_ordered_inside_the_clip_and_agree(answers: list[Any], clips: list[Clip]) -> None:
    for clip, answer in zip(clips, answers, strict=True):
        assert answer["duration"] == clip.duration
        assert answer["sample_rate"] == 16_000
        for level, entries in answer["timestamps"].items():
            edges = [edge for entry in entries for edge in (entry["start"], entry["end"])]
            assert edges == sorted(edges), level
            assert edges[0] >= 0
            assert edges[-1] <= answer["duration"]
        words, segments, chars = (answer["timestamps"][level] for level in ("word", "segment", "char"))
        assert " ".join(entry["word"] for entry in words) == answer["text"]
        assert " ".join(entry["segment"] for entry in segments) == answer["text"]
        assert "".join(entry["char"] for entry in chars) == answer["text"]
        position = 0
        for word in words:
            own = chars[position : position + len(word["word"])]
            assert (own[0]["start"], own[-1]["end"]) == (word["start"], word["end"])
            position += len(word["word"]) + 1
        assert (segments[0]["start"], segments[-1]["end"]) == (words[0]["start"], words[-1]["end"])


def test_words_start_when_they_are_spoken(answers: list[Any], clips: list[Clip]) -> None:
    errors = []
    for clip, answer in zip(clips, answers, strict=True):
        words = answer["timestamps"]["word"]
        if [word["word"] for word in words] == [word["word"] for word in clip.words]:
            errors += [abs(w["start"] - true["start"]) for w, true in zip(words, clip.words, strict=True)]
    assert len(errors) > 100
    assert np.median(errors) < 0.05
    assert np.percentile(errors, 95) < 0.12


@pytest.mark.parametrize(
    ("rate", "channels", "container", "subtype"),
    [
        (44_100, 2, "WAV", "PCM_16"),
        (16_000, 1, "WAV", "PCM_24"),
        (16_000, 1, "WAV", "FLOAT"),
        (48_000, 2, "FLAC", "PCM_24"),
        (22_050, 1, "FLAC", "PCM_16"),
    ],
)
def test_the_form_of_the_file_does_not_change_the_words(
    ask: Any, answers: list[Any], clips: list[Clip], rate: Any, channels: Any, container: Any, subtype: Any
) -> None:
    from nemo.collections.asr.metrics.wer import word_error_rate

    other = []
    for clip in clips[::2]:
        data = reencode(clip.path.read_bytes(), rate, channels, container, subtype)
        answer = ask({"input": {"audio_url": data_url(data)}})
        other.append(answer["text"])
        assert answer["sample_rate"] == rate
        assert answer["duration"] == pytest.approx(clip.duration, abs=0.001)
    assert word_error_rate(other, [answer["text"] for answer in answers[::2]]) <= 0.02


@pytest.mark.parametrize("count", [1, 100, 160, 400, 1_600])
def test_short_recordings_are_taken(ask: Any, recognizer: Any, count: Any) -> None:
    assert recognizer.transcribe([np.zeros(count, np.float32)])[0].text == ""
    answer = ask({"input": {"audio_url": data_url(encode(np.full(count, 0.1, np.float32))), "timestamps": True}})
    assert len(answer["timestamps"]["word"]) == len(answer["text"].split())
    assert all(word["end"] <= answer["duration"] for word in answer["timestamps"]["word"])


@pytest.mark.parametrize("count", [1, 1_600, 48_000, 16_000 * 400])
def test_the_model_does_not_hear_silence(worker: Any, ask: Any, count: Any) -> None:
    batches = worker.actions.model.stats.batches
    silence = encode(np.zeros(count, np.float32), container="FLAC")
    answer = ask({"input": {"audio_url": data_url(silence), "timestamps": True}})
    assert answer["text"] == ""
    assert answer["timestamps"] == {"word": [], "segment": [], "char": []}
    assert worker.actions.model.stats.batches == batches


def test_a_tone_gets_an_answer(ask: Any) -> None:
    assert ask({"input": {"audio_url": data_url(encode(tone(3.0)))}})["status"] == "success"


def test_very_loud_samples_get_an_answer(ask: Any, clips: list[Clip]) -> None:
    loud = samples_of(clips[2]) * 2.0**31
    quiet = ask({"input": {"audio_url": data_url(clips[2].path.read_bytes())}})["text"]
    assert ask({"input": {"audio_url": data_url(encode(loud, subtype="FLOAT"))}})["text"] == quiet


@pytest.mark.usefixtures("private_addresses")
def test_audio_from_a_server(ask: Any, server: LoopbackServer, clips: list[Clip], scratch: Path) -> None:
    url = server.serve("/clip.flac", clips[2].path.read_bytes())
    assert ask({"input": {"audio_url": url}})["text"] == TEXT
    assert not list(scratch.iterdir())


@pytest.mark.usefixtures("private_addresses")
def test_a_missing_file_on_a_server(ask: Any, server: LoopbackServer) -> None:
    answer = ask({"input": {"audio_url": server.url + "/none.wav"}})
    assert (answer["error"], answer["code"]) == ("Failed to download audio: 404 Not Found", "download_failed")


def test_jobs_at_once_get_what_each_gets_alone(worker: Any, clips: list[Clip]) -> None:
    """Every field but those that tell the time: a caller's answer does not depend on who else called."""
    draw = np.random.default_rng(0)
    joined = [np.concatenate([samples_of(clips[index]) for index in draw.integers(40, size=3)]) for _ in range(24)]
    files = [*(clip.path.read_bytes() for clip in clips), *map(encode, joined)]
    jobs = [{"input": {"audio_url": data_url(file), "timestamps": True}} for file in files]

    async def answer(*jobs: Any) -> list[dict[str, Any]]:
        answers = await asyncio.gather(*map(worker.answer, jobs))
        return [
            {key: each[key] for key in each.keys() - {"processing_time", "timestamp", "created_at"}} for each in answers
        ]

    batches = worker.actions.model.stats.batches
    together = asyncio.run(answer(*jobs))
    assert len(jobs) == 64
    assert worker.actions.model.stats.batches - batches < 32
    assert together == [alone for job in jobs for alone in asyncio.run(answer(job))]


def test_a_flac_file_of_unknown_length(ask: Any, clips: list[Clip]) -> None:
    data = bytearray(clips[2].path.read_bytes())
    # STREAMINFO: the total number of samples is the low 36 bits of bytes 18 to 25; zero says unknown (RFC 9639, 8.2).
    data[21] &= 0xF0
    data[22:26] = bytes(4)
    assert soundfile.SoundFile(io.BytesIO(bytes(data))).frames > 2**62
    answer = ask({"input": {"audio_url": data_url(bytes(data))}})
    assert answer["text"] == TEXT
    assert answer["duration"] == clips[2].duration


def test_an_hour_is_transcribed_by_the_real_model(ask: Any, clips: list[Clip]) -> None:
    """Here two minutes stand for it; the pauses between the clips are where the model was taught to expect an end."""
    rng = np.random.default_rng(0)
    parts, expected = [], []  # type: ignore[var-annotated]
    while sum(map(len, parts)) < 330 * 16_000:  # type: ignore[arg-type]
        clip = clips[rng.integers(len(clips))]
        parts += [soundfile.read(clip.path, dtype="float32")[0], np.zeros(8_000, np.float32)]
        expected.append(clip.text)
    samples = np.concatenate(parts)
    answer = ask({"input": {"audio_url": data_url(encode(samples, container="FLAC")), "timestamps": True}})
    assert answer["status"] == "success"
    assert answer["duration"] == pytest.approx(len(samples) / 16_000, abs=0.001)

    words = answer["timestamps"]["word"]
    assert " ".join(word["word"] for word in words) == answer["text"]
    assert [span["char"] for span in answer["timestamps"]["char"]] == list(answer["text"])
    times = [time for word in words for time in (word["start"], word["end"])]
    assert times == sorted(times)
    assert 0.9 < len(words) / len(" ".join(expected).split()) < 1.1
    assert re.search(r"[.?!]$", answer["timestamps"]["segment"][0]["segment"])
