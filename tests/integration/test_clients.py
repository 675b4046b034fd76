"""The examples of docs/api.md and clients/, run as they are against a platform with a worker."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
import runpod

import openapi
from loopback import LoopbackServer
from parakeet_client import Pace
from parakeet_client.__main__ import main
from project import ROOT, TEXT, Clip, check_schema
from runpod_platform import API_KEY, ENDPOINT, Platform, wait_until, worker_process

CLIENTS = ROOT / "clients"
TYPESCRIPT = CLIENTS / "typescript"
API = (ROOT / "docs" / "api.md").read_text()
JAVASCRIPT = ROOT / "tests" / "integration" / "javascript"


@pytest.fixture(scope="module")
def web(clips: list[Clip]) -> Iterator[Any]:
    server = LoopbackServer()
    server.serve("/audio.wav", clips[2].path.read_bytes())
    yield server
    server.close()


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    platform = Platform()
    with worker_process(platform, tmp_path_factory.mktemp("worker") / "log"):
        yield platform
    platform.close()


@pytest.fixture(params=[True, False], ids=["output kept", "error alone"])
def keeps_output(request: Any, platform: Platform) -> Iterator[Any]:
    """Both ways in which the platform may show a failed job; which one it does, nobody here has seen."""
    platform.keeps_output = request.param
    yield request.param
    platform.keeps_output = True


def run_command(platform: Platform, *command: str, cwd: Any = ROOT, **environ: str) -> str:
    """Run an example as a caller of the endpoint, and return what it prints."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RUNPOD_")}
    settings = {
        "ENDPOINT_ID": ENDPOINT,
        "RUNPOD_API_KEY": API_KEY,
        "RUNPOD_ENDPOINT_BASE_URL": platform.url + "/v2",
    }
    done = subprocess.run(
        command, cwd=cwd, env=kept | settings | environ, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def run(platform: Platform, web: Any) -> Any:
    """Run the block behind a marker, its hosts replaced."""

    def run(marker: str, language: str, *command: str, cwd: Any = ROOT, replace: Any = (), **environ: str) -> str:
        code = API.partition(f"<!-- {marker} -->\n```{language}\n")[2].partition("```")[0]
        assert code
        hosts = [("https://api.runpod.ai/v2", platform.url + "/v2"), ("https://example.com", web.url)]
        for old, new in [*hosts, *replace]:
            code = code.replace(old, new)
        return run_command(platform, *command, code, cwd=cwd, **environ)

    return run


@pytest.mark.skipif(not shutil.which("curl"), reason="there is no curl")
def test_curl(run: Any, web: Any, platform: Platform) -> None:
    answer = json.loads(run("runsync", "bash", "bash", "-euc"))
    assert answer["status"] == "COMPLETED"
    check_schema(answer["output"], "transcribe")
    assert answer["output"]["timestamps"]["segment"][0]["segment"] == TEXT

    job = json.loads(run("run", "bash", "bash", "-euc"))
    assert job.keys() == {"id", "status"}
    assert wait_until(lambda: web.posts)
    path, body = web.posts[0]
    assert path == "/transcribed"
    state = json.loads(run("status", "bash", "bash", "-euc", JOB_ID=job["id"]))
    assert json.loads(body) == state
    assert state["output"]["text"] == TEXT

    platform.faults["job-take-batch"].extend([204] * 20)
    job = json.loads(run("run", "bash", "bash", "-euc"))
    stopped = json.loads(run("cancel", "bash", "bash", "-euc", JOB_ID=job["id"]))
    assert stopped["status"] in ("CANCELLED", "COMPLETED")


@pytest.mark.skipif(not shutil.which("curl"), reason="there is no curl")
def test_a_failure_with_curl(run: Any, keeps_output: Any) -> None:
    missing = [("/audio.wav", "/missing.wav")]
    answer = json.loads(run("runsync", "bash", "bash", "-euc", replace=missing))
    job = json.loads(run("run", "bash", "bash", "-euc", replace=missing))
    assert wait_until(lambda: "error" in json.loads(run("status", "bash", "bash", "-euc", JOB_ID=job["id"])))
    for state in (answer, json.loads(run("status", "bash", "bash", "-euc", JOB_ID=job["id"]))):
        assert state["status"] == "FAILED"
        assert state["error"] == "Failed to download audio: 404 Not Found"
        assert ("output" in state) == keeps_output


def test_python(run: Any, keeps_output: Any) -> None:
    message = "Failed to download audio: 404 Not Found"
    sync, code = (message, "download_failed") if keeps_output else ("failed", "FAILED")
    said = run("python", "python", sys.executable, "-c").splitlines()
    assert said == [TEXT, sync, TEXT, f"{code}: {message}"]


def test_run_sync_shows_why_a_job_failed(platform: Platform, web: Any) -> None:
    """It shows `output` alone, without the error at job level."""
    endpoint = runpod.Endpoint(ENDPOINT, api_key=API_KEY)
    endpoint.rp_client.endpoint_url_base = f"{platform.url}/v2"
    output = endpoint.run_sync({"input": {"audio_url": f"{web.url}/missing.wav"}}, timeout=60)
    assert output["message"] == "Failed to download audio: 404 Not Found"
    assert (output["status"], output["code"]) == ("error", "download_failed")
    check_schema(output | {"error": output["message"]}, "")


@pytest.mark.skipif(
    not (shutil.which("node") and (JAVASCRIPT / "node_modules" / "runpod-sdk").is_dir()),
    reason="there is no Node.js, or npm could not install runpod-sdk",
)
def test_javascript(run: Any, platform: Platform, keeps_output: Any) -> None:
    key = "runpodSdk(process.env.RUNPOD_API_KEY"
    options = f"{key}, {{ baseUrl: '{platform.url}/v2' }}"
    node = ("node", "--input-type=module", "-e")
    assert run("javascript", "javascript", *node, cwd=JAVASCRIPT, replace=[(key, options)]).strip() == TEXT
    missing = [(key, options), ("/audio.wav", "/missing.wav")]
    said = run("javascript", "javascript", *node, cwd=JAVASCRIPT, replace=missing)
    code = "download_failed" if keeps_output else "FAILED"
    assert said.strip() == f"{code}: Failed to download audio: 404 Not Found"


def test_the_python_client(platform: Platform, web: Any, clips: list[Clip]) -> None:
    sources = (str(clips[2].path), f"{web.url}/audio.wav", f"{web.url}/missing.wav")
    example = str(CLIENTS / "python" / "example.py")
    said = run_command(platform, sys.executable, example, *sources, PYTHONPATH=str(CLIENTS / "python" / "src"))
    first, *middle = said.splitlines()
    assert first == TEXT
    words = [line.split() for line in middle[-3 - len(TEXT.split()) : -3]]
    assert [word for *_, word in words] == TEXT.split()
    assert middle[-3:] == [
        f"{sources[0]}: {TEXT}",
        f"{sources[1]}: {TEXT}",
        f"{sources[2]}: download_failed: Failed to download audio: 404 Not Found",
    ]
    assert "00:00:0" in said
    assert all(float(start) < float(end) and 0 < float(confidence) <= 1 for start, end, confidence, _ in words)


def test_the_python_clients_command_line(
    platform: Platform, web: Any, clips: list[Clip], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RUNPOD_API_KEY", API_KEY)
    monkeypatch.setenv("RUNPOD_ENDPOINT_BASE_URL", platform.url + "/v2")
    sources = [str(clips[2].path), f"{web.url}/audio.wav", f"{web.url}/missing.wav"]
    assert main([*sources, "--endpoint", ENDPOINT, "--out", str(tmp_path)], Pace(first_poll=0.05)) == 1
    for stem in (clips[2].path.stem, "audio"):
        check_schema(json.loads((tmp_path / f"{stem}.json").read_text()), "transcribe")
        assert (tmp_path / f"{stem}.txt").read_text() == f"{TEXT}\n"
        assert (tmp_path / f"{stem}.srt").read_text().startswith("1\n00:00:0")
    assert not list(tmp_path.glob("missing*"))


@pytest.mark.skipif(
    not (shutil.which("node") and (TYPESCRIPT / "node_modules" / "typescript").is_dir()),
    reason="there is no Node.js, or npm could not install typescript",
)
def test_typescript(platform: Platform, web: Any, tmp_path: Path) -> None:
    compiler = TYPESCRIPT / "node_modules" / ".bin" / "tsc"
    subprocess.run([compiler, "--project", TYPESCRIPT, "--outDir", tmp_path], check=True, timeout=60)
    (tmp_path / "package.json").write_text('{"type": "module"}')
    example = ("node", str(tmp_path / "example.js"))
    first, *middle, last = run_command(platform, *example, f"{web.url}/audio.wav").splitlines()
    assert first == TEXT
    assert last.split()[-1] == TEXT.split()[-1]
    missing = run_command(platform, *example, f"{web.url}/missing.wav")
    assert missing == "download_failed: Failed to download audio: 404 Not Found\n"
    assert any("00:00:0" in line for line in middle)


def test_real_answers_are_those_of_the_openapi_document(platform: Platform, web: Any) -> None:
    def call(*path: str, body: Any = None) -> dict[str, Any]:
        method = "GET" if body is None else "POST"
        response = requests.request(
            method,
            "/".join([f"{platform.url}/v2/{ENDPOINT}", *path]),
            headers={"Authorization": f"Bearer {API_KEY}"},
            json=body,
            timeout=30,
        )
        return response.json()  # type: ignore[no-any-return]

    everything = {"timestamps": True, "captions": "vtt", "confidence": True, "keyterms": ["reason"]}
    statuses = []
    for job_input in (
        {"audio_url": f"{web.url}/audio.wav"} | everything,
        {"action": "model_info"},
        {"audio_url": f"{web.url}/missing.wav"},
    ):
        openapi.check("Request", {"input": job_input})
        job = call("runsync", body={"input": job_input})
        queued = call("run", body={"input": job_input})
        assert wait_until(lambda queued=queued: call("status", queued["id"])["status"] in ("COMPLETED", "FAILED"))
        for state in (job, queued, call("status", queued["id"])):
            openapi.check("Job", state)
            statuses.append(state["status"])
    assert statuses == ["COMPLETED", "IN_QUEUE", "COMPLETED"] * 2 + ["FAILED", "IN_QUEUE", "FAILED"]

    platform.faults["job-take-batch"].extend([204] * 20)
    job = call("run", body={"input": {"action": "model_info"}})
    openapi.check("Job", call("cancel", job["id"], body={}))
    openapi.check("Health", call("health"))
