"""The examples of docs/api.md, run as they are against a platform with a worker: curl, Python and JavaScript."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from loopback import LoopbackServer
from project import ROOT, Clip, check_schema
from runpod_platform import API_KEY, ENDPOINT, Platform, wait_until, worker_process

API = (ROOT / "docs" / "api.md").read_text()
JAVASCRIPT = ROOT / "tests" / "integration" / "javascript"
TEXT = "The children must learn to reason."


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


@pytest.fixture
def run(platform: Platform, web: Any) -> Any:
    """Run the block behind a marker, its hosts replaced."""

    def run(marker: str, language: str, *command: str, cwd: Any = ROOT, replace: Any = (), **environ: str) -> str:
        code = API.partition(f"<!-- {marker} -->\n```{language}\n")[2].partition("```")[0]
        assert code
        hosts = [("https://api.runpod.ai/v2", platform.url + "/v2"), ("https://example.com", web.url)]
        for old, new in [*hosts, *replace]:
            code = code.replace(old, new)
        kept = {name: value for name, value in os.environ.items() if not name.startswith("RUNPOD_")}
        settings = {
            "ENDPOINT_ID": ENDPOINT,
            "RUNPOD_API_KEY": API_KEY,
            "RUNPOD_ENDPOINT_BASE_URL": platform.url + "/v2",
        }
        done = subprocess.run(
            [*command, code],
            cwd=cwd,
            env=kept | settings | environ,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

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
    code = "download_failed" if keeps_output else "failed"
    said = run("python", "python", sys.executable, "-c").splitlines()
    assert said == [TEXT, code, TEXT, f"{code}: Failed to download audio: 404 Not Found"]


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
    code = "download_failed" if keeps_output else "failed"
    assert said.strip() == f"{code}: Failed to download audio: 404 Not Found"
