"""The worker as RunPod's SDK runs it: the local test mode, the local API server, and run_job."""

import asyncio
import contextlib
import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
import torch
from runpod.serverless.modules.rp_job import run_job

from audio_files import data_url, encode, tone
from loopback import LoopbackServer
from parakeet_worker import __version__
from parakeet_worker.audio.formats.sniff import SUPPORTED_FORMATS
from parakeet_worker.errors import Code, JobError
from parakeet_worker.model.card import Card
from parakeet_worker.serverless.local import prepare_test_input
from parakeet_worker.serverless.serve import serve
from parakeet_worker.serverless.worker import Worker
from parakeet_worker.settings import Settings
from project import MODEL_DIR, ROOT, TEXT, Clip, check_schema

REVISION = Card.read(MODEL_DIR).revision
SDK_LINE = re.compile(r"(DEBUG|INFO|WARN|ERROR) *\| |--- Starting Serverless Worker")


def run_handler(*arguments: str, cwd: Path = ROOT, **environ: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "handler.py"), *arguments]
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("RUNPOD_", "PARAKEET_"))}
    return subprocess.run(
        command, cwd=cwd, env=kept | environ, capture_output=True, text=True, timeout=120, check=False
    )


def result_of(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    (line,) = [line for line in done.stdout.splitlines() if "Job result: " in line]
    return eval(line.partition("Job result: ")[2])["output"]  # type: ignore[no-any-return]  # the SDK prints Python's form


def test_the_bundled_input_is_transcribed_in_peace() -> None:
    done = run_handler()
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert [line for line in done.stdout.splitlines() if not SDK_LINE.match(line)] == []
    assert "Since " not in done.stdout  # no summary
    answer = result_of(done)
    check_schema(answer, "transcribe")
    assert answer["text"] == TEXT
    assert answer["timestamps"]["segment"][0]["segment"] == TEXT


def test_it_runs_from_any_directory_without_being_installed(tmp_path: Path) -> None:
    # -S leaves out the editable package that is installed here, and the rest of what is installed is put back.
    code = f"""
import runpy, sys
sys.path += [{str(Path(requests.__file__).parents[1])!r}]
sys.argv = [{str(ROOT / "handler.py")!r}]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(("RUNPOD_", "PARAKEET_", "PYTHON"))
    }
    command = [sys.executable, "-S", "-c", code]
    done = subprocess.run(command, cwd=tmp_path, env=kept, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert result_of(done)["text"] == TEXT


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("{bad", "is not JSON: Expecting property name enclosed in double quotes: line 1 column 2 (char 1)"),
        ("[1]", 'must be a JSON object such as {"input": {"action": "model_info"}}'),
        ("{}", 'must be a JSON object such as {"input": {"action": "model_info"}}'),
    ],
)
def test_a_malformed_job_is_one_sentence(given: Any, said: Any) -> None:
    done = run_handler("--test_input", given)
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr == f"parakeet-worker: --test_input {said}\n"


def test_a_malformed_file_in_the_working_directory_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "test_input.json").write_text("null")
    done = run_handler(cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith("parakeet-worker: test_input.json must be a JSON object")


@pytest.mark.parametrize(
    ("arguments", "environ", "is_given"),
    [
        ([], {}, True),
        (["--rp_log_level", "INFO"], {}, True),
        (["--test_input", '{"input": {}}'], {}, False),
        (["--rp_serve_api"], {}, False),
        ([], {"RUNPOD_REALTIME_PORT": "9000"}, False),
        ([], {"RUNPOD_WEBHOOK_GET_JOB": "http://localhost"}, False),
    ],
)
def test_the_bundled_job_is_only_for_the_local_test_mode(
    arguments: Any, environ: Any, is_given: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["handler.py", *arguments])
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    prepare_test_input()
    added = sys.argv[1 + len(arguments) :]
    assert added[:1] == ["--test_input"] * is_given
    # A file in the working directory comes first.
    sys.argv = ["handler.py", *arguments]
    (tmp_path / "test_input.json").write_text('{"input": {}}')
    prepare_test_input()
    assert sys.argv == ["handler.py", *arguments]


def transcribe(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "parakeet_worker", *arguments]
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("RUNPOD_", "PARAKEET_"))}
    env = kept | {"PYTHONPATH": str(ROOT / "src")} | environ
    return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=120, check=False)


def test_a_file_is_transcribed_for_a_reader(ask: Any, clips: list[Clip]) -> None:
    expected = ask({"input": {"audio_url": data_url(clips[18].path.read_bytes()), "timestamps": True}})
    done = transcribe(str(clips[18].path.relative_to(ROOT)))
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    logged, text, shown = done.stdout.split("\n\n")
    assert all(SDK_LINE.match(line) for line in logged.splitlines())
    assert text == expected["text"] != TEXT
    answer = json.loads(shown)
    check_schema(answer, "transcribe")
    assert {name: answer[name] for name in ("text", "timestamps")} == {
        name: expected[name] for name in ("text", "timestamps")
    }
    assert f"\n      {json.dumps(answer['timestamps']['word'][0])},\n" in shown


def test_a_url_is_passed_on() -> None:
    done = transcribe("http://127.0.0.1:9/x.wav")
    assert done.returncode == 1
    assert done.stderr == "parakeet-worker: audio_url must lead to a public address\n"


def test_a_file_that_cannot_be_sent_is_one_sentence(tmp_path: Path) -> None:
    done = transcribe("none.wav")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "parakeet-worker: 'none.wav' cannot be read: No such file or directory\n"
    large = tmp_path / "large.wav"
    large.write_bytes(bytes(1_000_001))
    done = transcribe(str(large), PARAKEET_MAX_DOWNLOAD_MB="1")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "parakeet-worker: the audio file is larger than the 1 MB that are allowed\n"


def test_input_from_the_command_line() -> None:
    done = run_handler("--test_input", '{"input": {"action": "model_info"}}', PARAKEET_PASS_SECONDS="30")
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
        "max_duration": "33 seconds per pass",  # the least: a window of 30 with one overlap of 3
        "max_pass_seconds": 33,
        "max_request_duration": "240 minutes per request",
        "max_request_seconds": 14_400,
        "features": [
            "Automatic punctuation",
            "Automatic capitalization",
            "Word-level timestamps",
            "Segment-level timestamps",
            "Character-level timestamps",
            "Confidence scores",
            "Key terms",
            "Captions (SRT, VTT)",
        ],
        "license": "MIT",
        "version": __version__,
        "engine": "plain",
        "device": "cpu",
        "precision": "float32",
    }


def test_a_failed_job_from_the_command_line() -> None:
    done = run_handler("--test_input", '{"input": {"audio_url": ""}}')
    assert done.returncode == 1
    assert "failed with error: audio_url must not be empty" in done.stdout


def test_nonsense_in_a_setting_stops_the_start() -> None:
    done = run_handler(PARAKEET_DEVICE="gpu")
    assert done.returncode == 1
    assert done.stderr == "parakeet-worker: PARAKEET_DEVICE must be auto, cpu or cuda; it is 'gpu'\n"
    assert done.stdout == ""


def test_a_misspelt_setting_stops_the_start() -> None:
    done = run_handler(PARAKEET_CONCURENCY="64")
    assert done.returncode == 1
    assert done.stderr == (
        "parakeet-worker: PARAKEET_CONCURENCY is not a setting; did you mean PARAKEET_CONCURRENCY?\n"
    )


def test_what_stops_the_start_is_json_too_when_asked_for() -> None:
    done = run_handler(PARAKEET_DEVICE="gpu", PARAKEET_LOG_FORMAT="json")
    assert done.returncode == 1
    assert done.stdout == ""
    assert json.loads(done.stderr) == {
        "requestId": None,
        "level": "ERROR",
        "message": "parakeet-worker: PARAKEET_DEVICE must be auto, cpu or cuda; it is 'gpu'",
    }


@pytest.mark.parametrize("option", ["--help", "-h", "--he"])
def test_help_loads_no_model(option: Any) -> None:
    code = f"""
import atexit, runpy, sys
loaded = ("torch", "nemo", "parakeet_worker.serverless.worker", "parakeet_worker.job.actions")
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


def test_the_line_that_says_ready() -> None:
    done = run_handler(PARAKEET_BATCH_SECONDS="77", PARAKEET_CONCURRENCY="5", PARAKEET_DEVICE="cpu")
    (line,) = [line for line in done.stdout.splitlines() if " is ready " in line]
    assert re.fullmatch(
        r"INFO   \| parakeet-tdt-mini is ready after \d+\.\d\d s: imports \d+\.\d\d s, .*warm-up \d+\.\d\d s; "
        r"on cpu in float32, (plain|nemo) engine, eager, 5 jobs at a time, batches of 77 s at most, "
        rf"model {REVISION}, worker {re.escape(__version__)}\.",
        line,
    )
    assert "WARN" not in done.stdout


def test_a_start_in_json() -> None:
    done = run_handler(PARAKEET_LOG_FORMAT="json", RUNPOD_POD_ID="pod", PARAKEET_BATCH_SECONDS="120")
    assert done.returncode == 0
    assert done.stderr == ""
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert all(line.keys() >= {"requestId", "level", "message"} for line in lines)
    # The model may be ready before RunPod's SDK says its first word.
    (_,) = [line for line in lines if line["message"].startswith("--- Starting Serverless Worker")]
    (ready,) = [line for line in lines if line.get("event") == "ready"]
    assert (
        ready.items()
        >= {
            "level": "INFO",
            "model": "parakeet-tdt-mini",
            "revision": REVISION,
            "worker": __version__,
            "device": "cpu",
            "precision": "float32",
            "graphs": 0,
            "concurrency": 8,
            "batch_limit_s": 120,
        }.items()
    )
    assert ready.keys() >= {"engine", "ready_s", "imports_s", "warm_up_s"}
    # On RunPod there should be a GPU.
    (warning,) = [line for line in lines if line["level"] == "WARN"]
    assert warning["message"].startswith("PARAKEET_DEVICE is auto, and torch finds no GPU")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_the_log_says_why_a_model_is_not_loaded() -> None:
    done = run_handler(PARAKEET_DEVICE="cuda")
    assert "the worker could not load its model" in done.stdout
    assert (
        "ERROR  | local_test | PARAKEET_DEVICE is cuda, and torch finds no GPU that it can use (RuntimeError at "
        in done.stdout
    )


IMPORT = """
import cpuinfo
look_up = cpuinfo.get_cpu_info
from parakeet_worker.serverless.sdk import import_sdk
import_sdk()
assert cpuinfo.get_cpu_info is look_up
from runpod.serverless.utils.rp_debugger import PROCESSOR
print(PROCESSOR)
"""


def test_the_sdk_is_imported_without_the_program_that_names_the_processor() -> None:
    done = subprocess.run([sys.executable, "-c", IMPORT], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "Unable to get processor info.\n"


def test_importing_the_handler_loads_no_model() -> None:
    code = "import sys, handler; sys.exit(any(name in sys.modules for name in ('torch', 'nemo')))"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, timeout=60, check=False).returncode == 0


@pytest.fixture(scope="module")
def api() -> Iterator[Any]:
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
            except requests.RequestException:
                time.sleep(0.2)
        yield lambda body: requests.post(url, json=body, timeout=60).json()
        process.kill()


def test_runsync_answers_both_actions(api: Any, clips: list[Clip]) -> None:
    answer = api({"input": {"audio_url": data_url(clips[2].path.read_bytes()), "timestamps": True}})
    assert answer["status"] == "COMPLETED"
    check_schema(answer["output"], "transcribe")
    assert answer["output"]["text"] == TEXT
    answer = api({"input": {"action": "model_info"}})
    check_schema(answer["output"], "model_info")


def test_runsync_failures_are_one_sentence_each(api: Any, server: LoopbackServer) -> None:
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


def test_run_job_gives_what_the_platform_sends(clips: list[Clip]) -> None:
    import handler

    done = asyncio.run(run_job(handler.handler, {"id": "1", "input": {"audio_url": "gopher://x"}}))
    assert done["error"] == "audio_url must be an http:, https: or data: URL"
    assert done["output"].keys() == {"status", "message", "code", "timestamp", "created_at"}
    assert done["output"]["message"] == done["error"]
    assert (done["output"]["status"], done["output"]["code"]) == ("error", "invalid_url")
    job = {"id": "2", "input": {"audio_url": data_url(clips[2].path.read_bytes())}}
    done = asyncio.run(run_job(handler.handler, job))
    assert done.keys() == {"output"}
    check_schema(done["output"], "transcribe")


class Fault:
    """Actions that fail, for faults that cannot be had here."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    async def run(self, _: Any, __: Any) -> None:
        raise self.error

    def close(self) -> None:
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
def test_no_exception_escapes_and_none_is_shown(error: Any, code: Any, capsys: pytest.CaptureFixture[str]) -> None:
    answer = asyncio.run(Worker(Fault(error)).answer({"id": "1", "input": {"action": "model_info"}}))  # type: ignore[arg-type]
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
def test_no_id_makes_a_line_of_its_own(
    job_id: Any, shown: Any, logs_json: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    job = {"id": job_id, "input": {"action": "model_info", "a\nb": 1}}
    answer = asyncio.run(Worker(Fault(ValueError()), logs_json=logs_json).answer(job))  # type: ignore[arg-type]
    assert answer["code"] == "unknown_field"
    (line,) = capsys.readouterr().out.splitlines()
    if logs_json:
        assert line.isprintable()
        assert json.loads(line)["requestId"] == shown
    else:
        assert line.isprintable()
        assert line.startswith(f"WARN   | {shown} | unknown_field (" if shown else "WARN   | unknown_field (")


def test_a_fault_is_found_by_its_line(capsys: pytest.CaptureFixture[str]) -> None:
    asyncio.run(Worker(Fault(ValueError("secret"))).answer({"id": "1", "input": {"action": "model_info"}}))  # type: ignore[arg-type]
    fault, line = capsys.readouterr().out.splitlines()
    assert re.fullmatch(
        r"ERROR  \| 1 \| ValueError at integration/test_sdk\.py:\d+ in run, "
        r"serverless/worker\.py:\d+ in _carry_out",
        fault,
    )
    assert line.startswith("ERROR  | 1 | model_info internal_error (")


def test_cancellation_goes_through() -> None:
    with pytest.raises(asyncio.CancelledError):
        asyncio.run(Worker(Fault(asyncio.CancelledError())).answer({"input": {"action": "model_info"}}))  # type: ignore[arg-type]


@pytest.mark.usefixtures("private_addresses")
@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="open files are listed under /proc")
def test_a_job_cancelled_while_downloading_is_gone_at_once(worker: Any, server: LoopbackServer, scratch: Path) -> None:
    asked, released = threading.Event(), threading.Event()

    def stall(handler: Any) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", "100000")
        handler.end_headers()
        handler.wfile.write(b"x" * 50_000)
        handler.wfile.flush()
        asked.set()
        released.wait(20)

    def downloads() -> list[str]:
        targets = []
        for link in Path("/proc/self/fd").iterdir():
            with contextlib.suppress(FileNotFoundError):  # closed meanwhile
                targets.append(str(link.readlink()))
        return [target for target in targets if str(scratch) in target]

    async def cancel() -> None:
        job = asyncio.create_task(worker.answer({"id": "1", "input": {"audio_url": server.url + "/stall"}}))
        await asyncio.to_thread(asked.wait, 10)
        assert len(downloads()) == 1
        job.cancel()
        started = time.monotonic()
        with pytest.raises(asyncio.CancelledError):
            await job
        assert time.monotonic() - started < 5  # the server is silent for 20 s

    server.routes["/stall"] = stall
    asyncio.run(cancel())
    deadline = time.monotonic() + 5
    while downloads() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert downloads() == []
    assert not list(scratch.iterdir())
    released.set()


@pytest.mark.parametrize(("environ", "expected"), [({}, (8, 64)), ({"PARAKEET_CONCURRENCY": "3"}, (3,))])
def test_the_number_of_jobs_is_constant(monkeypatch: pytest.MonkeyPatch, environ: Any, expected: Any) -> None:
    """The SDK's loop needs a platform to run; what it is given does not."""
    given: dict[str, Any] = {}
    monkeypatch.setattr("runpod.serverless.start", given.update)
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    serve(None, Worker(Fault(ValueError())), Settings.from_env().concurrency_on_device)  # type: ignore[arg-type]
    numbers = {given["concurrency_modifier"](current) for current in (1, 5, 64)}
    assert len(numbers) == 1
    assert numbers <= set(expected)
