"""The Python client against an endpoint whose jobs go as each test says. Its example is in test_clients.py."""

import dataclasses
import json
import logging
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest

from bad_servers import silent
from parakeet_client import (
    BoostedTerm,
    CaptionLimits,
    Client,
    ModelInfo,
    Options,
    Pace,
    Span,
    Task,
    Transcript,
    TranscriptionError,
)
from parakeet_client.__main__ import _shown, main
from parakeet_client.contract import RETRIES, Level
from parakeet_client.folder import JOURNAL, open_folder
from parakeet_worker.job.request import schema
from project import ROOT
from scripted_platform import API_KEY, ENDPOINT, RUNNING, WAITING, ScriptedPlatform, done, failed

PACE = Pace(first_poll=0.001, longest_poll=0.01, first_retry=0.002, longest_retry=0.01, requests=4)
URL = "https://example.com/audio.wav"


@pytest.fixture
def platform(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    platform = ScriptedPlatform()
    monkeypatch.setenv("RUNPOD_ENDPOINT_BASE_URL", platform.url)
    monkeypatch.setenv("RUNPOD_API_KEY", API_KEY)
    yield platform
    platform.close()


@pytest.fixture
def client(platform: ScriptedPlatform) -> Iterator[Any]:
    with Client(ENDPOINT, pace=PACE) as client:
        yield client


def refusal(client: Client, source: Any = URL, **options: Any) -> TranscriptionError:
    with pytest.raises(TranscriptionError) as raised:
        client.transcribe(source, **options)
    return raised.value


def test_the_package_has_the_projects_licence() -> None:
    assert (ROOT / "clients" / "python" / "LICENSE").read_text() == (ROOT / "LICENSE").read_text()


# What is asked for, and what comes back.


def test_the_options_are_the_requests_fields() -> None:
    fields = schema("request")["properties"]["input"]["properties"]
    assert Options.__annotations__.keys() == fields.keys() - {"action", "audio_url", "audio_base64"}
    captions = fields["captions"]["anyOf"][1]
    assert CaptionLimits.__annotations__.keys() == captions["properties"].keys()
    assert CaptionLimits.__required_keys__ == set(captions["required"])
    term = fields["keyterms"]["items"]["anyOf"][1]
    assert BoostedTerm.__annotations__.keys() == term["properties"].keys()
    assert BoostedTerm.__required_keys__ == set(term["required"])
    assert list(get_args(Level)) == fields["timestamps"]["anyOf"][1]["items"]["enum"]


def test_the_answers_fields_are_known() -> None:
    known = {field.name for field in dataclasses.fields(Transcript)} - {"words", "segments", "chars", "answer"}
    elsewhere = {"status", "timestamp", "timestamps", "result_url"}
    assert schema("transcribe")["properties"].keys() - elsewhere == known
    assert schema("transcribe")["properties"]["timestamps"]["properties"].keys() == set(get_args(Level))
    assert ModelInfo.__annotations__.keys() == schema("model_info")["properties"].keys()


def test_the_codes_that_are_retried_are_the_workers_or_the_clients() -> None:
    codes = {code["const"] for code in schema("error")["properties"]["code"]["oneOf"]}
    assert RETRIES.keys() - codes == {"timed_out", "expired"}
    assert not {code for code in RETRIES if code.startswith(("invalid_", "unsupported_"))}
    rows = re.findall(r"^\| `(\w+)` \| (\d) \|", (ROOT / "clients" / "README.md").read_text(), re.MULTILINE)
    assert {code: int(times) for code, times in rows} == RETRIES


def test_a_request_with_everything(client: Client, platform: ScriptedPlatform) -> None:
    options: Options = {
        "timestamps": ["word"],
        "segment_pause": 1.5,
        "captions": {"format": "vtt", "max_lines": 1},
        "confidence": True,
        "keyterms": ["RTFx", {"term": "Parakeet", "boost": 2.0}],
    }
    answer = done(
        "Hi there.",
        timestamps={"word": [{"word": "Hi", "start": 0.1, "end": 0.3, "confidence": 0.9}], "segment": []},
        captions="WEBVTT\n",
        confidence=0.8,
        created_at="2026-11-26T12:00:00.000000Z",
    )
    platform.fates[URL].append([WAITING, RUNNING, answer])
    transcript = client.transcribe(URL, **options)
    [job] = platform.jobs.values()
    assert job.input == {"audio_url": URL} | options
    assert (transcript.text, transcript.captions, transcript.confidence) == ("Hi there.", "WEBVTT\n", 0.8)
    assert transcript.words == (Span("Hi", 0.1, 0.3, 0.9),)
    assert (transcript.segments, transcript.chars) == ((), None)
    assert transcript.answer == answer["output"]


def test_only_what_was_asked_for(client: Client, platform: ScriptedPlatform) -> None:
    transcript = client.transcribe(URL)
    assert platform.jobs["job-1"].input == {"audio_url": URL}
    assert (transcript.words, transcript.captions, transcript.confidence) == (None, None, None)
    assert transcript.created_at == "2026-11-26T12:00:00.000000Z"
    with pytest.raises(TypeError, match=r"unknown option 'language'; the options are timestamps, "):
        client.transcribe(URL, language="en")  # type: ignore[call-arg]


def test_what_runpod_says_of_each_job_that_ends(client: Client, platform: ScriptedPlatform) -> None:
    times = {"delayTime": 300, "executionTime": 1200, "workerId": "w1"}
    platform.fates[URL].append([WAITING, failed("worker_busy") | times])
    platform.fates[URL].append([WAITING, done("Hi.") | times])
    seen: list[Any] = []
    transcript = client.run(Task(URL, {}, on_submit=seen.append, on_end=seen.append))
    assert transcript.text == "Hi."
    assert [each if isinstance(each, str) else each["status"] for each in seen] == [
        *("job-1", "FAILED"),
        *("job-2", "COMPLETED"),
    ]
    assert {name: seen[3][name] for name in times} == times


def test_waiting_for_a_task_can_be_stopped(client: Client, platform: ScriptedPlatform) -> None:
    stop = threading.Event()
    platform.fates[URL].append([RUNNING])
    with pytest.raises(TranscriptionError) as raised:
        client.run(Task(URL, {}, on_submit=lambda _: stop.set()), stop=stop)
    assert raised.value.code == "stopped"
    assert platform.jobs["job-1"].is_cancelled


def test_files_and_bytes_are_sent_along(client: Client, platform: ScriptedPlatform, tmp_path: Path) -> None:
    (tmp_path / "a.mp3").write_bytes(b"from a file")
    for source in (tmp_path / "a.mp3", str(tmp_path / "a.mp3"), b"from memory"):
        client.transcribe(source)
    assert platform.sent() == ["from a file", "from a file", "from memory"]
    assert [job.path for job in platform.jobs.values()] == ["run"] * 3


@pytest.mark.parametrize("url", ["HTTPS://example.com/a", "data:audio/wav;base64,AAAA", "s3://bucket/a.wav"])
def test_urls_are_sent_as_they_are(client: Client, platform: ScriptedPlatform, url: Any) -> None:
    client.transcribe(url)
    assert platform.jobs["job-1"].input == {"audio_url": url}


def test_a_file_too_large_for_run(client: Client, platform: ScriptedPlatform) -> None:
    platform.fates["a" * 8_000_000].append([WAITING, done()])
    assert client.transcribe(b"a" * 8_000_000).text == "Hello."
    assert [job.path for job in platform.jobs.values()] == ["runsync"]


def test_a_file_too_large_for_runpod(client: Client, platform: ScriptedPlatform, tmp_path: Path) -> None:
    with (tmp_path / "a.wav").open("wb") as file:
        file.truncate(16_000_000)
    for source in (tmp_path / "a.wav", bytes(16_000_000)):
        error = refusal(client, source)
        assert error.code == "request_too_large"
        assert re.search(r"16\.0 MB.* 14\.9 MB .* give its URL", error.message)
    assert not platform.asked


def test_a_file_that_is_not_there(client: Client, tmp_path: Path) -> None:
    error = refusal(client, tmp_path / "a.mp3")
    assert (error.code, error.message) == ("unreadable_file", "a.mp3 cannot be read: No such file or directory.")


def test_model_info(client: Client, platform: ScriptedPlatform) -> None:
    platform.fates[""].append([{"status": "COMPLETED", "output": {"status": "success", "model": "parakeet"}}])
    assert client.model_info()["model"] == "parakeet"
    assert platform.jobs["job-1"].input == {"action": "model_info"}


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ("", "give a RunPod API key as api_key, or set RUNPOD_API_KEY"),
        (" ", "give a RunPod API key as api_key, or set RUNPOD_API_KEY"),
        ("a key", "the RunPod API key has spaces or other characters that no key has"),
        ("key\nX: y", "the RunPod API key has spaces or other characters that no key has"),
    ],
)
def test_a_key_that_cannot_be_one_is_not_shown(key: Any, said: str) -> None:
    with pytest.raises(ValueError, match=f"^{said}$"):
        Client(ENDPOINT, api_key=key)
    with pytest.raises(ValueError, match="endpoint_id"):
        Client("https://api.runpod.ai/v2/abc", api_key="key")


# Failures of jobs.


@pytest.mark.parametrize(("code", "times"), [*RETRIES.items(), ("corrupt_audio", 0), ("invalid_keyterms", 0)])
def test_what_is_sent_again(client: Client, platform: ScriptedPlatform, code: Any, times: Any) -> None:
    state = {"timed_out": {"status": "TIMED_OUT"}}.get(code, failed(code))
    platform.fates[URL].extend([[state]] * times)
    assert client.transcribe(URL).text == URL
    assert len(platform.jobs) == times + 1

    platform.fates[URL].extend([[state]] * (times + 1))
    error = refusal(client)
    assert error.code == code
    assert error.is_retryable == (times > 0)
    assert len(platform.jobs) == 2 * (times + 1)


def test_a_job_that_runpod_does_not_know(client: Client, platform: ScriptedPlatform) -> None:
    platform.faults["status"].append(404)
    assert client.transcribe(URL).text == URL
    assert len(platform.jobs) == 2
    platform.faults["status"].extend([404, 404])
    assert refusal(client).code == "expired"
    assert len(platform.jobs) == 4


@pytest.mark.parametrize(
    ("state", "code", "message"),
    [
        (failed("corrupt_audio", "Damaged.", message="Damaged."), "corrupt_audio", "Damaged."),
        ({"status": "FAILED", "output": {"code": "corrupt_audio", "message": "Why."}}, "corrupt_audio", "Why."),
        ({"status": "FAILED", "error": "Damaged."}, "failed", "Damaged."),
        ({"status": "FAILED"}, "failed", "RunPod does not say why."),
        ({"status": "CANCELLED"}, "cancelled", "The job was cancelled."),
        ({"status": "COMPLETED", "output": "Hello."}, "unexpected_answer", "The endpoint's answer is not one of"),
        (
            {"status": "COMPLETED", "output": {"status": "success"}},
            "unexpected_answer",
            "The endpoint's answer is not a",
        ),
        (done(timestamps={"word": [{"start": 1}]}), "unexpected_answer", "The endpoint's answer is not a transcript."),
        ({"status": "PAUSED"}, "unexpected_answer", "RunPod says that the job is PAUSED."),
    ],
)
def test_what_is_told_of_a_failure(
    client: Client, platform: ScriptedPlatform, state: Any, code: Any, message: Any
) -> None:
    platform.fates[URL].append([state])
    error = refusal(client)
    assert error.code == code
    assert error.message.startswith(message)
    assert str(error) == f"{error.code}: {error.message}"


def test_a_timeout_cancels_the_job(client: Client, platform: ScriptedPlatform) -> None:
    platform.fates[URL].append([RUNNING])
    error = refusal(client, timeout=0.05)
    assert (error.code, error.is_retryable) == ("timeout", False)
    assert platform.jobs["job-1"].is_cancelled


def test_a_timeout_ends_a_request_that_hangs() -> None:
    started = time.monotonic()
    with silent() as address, Client(ENDPOINT, api_key=API_KEY, base_url=f"http://{address}", pace=PACE) as client:
        assert refusal(client, timeout=0.3).code == "timeout"
        assert refusal(client, bytes(9_000_000), timeout=0.3).code == "timeout"
    assert time.monotonic() - started < 10


def test_a_job_is_cancelled_even_if_runpod_is_busy(client: Client, platform: ScriptedPlatform) -> None:
    platform.fates[URL].append([RUNNING])
    platform.faults["cancel"].extend([429, 503, "reset"])
    assert refusal(client, timeout=0.05).code == "timeout"
    assert platform.jobs["job-1"].is_cancelled


def test_a_job_that_cannot_be_noted_is_cancelled(client: Client, platform: ScriptedPlatform) -> None:
    def full(_: str) -> None:
        raise OSError(28, "No space left on device")

    platform.fates[URL].append([RUNNING])
    with pytest.raises(OSError, match="No space left"):
        client.run(Task(URL, {}, on_submit=full))
    assert platform.jobs["job-1"].is_cancelled


@pytest.mark.parametrize("url", ["api.runpod.ai/v2", "ftp://api.runpod.ai", "https://"])
def test_a_base_url_that_is_none(monkeypatch: pytest.MonkeyPatch, url: Any) -> None:
    monkeypatch.setenv("RUNPOD_ENDPOINT_BASE_URL", url)
    with pytest.raises(ValueError, match="the base URL"):
        Client(ENDPOINT, api_key=API_KEY)


# RunPod and the way to it.


@pytest.mark.parametrize("kind", ["run", "status"])
def test_requests_are_tried_again(client: Client, platform: ScriptedPlatform, kind: Any) -> None:
    faults: list[int | str] = [408, 429, 500, 502, 503, 504, 520, "reset"]
    for number, fault in enumerate(faults, 1):
        platform.faults[kind].extend([fault, fault, fault])
        assert client.transcribe(URL).text == URL
        assert len(platform.jobs) == number
        assert platform.asked.count(kind) == 4 * number


@pytest.mark.parametrize("kind", ["run", "status"])
def test_no_answer_after_several_attempts(client: Client, platform: ScriptedPlatform, kind: Any) -> None:
    platform.faults[kind].extend([503] * 9)
    error = refusal(client)
    assert (error.code, error.is_retryable) == ("unreachable", True)
    assert error.message == "No answer after 4 attempts: 503 Service Unavailable"
    assert platform.asked.count(kind) == 4


def test_retry_after(client: Client, platform: ScriptedPlatform) -> None:
    platform.faults["run"].append((429, "60"))
    assert refusal(client, timeout=0.05).code == "timeout"
    assert not platform.jobs


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (400, "request_refused"),
        (401, "unauthorized"),
        (403, "unauthorized"),
        (404, "unknown_endpoint"),
        (413, "request_too_large"),
    ],
)
def test_refusals(client: Client, platform: ScriptedPlatform, status: Any, code: Any) -> None:
    platform.faults["run"].append(status)
    assert refusal(client).code == code
    assert platform.asked == ["run"]


def test_a_key_that_runpod_does_not_take_ends_everything(platform: ScriptedPlatform) -> None:
    with Client(ENDPOINT, api_key="wrong", pace=PACE) as client, pytest.raises(TranscriptionError) as raised:
        client.transcribe_many([f"{URL}?{n}" for n in range(300)], in_flight=2)
    assert str(raised.value) == "unauthorized: RunPod does not take the API key."
    assert len(platform.asked) < 300


def test_a_result_in_a_bucket(client: Client, platform: ScriptedPlatform, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "httpx")
    url = platform.url.replace("/v2", "/results/1.json")
    platform.bucket["/results/1.json"] = json.dumps(done("Long.", captions="1")["output"]).encode()
    platform.fates[URL].append(
        [{"status": "COMPLETED", "output": {"status": "success", "result_url": f"{url}?sign=1"}}]
    )
    platform.faults["bucket"].append(503)
    transcript = client.transcribe(URL)
    assert (transcript.text, transcript.captions) == ("Long.", "1")
    assert platform.bucket_headers
    for headers in platform.bucket_headers:
        assert API_KEY not in str(headers)
    assert "/status/job-1" in caplog.text
    assert "/results/" not in caplog.text


@pytest.mark.parametrize("content", [None, b"no JSON"])
def test_a_result_that_is_not_in_the_bucket(client: Client, platform: ScriptedPlatform, content: Any) -> None:
    url = platform.url.replace("/v2", "/results/1.json?sign=secret")
    if content:
        platform.bucket["/results/1.json"] = content
    platform.fates[URL].append([{"status": "COMPLETED", "output": {"status": "success", "result_url": url}}])
    error = refusal(client)
    assert (error.code, error.is_retryable) == ("result_unavailable", True)
    assert "secret" not in error.message
    assert len(platform.jobs) == 1


# Many recordings.


def test_results_are_in_order_and_failures_stop_nothing(client: Client, platform: ScriptedPlatform) -> None:
    sources = [f"{URL}?{n}" for n in range(12)]
    for n, source in enumerate(sources):
        platform.fates[source].append([WAITING] * (12 - n) + [done(source)])
    platform.fates[sources[4]].appendleft([failed("corrupt_audio")])
    platform.fates[sources[7]].appendleft([failed("worker_busy")])
    results = client.transcribe_many(sources, in_flight=3)
    for n, (source, result) in enumerate(zip(sources, results, strict=True)):
        if n == 4:
            assert isinstance(result, TranscriptionError)
            assert result.code == "corrupt_audio"
        else:
            assert isinstance(result, Transcript)
            assert result.text == source
    assert 1 < platform.most_in_flight <= 3
    assert len(platform.jobs) == 13


@pytest.mark.parametrize("source", [URL, b"audio"])
def test_one_source_in_place_of_several(client: Client, platform: ScriptedPlatform, source: Any) -> None:
    with pytest.raises(TypeError, match=r"transcribe\(\) takes one"):
        client.transcribe_many(source)
    assert not platform.asked


def test_jobs_are_cancelled_when_nobody_waits_any_longer(client: Client, platform: ScriptedPlatform) -> None:
    sources = [f"{URL}?{n}" for n in range(9)]
    for source in sources[1:]:
        platform.fates[source].append([RUNNING])
    completed = client.as_completed([Task(source, {}) for source in sources], in_flight=4)
    assert next(completed)[0] == 0
    platform.wait_for_jobs(4)
    completed.close()
    running = [job for job in platform.jobs.values() if job.source != sources[0]]
    assert 3 <= len(running) <= 4
    assert all(job.is_cancelled for job in running)


# The command line.


@pytest.fixture
def audio(tmp_path: Path) -> list[str]:
    """Files in two folders, of which two have the same name."""
    paths = [tmp_path / "in" / name for name in ("one/a.mp3", "one/b.x.mp3", "two/A.wav")]
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"audio of {path.relative_to(tmp_path)}")
    return [str(path) for path in paths]


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


def run(sources: list[str], out: Path, *options: str) -> int:
    return main([*sources, "--endpoint", ENDPOINT, "--out", str(out), *options], PACE)


def files(out: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in out.iterdir() if path.name != JOURNAL}


def test_files_beside_each_other(platform: ScriptedPlatform, audio: list[str], out: Path, capsys: Any) -> None:
    url = "https://user:password@example.com/t%20alk.wav?signature=secret"
    sources = [*audio, url, audio[0], ""]
    platform.fates[url].append([done("Äh, hello.", captions="1\n00:00:00,000 --> 00:00:01,000\nÄh, hello.\n")])
    assert run(sources, out) == 0
    assert capsys.readouterr().out == "4 written, 0 there before, 0 failed\n"
    given = files(out)
    stems = {"a": audio[0], "b.x": audio[1], "A-2": audio[2], "t alk": url}
    expected = {f"{stem}.{end}" for stem in stems for end in ("json", "txt")} | {"t alk.srt"}
    assert given.keys() == expected
    assert given["t alk.txt"] == "Äh, hello.\n"
    assert given["t alk.srt"].endswith("\nÄh, hello.\n")
    assert json.loads(given["A-2.json"])["text"] == "audio of in/two/A.wav"
    assert all(job.input["captions"] == "srt" for job in platform.jobs.values())
    journal = (out / JOURNAL).read_text()
    for secret in ("secret", "password", API_KEY):
        assert secret not in journal

    # Nothing is sent again, also in another order, by another spelling and by another name of the file.
    relative, link = os.path.relpath(audio[0]), out / "latest.mp3"
    link.symlink_to(audio[0])
    names = out / "names"
    names.write_text(f" {relative} \n{link}\n")
    assert run([url, *audio[:0:-1], f"@{names}"], out) == 0
    names.unlink()
    link.unlink()
    assert capsys.readouterr().out == "0 written, 4 there before, 0 failed\n"
    assert len(platform.jobs) == 4
    assert files(out) == given


def test_what_changed_is_sent_again(platform: ScriptedPlatform, audio: list[str], out: Path) -> None:
    assert run(audio, out) == 0
    Path(audio[1]).write_text("another recording")
    assert run(audio, out) == 0
    assert platform.sent()[3:] == ["another recording"]
    assert json.loads(files(out)["b.x.json"])["text"] == "another recording"
    assert (
        run(audio[:1], out, "--timestamps", "segment,word", "--confidence", "--keyterm", "RTFx", "--keyterm", "x") == 0
    )
    sent = platform.jobs["job-5"].input
    del sent["audio_base64"]
    assert sent == {"captions": "srt", "timestamps": ["word", "segment"], "confidence": True, "keyterms": ["RTFx", "x"]}
    (out / "a.json").unlink()
    assert run(audio[:1], out) == 0
    assert len(platform.jobs) == 6
    assert len(files(out)) == 6


def test_files_of_others_are_left_alone(platform: ScriptedPlatform, audio: list[str], out: Path) -> None:
    out.mkdir()
    (out / "a.txt").write_text("mine")
    assert run(audio[:1], out) == 0
    assert files(out).keys() == {"a.txt", "a-2.txt", "a-2.json"}
    assert files(out)["a.txt"] == "mine"


def test_failures_are_told_at_the_end(platform: ScriptedPlatform, audio: list[str], out: Path, capsys: Any) -> None:
    url = "https://user:secret@example.com/a.wav?signature=secret"
    sent = Path(audio[0]).read_text()
    platform.fates[sent].append([failed("corrupt_audio", "Damaged.")])
    platform.fates[url].append([failed("download_failed", "Failed to download audio: 404 Not Found")])
    assert run([*audio, url], out) == 1
    said = capsys.readouterr()
    assert said.out == "2 written, 0 there before, 2 failed\n"
    assert set(said.err.splitlines()[-2:]) == {
        f"{audio[0]}: corrupt_audio: Damaged.",
        "https://example.com/a.wav: download_failed: Failed to download audio: 404 Not Found",
    }
    # What failed is sent again, as it may have been repaired where it lies.
    assert run([*audio, url], out) == 0
    assert len(platform.jobs) == 6


def test_a_wrong_key(platform: ScriptedPlatform, audio: list[str], out: Path, capsys: Any, monkeypatch: Any) -> None:
    monkeypatch.setenv("RUNPOD_API_KEY", "wrong-key")
    assert run(audio, out, "--in-flight", "1") == 1
    said = capsys.readouterr()
    assert re.match("0 written, 0 there before, 1 failed, 2 not tried\n", said.out)
    assert "unauthorized: RunPod does not take the API key." in said.err
    assert "wrong-key" not in said.out + said.err + (out / JOURNAL).read_text()


@pytest.mark.parametrize(
    ("source", "shown"),
    [
        ("a?b.wav", "a?b.wav"),
        ("data:audio/wav;base64,AAAA", "data:…"),
        ("https://u:pw@h:80/a@b.wav?sign=1#x", "https://h:80/a@b.wav"),
        ("http://[::1]:80/a.wav", "http://[::1]:80/a.wav"),
        ("https://u:pa/ss@h/a.wav", "https://…"),
        ("https://u:pa?ss@h/a.wav", "https://…"),
    ],
)
def test_what_is_shown_of_a_source(source: Any, shown: Any) -> None:
    assert _shown(source) == shown


def test_names_of_urls(platform: ScriptedPlatform, out: Path) -> None:
    stems = {
        "https://example.com/talk.one.wav?x=/b.mp3#c": "talk.one",
        "https://example.com": "audio",
        "https://example.com/a%2Fb%00:c.wav": "b__c",
        "https://example.com/..": "audio-2",
        "https://example.com/" + "a" * 300 + ".wav": "a" * 50,
        "http://[/a.wav": "a",
        "data:audio/wav;base64,AAAA": "audio-3",
    }
    assert run(list(stems), out) == 0
    for url, stem in stems.items():
        assert json.loads(files(out).pop(f"{stem}.json"))["text"] == url
    assert len(files(out)) == 2 * len(stems)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--timestamps", "words"], "'words' is none of word, segment, char"),
        (["--in-flight", "0"], "it must be a number from 1 on"),
        (["--api-key", "x"], "unrecognized arguments: --api-key"),
        (["--endpoint", "https://x"], "endpoint_id must be the id"),
    ],
)
def test_wrong_commands(platform: Any, audio: list[str], out: Path, capsys: Any, options: Any, message: Any) -> None:
    with pytest.raises(SystemExit) as ended:
        run(audio, out, *options)
    assert ended.value.code == 2
    assert message in capsys.readouterr().err


def test_two_runs_at_a_time(platform: ScriptedPlatform, audio: list[str], out: Path, capsys: Any) -> None:
    with open_folder(out, ENDPOINT), pytest.raises(SystemExit):
        run(audio, out)
    assert "another run writes to" in capsys.readouterr().err
    assert not platform.asked


@pytest.mark.parametrize(
    ("ending", "is_kept"), [(signal.SIGINT, True), (signal.SIGKILL, False)], ids=["Ctrl+C", "killed, and expired"]
)
def test_going_on(
    platform: ScriptedPlatform, audio: list[str], out: Path, capsys: Any, ending: Any, is_kept: Any
) -> None:
    sent = [Path(path).read_text() for path in audio]
    for text in sent[1:]:
        platform.fates[text].append([RUNNING])
    command = [sys.executable, "-m", "parakeet_client", *audio, "--endpoint", ENDPOINT, "--out", str(out)]
    environ = os.environ | {"PYTHONPATH": str(ROOT / "clients" / "python" / "src")}
    # A shell lets what it runs in the background ignore Ctrl+C, and the tests may run there.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        process = subprocess.Popen(command, env=environ, stderr=subprocess.PIPE, text=True)
    finally:
        signal.signal(signal.SIGINT, before)
    with process:
        try:
            platform.wait_for_jobs(3)
            deadline = time.monotonic() + 10
            while not (out / "a.json").exists() or '"written"' not in (out / JOURNAL).read_text():
                assert time.monotonic() < deadline
                time.sleep(0.01)
            process.send_signal(ending)
            said = process.communicate(timeout=20)[1]
        finally:
            process.kill()
    if ending == signal.SIGINT:
        assert process.returncode == 130
        assert "Jobs still at RunPod: 2." in said
        assert "Traceback" not in said
    assert not any(job.is_cancelled for job in platform.jobs.values())

    with (out / JOURNAL).open("a") as journal:
        journal.write('{"event": "submi')  # as a run that is killed in the middle of a line leaves it
    platform.finish()
    if not is_kept:
        platform.forget()
    assert run(audio, out) == 0
    assert capsys.readouterr().out == "2 written, 1 there before, 0 failed\n"
    assert len(platform.jobs) == (3 if is_kept else 5)
    texts = {json.loads(text)["text"] for name, text in files(out).items() if name.endswith(".json")}
    assert texts == set(sent)
    assert run(audio, out) == 0
    assert capsys.readouterr().out == "0 written, 3 there before, 0 failed\n"


def test_a_job_is_kept_while_runpod_cannot_be_reached(
    platform: ScriptedPlatform, audio: list[str], out: Path, capsys: Any
) -> None:
    platform.faults["status"].extend([503] * 4)
    assert run(audio[:1], out) == 1
    assert "unreachable: No answer after 4 attempts" in capsys.readouterr().err
    platform.faults["status"].append(402)
    assert run(audio[:1], out) == 1
    assert "request_refused: RunPod refused the request: 402 Payment Required" in capsys.readouterr().err
    assert run(audio[:1], out) == 0
    assert len(platform.jobs) == 1


def test_what_cannot_be_written_is_not_lost(
    platform: ScriptedPlatform, audio: list[str], out: Path, capsys: Any
) -> None:
    out.mkdir()
    (out / ".a.txt.part").mkdir()
    assert run(audio[:1], out) == 1
    assert "unwritable_file: The results cannot be written" in capsys.readouterr().err
    (out / ".a.txt.part").rmdir()
    assert run(audio[:1], out) == 0
    assert len(platform.jobs) == 1
