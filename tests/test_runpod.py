"""The worker as RunPod's SDK runs it: the local test mode, the local API server, and run_job."""

import asyncio
import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import requests
from runpod.serverless.modules.rp_job import run_job

from audio_files import data_url, encode, tone
from conftest import ROOT, check_schema
from parakeet_worker import __version__
from parakeet_worker.audio.sniff import SUPPORTED_FORMATS
from parakeet_worker.errors import Code, JobError
from parakeet_worker.serving import Worker, serve
from parakeet_worker.settings import Settings

TEXT = "The children must learn to reason."
SDK_LINE = re.compile(r"(DEBUG|INFO|WARN|ERROR) *\| |--- Starting Serverless Worker")


def run_handler(*arguments: str, cwd: Path = ROOT, **environ: str) -> subprocess.CompletedProcess:
    command = [sys.executable, str(ROOT / "handler.py"), *arguments]
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("RUNPOD_", "PARAKEET_"))}
    env = kept | {"PARAKEET_LEAN_IMPORTS": os.environ.get("PARAKEET_LEAN_IMPORTS", "true")} | environ
    return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=120, check=False)


def result_of(done: subprocess.CompletedProcess) -> dict:
    (line,) = [line for line in done.stdout.splitlines() if "Job result: " in line]
    return eval(line.partition("Job result: ")[2])["output"]  # the SDK prints Python's form


def test_the_bundled_input_is_transcribed_in_peace():
    done = run_handler()
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert [line for line in done.stdout.splitlines() if not SDK_LINE.match(line)] == []
    assert "Since " not in done.stdout  # no summary
    answer = result_of(done)
    check_schema(answer, "transcribe")
    assert answer["text"] == TEXT
    assert answer["timestamps"]["segment"][0]["segment"] == TEXT


def test_lean_imports_change_nothing_but_the_time():
    lean, whole = (result_of(run_handler(PARAKEET_LEAN_IMPORTS=switch)) for switch in ("true", "false"))
    for answer in (lean, whole):
        del answer["processing_time"], answer["timestamp"]
    assert lean == whole
    assert lean["timestamps"]["char"]


def test_input_from_the_command_line():
    done = run_handler("--test_input", '{"input": {"action": "model_info"}}')
    assert done.returncode == 0, done.stderr
    answer = result_of(done)
    check_schema(answer, "model_info")
    assert answer == {
        "status": "success",
        "model": "parakeet-tdt-mini",
        "parameters": "4.8M",
        "architecture": "FastConformer-TDT",
        "supported_formats": list(SUPPORTED_FORMATS),
        "sample_rate": "16kHz",
        "max_duration": "5 minutes per pass",
        "max_request_duration": "240 minutes per request",
        "features": [
            "Automatic punctuation",
            "Automatic capitalization",
            "Word-level timestamps",
            "Segment-level timestamps",
            "Character-level timestamps",
        ],
        "license": "MIT",
    }


def test_a_failed_job_from_the_command_line():
    done = run_handler("--test_input", '{"input": {"audio_url": ""}}')
    assert done.returncode == 1
    assert "failed with error: audio_url must not be empty" in done.stdout


def test_nonsense_in_a_setting_stops_the_start():
    done = run_handler(PARAKEET_DEVICE="gpu")
    assert done.returncode == 1
    assert done.stderr == "parakeet-worker: PARAKEET_DEVICE must be auto, cpu or cuda; it is 'gpu'\n"
    assert done.stdout == ""


def test_a_misspelt_setting_stops_the_start():
    done = run_handler(PARAKEET_CONCURENCY="64")
    assert done.returncode == 1
    assert done.stderr == (
        "parakeet-worker: PARAKEET_CONCURENCY is not a setting; did you mean PARAKEET_CONCURRENCY?\n"
    )


def test_what_stops_the_start_is_json_too_when_asked_for():
    done = run_handler(PARAKEET_DEVICE="gpu", PARAKEET_LOG_FORMAT="json")
    assert done.returncode == 1
    assert done.stdout == ""
    assert json.loads(done.stderr) == {
        "requestId": None,
        "level": "ERROR",
        "message": "parakeet-worker: PARAKEET_DEVICE must be auto, cpu or cuda; it is 'gpu'",
    }


@pytest.mark.parametrize("option", ["--help", "-h", "--he"])
def test_help_loads_no_model(option):
    code = f"""
import atexit, runpy, sys
loaded = ("torch", "nemo", "parakeet_worker.serving", "parakeet_worker.dispatch")
atexit.register(lambda: print([name for name in loaded if name in sys.modules]))
sys.argv = ["handler.py", "--rp_serve_api", {option!r}]
runpy.run_path("handler.py", run_name="__main__")
"""
    # A setting that stops the start is no reason to give no help.
    env = os.environ | {"PARAKEET_DEVICE": "gpu"}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    *lines, loaded = done.stdout.splitlines()
    assert loaded == "[]"
    assert any("--rp_serve_api" in line for line in lines)
    assert "PARAKEET_" in lines[-1] + lines[-2]


def test_the_line_that_says_ready():
    done = run_handler(PARAKEET_BATCH_SECONDS="77", PARAKEET_CONCURRENCY="5", PARAKEET_DEVICE="cpu")
    (line,) = [line for line in done.stdout.splitlines() if " is ready " in line]
    assert re.fullmatch(
        r"INFO   \| parakeet-tdt-mini is ready after \d+\.\d\d s: imports \d+\.\d\d s, .*warm-up \d+\.\d\d s; "
        r"on cpu in float32, 5 jobs at a time, batches of 77 s at most, "
        rf"model sha256 01dde476500c, worker {re.escape(__version__)}\.",
        line,
    )
    assert "WARN" not in done.stdout


def test_a_start_in_json():
    done = run_handler(PARAKEET_LOG_FORMAT="json", RUNPOD_POD_ID="pod")
    assert done.returncode == 0
    assert done.stderr == ""
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert all(line.keys() >= {"requestId", "level", "message"} for line in lines)
    assert lines[0]["message"].startswith("--- Starting Serverless Worker")
    (ready,) = [line for line in lines if line.get("event") == "ready"]
    assert (
        ready.items()
        >= {
            "level": "INFO",
            "model": "parakeet-tdt-mini",
            "revision": "sha256 01dde476500c",
            "worker": __version__,
            "device": "cpu",
            "precision": "float32",
            "concurrency": 8,
            "batch_limit_s": 120.0,
        }.items()
    )
    assert ready.keys() >= {"ready_s", "imports_s", "warm_up_s"}
    # On RunPod there should be a GPU.
    (warning,) = [line for line in lines if line["level"] == "WARN"]
    assert warning["message"].startswith("PARAKEET_DEVICE is auto, and torch finds no GPU")


def test_importing_the_handler_loads_no_model():
    code = "import sys, handler; sys.exit(any(name in sys.modules for name in ('torch', 'nemo')))"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, timeout=60, check=False).returncode == 0


@pytest.fixture(scope="module")
def api():
    """`python handler.py --rp_serve_api` in a process of its own."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "handler.py", "--rp_serve_api", "--rp_api_port", str(port)]
    env = os.environ | {"RUNPOD_ALLOW_PRIVATE_DOWNLOAD_URLS": "true", "PARAKEET_MAX_AUDIO_MINUTES": "5"}
    with subprocess.Popen(command, cwd=ROOT, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        url = f"http://localhost:{port}/runsync"
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            try:
                requests.get(f"http://localhost:{port}/", timeout=5)
                break
            except requests.ConnectionError:
                time.sleep(0.2)
        yield lambda body: requests.post(url, json=body, timeout=60).json()
        process.terminate()


def test_runsync_answers_both_actions(api, clips):
    answer = api({"input": {"audio_url": data_url(clips[2].path.read_bytes()), "timestamps": True}})
    assert answer["status"] == "COMPLETED"
    check_schema(answer["output"], "transcribe")
    assert answer["output"]["text"] == TEXT
    answer = api({"input": {"action": "model_info"}})
    check_schema(answer["output"], "model_info")


def test_runsync_failures_are_one_sentence_each(api, server):
    cut = encode(tone(1.0))[:-500]
    long = encode(tone(301.0, 8_000), 8_000)
    for job_input, said in [
        ({}, "audio_url is required"),
        ({"audio_url": server.url + "/none.wav"}, "Failed to download audio: 404 Not Found"),
        ({"audio_url": data_url(b"")}, "the audio file is empty: it has no bytes"),
        ({"audio_url": data_url(cut)}, "the audio is truncated: the file ends before its declared length"),
        (
            {"audio_url": data_url(long)},
            "the audio lasts 301.0 seconds, more than the 300 that are taken: split it",
        ),
    ]:
        answer = api({"input": job_input})
        assert (answer["status"], answer["error"]) == ("FAILED", said)


def test_run_job_gives_what_the_platform_sends(clips):
    import handler

    done = asyncio.run(run_job(handler.handler, {"id": "1", "input": {"audio_url": "gopher://x"}}))
    assert done["error"] == "audio_url must be an http:, https: or data: URL"
    assert done["output"].keys() == {"status", "code", "timestamp"}
    assert (done["output"]["status"], done["output"]["code"]) == ("error", "invalid_url")
    job = {"id": "2", "input": {"audio_url": data_url(clips[2].path.read_bytes())}}
    done = asyncio.run(run_job(handler.handler, job))
    assert done.keys() == {"output"}
    check_schema(done["output"], "transcribe")


class Fault:
    """A dispatcher that fails, for faults that cannot be had here."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    async def __call__(self, _, __, ___):
        raise self.error

    def close(self):
        pass


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ValueError("/secret/path?signature=abc"), "internal_error"),
        (RecursionError(), "internal_error"),
        (JobError(Code.OUT_OF_MEMORY, "the worker ran out of memory"), "out_of_memory"),
        (JobError(Code.DEVICE_FAILED, "the worker is being replaced"), "device_failed"),
    ],
)
def test_no_exception_escapes_and_none_is_shown(error, code, capsys):
    answer = asyncio.run(Worker(Fault(error)).answer({"id": "1", "input": {"action": "model_info"}}))
    check_schema(answer, "")
    assert answer["code"] == code
    assert answer.get("refresh_worker") is (True if code == "device_failed" else None)
    shown = json.dumps(answer) + capsys.readouterr().out
    assert "secret" not in shown
    assert "signature" not in shown


@pytest.mark.parametrize("logs_json", [False, True])
@pytest.mark.parametrize(
    ("job_id", "shown"),
    [
        ("a\nERROR  | forged", "a%0AERROR%20%20%7C%20forged"),
        ("\x1b[2J\r\x85\u2028", "%1B%5B2J%0D%C2%85%E2%80%A8"),
        ("\ud800", "%ED%A0%80"),
        pytest.param("x" * 1_000_000, "x" * 200, id="a long string"),
        (7, "7"),
        (None, None),
        pytest.param(10**5_000, None, id="a long number"),
        ({"id": 1}, None),
    ],
)
def test_no_id_makes_a_line_of_its_own(job_id, shown, logs_json, capsys):
    job = {"id": job_id, "input": {"action": "model_info", "a\nb": 1}}
    answer = asyncio.run(Worker(Fault(ValueError()), logs_json=logs_json).answer(job))
    assert answer["code"] == "unknown_field"
    (line,) = capsys.readouterr().out.splitlines()
    if logs_json:
        assert line.isprintable()
        assert json.loads(line)["requestId"] == shown
    else:
        assert line.isprintable()
        assert line.startswith(f"WARN   | {shown} | unknown_field (" if shown else "WARN   | unknown_field (")


def test_a_fault_is_found_by_its_line(capsys):
    asyncio.run(Worker(Fault(ValueError("secret"))).answer({"id": "1", "input": {"action": "model_info"}}))
    fault, line = capsys.readouterr().out.splitlines()
    assert re.fullmatch(
        r"ERROR  \| 1 \| ValueError at tests/test_runpod\.py:\d+ in __call__, "
        r"parakeet_worker/serving\.py:\d+ in _carry_out",
        fault,
    )
    assert line.startswith("ERROR  | 1 | model_info internal_error (")


def test_cancellation_goes_through():
    with pytest.raises(asyncio.CancelledError):
        asyncio.run(Worker(Fault(asyncio.CancelledError())).answer({"input": {"action": "model_info"}}))


@pytest.mark.usefixtures("private_addresses")
@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="open files are listed under /proc")
def test_a_job_cancelled_while_downloading_is_gone_at_once(worker, server, scratch):
    asked, released = threading.Event(), threading.Event()

    def stall(handler):
        handler.send_response(200)
        handler.send_header("Content-Length", "100000")
        handler.end_headers()
        handler.wfile.write(b"x" * 50_000)
        handler.wfile.flush()
        asked.set()
        released.wait(20)

    def downloads() -> list[str]:
        links = [link for link in Path("/proc/self/fd").iterdir() if link.is_symlink()]
        return [target for link in links if str(scratch) in (target := str(link.readlink()))]

    async def cancel() -> None:
        job = asyncio.create_task(worker.answer({"id": "1", "input": {"audio_url": server.url + "/stall"}}))
        await asyncio.to_thread(asked.wait, 10)
        assert len(downloads()) == 1
        job.cancel()
        started = time.monotonic()
        with pytest.raises(asyncio.CancelledError):
            await job
        assert time.monotonic() - started < 0.1

    server.routes["/stall"] = stall
    asyncio.run(cancel())
    deadline = time.monotonic() + 5
    while downloads() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert downloads() == []
    assert not list(scratch.iterdir())
    released.set()


@pytest.mark.parametrize(("environ", "expected"), [({}, (8, 64)), ({"PARAKEET_CONCURRENCY": "3"}, (3,))])
def test_the_number_of_jobs_is_constant(monkeypatch, environ, expected):
    """The SDK's loop needs a platform to run; what it is given does not."""
    given = {}
    monkeypatch.setattr("runpod.serverless.start", given.update)
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    serve(None, Worker(Fault(ValueError())), Settings.from_env().concurrency_on_device)
    numbers = {given["concurrency_modifier"](current) for current in (1, 5, 64)}
    assert len(numbers) == 1
    assert numbers <= set(expected)
