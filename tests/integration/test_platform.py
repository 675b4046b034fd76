"""The worker as it runs on RunPod: `handler.py` in its loop, against a platform, called with the platform's clients."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import runpod
import soundfile

from audio_files import data_url, encode, tone
from loopback import LoopbackServer
from project import ROOT, TEXT, Clip, check_schema
from runpod_platform import API_KEY, ENDPOINT, Platform, wait_until, worker_process

ANSWER_S = 30
LONGEST_WORD = max(TEXT.split(), key=len)


@pytest.fixture(scope="module")
def web() -> Iterator[Any]:
    server = LoopbackServer()
    yield server
    server.close()


@pytest.fixture(scope="module")
def endpoint(live: Platform) -> Any:
    """The SDK's own client."""
    endpoint = runpod.Endpoint(ENDPOINT, api_key=API_KEY)
    endpoint.rp_client.endpoint_url_base = f"{live.url}/v2"
    return endpoint


@pytest.fixture(scope="module")
def clip(clips: list[Clip]) -> Any:
    return {"audio_url": data_url(clips[2].path.read_bytes())}


@pytest.fixture(scope="module")
def long() -> Any:
    """Half an hour."""
    return {"audio_url": data_url(encode(tone(1800.0, 8_000), 8_000, container="FLAC"))}


def line_of(log: Any, job_id: str) -> str:
    """The one line of a job in the worker's log."""
    pattern = re.compile(rf"{job_id} \| ((?:transcribe|model_info) .*)")
    assert wait_until(lambda: pattern.search(log.read_text()), 5)
    (line,) = pattern.findall(log.read_text())
    return line  # type: ignore[no-any-return]


def test_both_actions(endpoint: Any, clip: Any) -> None:
    answer = endpoint.run_sync({"input": clip | {"timestamps": True}}, timeout=ANSWER_S)
    check_schema(answer, "transcribe")
    assert answer["text"] == TEXT
    job = endpoint.run({"input": {"action": "model_info"}})
    check_schema(job.output(timeout=ANSWER_S), "model_info")
    assert job.status() == "COMPLETED"


def test_health_and_a_stream_of_nothing(endpoint: Any, clip: Any) -> None:
    job = endpoint.run({"input": clip})
    assert list(job.stream()) == []
    assert job.output(timeout=ANSWER_S)["text"] == TEXT
    assert endpoint.health()["jobs"]["completed"] >= 1
    assert endpoint.purge_queue()["status"] == "completed"


def test_a_failure_as_its_caller_sees_it(endpoint: Any, live: Platform, web: Any) -> None:
    job = endpoint.run({"input": {"audio_url": f"{web.url}/none.wav?signature=secret"}})
    assert wait_until(lambda: job.status() == "FAILED")
    shown = endpoint.rp_client.get(f"{ENDPOINT}/status/{job.job_id}")
    assert shown["error"] == "Failed to download audio: 404 Not Found"
    assert shown["output"].keys() == {"status", "message", "code", "timestamp", "created_at"}
    assert shown["output"]["message"] == shown["error"]
    assert (shown["output"]["status"], shown["output"]["code"]) == ("error", "download_failed")
    line = line_of(live.log, job.job_id)
    assert re.fullmatch(
        r"transcribe download_failed \(Failed to download audio: 404 Not Found\): "
        r"[\d.]+ s, download [\d.]+ s",
        line,
    )
    assert "secret" not in live.log.read_text()


def test_64_jobs_in_flight(live: Platform, clips: list[Clip]) -> None:
    chosen = (clips * 2)[:64]
    jobs = live.submit(*[{"input": {"audio_url": data_url(clip.path.read_bytes())}} for clip in chosen])
    assert wait_until(lambda: all(job.answers for job in jobs))
    assert live.most_in_progress == 64
    assert [job.answers for job in jobs] == [1] * 64
    heard = [job.result["output"]["text"].split() for job in jobs]
    right = [len(set(words) & set(clip.text.split())) / len(words) for words, clip in zip(heard, chosen, strict=True)]
    assert sum(right) / len(right) > 0.8  # each got its own words


def test_callers_beside_each_other(endpoint: Any, clips: list[Clip]) -> None:
    inputs = [{"audio_url": data_url(clip.path.read_bytes())} for clip in clips[:8]] * 3
    with ThreadPoolExecutor(24) as callers:
        answers = list(callers.map(lambda given: endpoint.run_sync({"input": given}, timeout=ANSWER_S), inputs))
    texts = [answer["text"] for answer in answers]
    assert texts[:8] == texts[8:16] == texts[16:]


def test_the_log_has_one_line_for_a_job(endpoint: Any, live: Platform, clip: Any) -> None:
    job = endpoint.run({"input": clip})
    assert job.output(timeout=ANSWER_S)["text"] == TEXT
    assert re.fullmatch(
        r"transcribe ok: \d\.\d{3} s of audio in \d\.\d{3} s \(RTFx \d+\), download \d\.\d{3} s, decode \d\.\d{3} s, "
        r"queue \d\.\d{3} s, model \d\.\d{3} s, batch \d+",
        line_of(live.log, job.job_id),
    )
    assert TEXT not in live.log.read_text()
    assert "base64" not in live.log.read_text()


def test_progress_of_a_long_job(endpoint: Any, live: Platform, long: Any) -> None:
    job = endpoint.run({"input": long})
    seen = []

    def is_done() -> bool:
        shown = endpoint.rp_client.get(f"{ENDPOINT}/status/{job.job_id}")
        if shown["status"] == "IN_PROGRESS" and "output" in shown:
            seen.append(shown["output"])
        return shown["status"] == "COMPLETED"  # type: ignore[no-any-return]

    assert wait_until(is_done, 60)
    check_schema(job.output(), "transcribe")
    assert seen
    for update in seen:
        assert 0 < update["seconds_done"] < 1800
        assert update["seconds_total"] == 1800
    assert live.jobs[job.job_id].answers == 1


def test_the_heartbeat_names_the_jobs(endpoint: Any, live: Platform, long: Any) -> None:
    job = endpoint.run({"input": long})
    assert wait_until(lambda: any(job.job_id in ping.get("job_id", "") for ping in live.pings))
    job.cancel()


def test_cancelled_while_it_waits_for_the_model(endpoint: Any, live: Platform, clip: Any) -> None:
    busy = [endpoint.run({"input": {"audio_url": data_url(encode(tone(200.0)))}}) for _ in range(4)]
    time.sleep(0.3)
    job = endpoint.run({"input": {"audio_url": data_url(encode(tone(60.0)))}})
    assert wait_until(lambda: live.jobs[job.job_id].handed_out)
    assert job.cancel()["status"] == "CANCELLED"
    assert re.match(r"transcribe cancelled: (60\.000 s of audio in )?[\d.]+ s", line_of(live.log, job.job_id))
    assert "model" not in line_of(live.log, job.job_id)
    for other in busy:
        other.cancel()
    assert endpoint.run_sync({"input": clip}, timeout=ANSWER_S)["text"] == TEXT
    assert live.jobs[job.job_id].answers == 0


def test_cancelled_while_it_is_downloaded(endpoint: Any, live: Platform, web: Any, clip: Any) -> None:
    asked, hung_up = threading.Event(), threading.Event()

    def drip(handler: Any) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", "10000000")
        handler.end_headers()
        asked.set()
        try:
            while True:
                handler.wfile.write(b"x" * 1000)
                time.sleep(0.05)
        except OSError:
            hung_up.set()

    web.routes["/drip"] = drip
    job = endpoint.run({"input": {"audio_url": web.url + "/drip"}})
    assert asked.wait(10)
    job.cancel()
    assert hung_up.wait(5)
    assert re.fullmatch(r"transcribe cancelled: [\d.]+ s(, download [\d.]+ s)?", line_of(live.log, job.job_id))
    assert endpoint.run_sync({"input": clip}, timeout=ANSWER_S)["text"] == TEXT


def test_cancelled_as_it_arrives(endpoint: Any, live: Platform, clip: Any) -> None:
    """The signal to stop a large job overtakes the job."""
    large = {"audio_url": data_url(encode(tone(600.0, 8_000), 8_000))}
    for _ in range(3):
        (job,) = live.submit({"input": large})
        assert wait_until(lambda: job.handed_out)  # noqa: B023 - waited for here
        live.cancel(job)
        assert line_of(live.log, job.id).startswith("transcribe cancelled: ")
    assert endpoint.run_sync({"input": clip}, timeout=ANSWER_S)["text"] == TEXT
    assert live.jobs[job.id].answers == 0


def test_cancelled_on_the_model(endpoint: Any, live: Platform, clip: Any, long: Any) -> None:
    job = endpoint.run({"input": long})
    assert wait_until(lambda: live.jobs[job.job_id].updates)
    job.cancel()
    assert endpoint.run_sync({"input": clip}, timeout=ANSWER_S)["text"] == TEXT
    assert "transcribe cancelled" in line_of(live.log, job.job_id)
    assert live.jobs[job.job_id].answers == 0


def test_a_webhook_gets_the_answer(endpoint: Any, web: Any, clip: Any) -> None:
    job = endpoint.run({"input": clip, "webhook": web.url + "/hook"})
    assert wait_until(lambda: web.posts)
    path, body = web.posts[0]
    assert path == "/hook"
    sent = json.loads(body)
    assert (sent["id"], sent["status"]) == (job.job_id, "COMPLETED")
    check_schema(sent["output"], "transcribe")


@pytest.mark.parametrize(
    "faults",
    [
        {"job-done": [500, 503, 429, "reset", 500]},
        {"job-take-batch": [500, "reset", 502, 400, 204]},
        {"job-take-batch": [429]},
        {"job-stop": [500, "reset", 404], "ping": [500, "reset"]},
        {"job": ["twice"]},
    ],
    ids=["results", "polls", "slow-down", "signals", "twice"],
)
def test_a_platform_that_fails(endpoint: Any, live: Platform, clip: Any, faults: Any) -> None:
    for kind, answers in faults.items():
        live.faults[kind].extend(answers)
    jobs = [endpoint.run({"input": clip}) for _ in range(3)]
    assert [job.output(timeout=ANSWER_S)["text"] for job in jobs] == [TEXT] * 3
    assert wait_until(lambda: not live.faults["job-take-batch"])
    assert [live.jobs[job.job_id].answers for job in jobs] == [1] * 3


def test_a_job_that_is_handed_out_twice_is_answered_once(endpoint: Any, live: Platform) -> None:
    live.faults["job"].extend(["twice", 0])
    job = endpoint.run({"input": {"audio_url": data_url(encode(tone(120.0)))}})
    assert job.output(timeout=ANSWER_S)["duration"] == 120
    time.sleep(0.5)
    assert live.jobs[job.job_id].handed_out == 2
    assert live.jobs[job.job_id].answers == 1


def test_no_log_level_prints_a_transcript(platform: Platform, tmp_path: Path, clip: Any) -> None:
    log = tmp_path / "log"
    # A worker of one job at a time asks for one job, not for a batch.
    with worker_process(platform, log, "--rp_log_level", "DEBUG", PARAKEET_CONCURRENCY="1"):
        inline = clip["audio_url"].partition(",")[2]
        jobs = platform.submit({"input": clip}, {"input": {"audio_base64": inline}}, {"input": {"audio_base64": "x!"}})
        assert wait_until(lambda: all(job.answers for job in jobs))
    assert [job.result["output"].get("text") for job in jobs] == [TEXT, TEXT, None]
    assert jobs[2].result["output"]["code"] == "invalid_audio_base64"
    assert "job-take" in platform.asked
    assert "job-take-batch" not in platform.asked
    assert "DEBUG  |" in log.read_text()
    assert LONGEST_WORD not in log.read_text()
    said = f"invalid_audio_base64 ({jobs[2].result['error']})"
    assert said in log.read_text()
    assert "base64" not in log.read_text().replace(said, "")


def test_a_log_for_machines(platform: Platform, tmp_path: Path, clip: Any) -> None:
    log = tmp_path / "log"
    with worker_process(platform, log, "--rp_log_level", "WARN", PARAKEET_LOG_FORMAT="json", PARAKEET_DEVICE="cpu"):
        good, bad = platform.submit({"input": clip}, {"input": {}})
        assert wait_until(lambda: good.answers and bad.answers)
    announcement, line = map(json.loads, log.read_text().splitlines())
    assert announcement.keys() == {"requestId", "level", "message"}
    assert announcement["message"].startswith("--- Starting Serverless Worker")
    assert (
        line.items()
        >= {
            "requestId": bad.id,
            "level": "WARN",
            "code": "missing_field",
            "error": "audio_url is required",
        }.items()
    )


def test_every_line_for_machines_is_an_object(platform: Platform, tmp_path: Path, clip: Any) -> None:
    """Of the start, of odd ids and batches, of faults, of the heartbeat's process, and of the end."""
    log = tmp_path / "log"
    odd = {"a%0Ab": "a\nb", "%ED%A0%80": "\ud800", "c%20%7C%20d": "c | d"}
    raw = {
        # The simulator cannot hold a lone surrogate.
        quoted if job_id == "\ud800" else job_id: json.dumps(
            {"id": job_id, "batchId": "x\n\x1b[2J", "input": {"action": "model_info"}}
        )
        for quoted, job_id in odd.items()
    }
    environ = {"PARAKEET_LOG_FORMAT": "json", "RUNPOD_PING_INTERVAL": "1000"}
    with worker_process(platform, log, "--rp_log_level", "DEBUG", **environ) as process:  # type: ignore[arg-type]
        jobs = [*platform.submit({"input": clip}), *platform.submit_raw(raw)]
        assert wait_until(lambda: all(job.answers for job in jobs))
        assert wait_until(lambda: "Heartbeat Sent" in log.read_text())
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    text = log.read_text()
    assert re.fullmatch(r"[ -~\n]+", text)
    lines = [json.loads(line) for line in text.splitlines()]
    assert all(line.keys() >= {"requestId", "level", "message"} for line in lines)
    assert any(line["message"].startswith("--- Starting Serverless Worker") for line in lines)
    assert {line["level"] for line in lines} == {"DEBUG", "INFO", "WARN"}
    assert [line["event"] for line in lines if "event" in line] == ["ready", "summary"]
    (summary,) = [line for line in lines if line.get("event") == "summary"]
    assert (summary["codes"], summary["is_last"]) == ({"ok": 4}, True)
    done = [line["requestId"] for line in lines if "code" in line]
    assert sorted(done) == sorted([jobs[0].id, *odd])
    assert not any(LONGEST_WORD in line["message"] for line in lines)


def test_sigterm_with_jobs_in_flight(tmp_path: Path, clips: list[Clip]) -> None:
    platform = Platform(hold=60)
    given = [{"input": {"audio_url": data_url(encode(tone(20.0 + index)))}} for index in range(16)]
    with worker_process(platform, tmp_path / "log", PARAKEET_CONCURRENCY="20") as process:
        (first,) = platform.submit({"input": {"action": "model_info"}})
        assert wait_until(lambda: first.answers)
        jobs = platform.submit(*given)
        assert wait_until(lambda: all(job.handed_out for job in jobs))
        assert not all(job.answers for job in jobs)
        process.send_signal(signal.SIGTERM)
        time.sleep(1.5)  # a poll that is open takes jobs for one second more
        (late,) = platform.submit({"input": {"action": "model_info"}})
        assert process.wait(20) == 0
    assert [(job.answers, job.status) for job in jobs] == [(1, "COMPLETED")] * 16
    assert late.handed_out == 0
    platform.close()


WAITING = """
import asyncio
import runpod
from parakeet_worker.serverless import job_loop

job_loop._STOPPING_S, job_loop.LAST_UPDATE_S = 1.5, 6.0
assert job_loop.install() is None

async def wait(job):
    job_loop.progress_callback.get()(1.0, 2.0)
    await asyncio.sleep(job["input"]["seconds"])
    return {"status": "success"}

if __name__ == "__main__":
    runpod.serverless.start({"handler": wait, "concurrency_modifier": lambda _: 4})
"""


def test_sigterm_while_updates_hang(platform: Platform, tmp_path: Path) -> None:
    script = tmp_path / "waiting.py"
    script.write_text(WAITING)
    platform.update_latency = 60.0
    with worker_process(platform, tmp_path / "log", script=script) as process:
        # When the time to stop is over, the answer of the one waits for its update, and the other has none yet.
        done, late = platform.submit({"input": {"seconds": 1.0}}, {"input": {"seconds": 60.0}})
        assert wait_until(lambda: done.updates and late.updates)
        process.send_signal(signal.SIGTERM)
        assert wait_until(lambda: late.answers, 5)  # with the wait for its update, it would be after 7.5 s
        assert process.wait(20) == 0
    assert (done.answers, done.status) == (1, "COMPLETED")
    assert late.result["output"]["code"] == "worker_busy"


def test_sigkill_leaves_nothing_behind(platform: Platform, tmp_path: Path, web: Any, clip: Any) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    asked = threading.Event()

    def stall(handler: Any) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", "1000000")
        handler.end_headers()
        handler.wfile.write(b"x" * 500_000)
        asked.set()
        time.sleep(3)

    web.routes["/stall"] = stall
    audio = soundfile.read(ROOT / "tests" / "speech" / "clip02.flac")[0]
    movie = data_url(encode(audio, container="FLAC"))
    for _ in range(2):
        asked.clear()
        with worker_process(platform, tmp_path / "log", TMPDIR=str(scratch)) as process:
            jobs = platform.submit({"input": {"audio_url": web.url + "/stall"}}, {"input": {"audio_url": movie}})
            assert wait_until(lambda: asked.is_set() and jobs[1].answers)  # noqa: B023 - waited for here
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(10)
        assert list(scratch.iterdir()) == []
    platform.requeue()
    web.serve("/stall", b"")
    with worker_process(platform, tmp_path / "log", TMPDIR=str(scratch)):
        assert wait_until(lambda: platform.finished() == 4)
    assert sorted(job.status for job in platform.jobs.values()) == ["COMPLETED", "COMPLETED", "FAILED", "FAILED"]


def test_an_unfit_worker_takes_no_job(platform: Platform, tmp_path: Path, clip: Any) -> None:
    with worker_process(platform, tmp_path / "log", PARAKEET_DEVICE="cuda") as process:
        (job,) = platform.submit({"input": clip})
        assert process.wait(30) == 1
    assert not any(kind.startswith("job-") for kind in platform.asked)
    assert job.handed_out == 0
    (ping,) = [ping for ping in platform.pings if "status" in ping]
    assert (ping["status"], ping["check"]) == ("unhealthy", "model_is_fit")


FAILING = f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
from handler import handler, settings, worker
from parakeet_worker.asr.types import DeviceFailedError
from parakeet_worker.model.recognizer import PlainRecognizer
from parakeet_worker.startup import start

pad = PlainRecognizer.pad

def pad_or_fail(self, batch, options=()):
    if any(len(signal) == 7 * 16_000 for signal in batch):
        raise DeviceFailedError("CUDA error: an illegal memory access was encountered")
    return pad(self, batch, options)

PlainRecognizer.pad = pad_or_fail
if __name__ == "__main__":
    start(handler, settings, worker)
"""


def test_a_worker_whose_device_failed_is_replaced(platform: Platform, tmp_path: Path, clip: Any) -> None:
    script = tmp_path / "failing.py"
    script.write_text(FAILING)
    with worker_process(platform, tmp_path / "log", script=script) as process:
        (good,) = platform.submit({"input": clip})
        assert wait_until(lambda: good.answers)
        (bad,) = platform.submit({"input": {"audio_url": data_url(encode(tone(7.0)))}})
        assert process.wait(30) == 0
        (late,) = platform.submit({"input": clip})
    assert good.status == "COMPLETED"
    assert bad.result["stopPod"] is True
    assert bad.result["output"]["code"] == "device_failed"
    assert late.handed_out == 0


def test_the_local_modes_are_the_sdks(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "handler.py", "--test_input", '{"input": {"action": "model_info"}}'],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0
    assert "model_info ok: " in done.stdout
