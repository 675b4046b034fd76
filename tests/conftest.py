"""What the tests share: the clips, the real model, a loopback HTTP server, and answers checked against the schemas."""

import asyncio
import json
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import settings

from loopback import LoopbackServer
from project import MODEL_DIR, Clip, check_schema, read_clips
from runpod_platform import Platform, worker_process

if TYPE_CHECKING:
    from parakeet_worker.model.recognizer import PlainRecognizer
    from parakeet_worker.serverless.worker import Worker

# How long an example takes on a busy machine says nothing.
settings.register_profile("tests", deadline=None)
settings.load_profile("tests")

# A worker refuses them, and the tests need none.
for variable in ("http_proxy", "https_proxy", "all_proxy"):
    os.environ.pop(variable, None)
    os.environ.pop(variable.upper(), None)


@pytest.fixture(scope="session")
def clips() -> list[Clip]:
    return read_clips()


@pytest.fixture(scope="session")
def recognizer() -> "PlainRecognizer":
    """The real model."""
    from cpu import CPU
    from parakeet_worker.model.card import Card
    from parakeet_worker.model.files import ModelFiles
    from parakeet_worker.model.prepare import load
    from parakeet_worker.stage_timer import StageTimer

    return load(ModelFiles(MODEL_DIR, Card.read(MODEL_DIR).files), CPU, StageTimer().stage)


@pytest.fixture(scope="session")
def worker() -> "Worker":
    """The real worker, in this process."""
    from parakeet_worker.settings import Settings
    from parakeet_worker.startup import build_worker

    return build_worker(Settings.from_env({"PARAKEET_CPU_THREADS": "1"}))


@pytest.fixture(scope="session")
def ask(worker: "Worker") -> Callable[[Any], dict[str, Any]]:
    """Send a job to the worker; the answer is valid by its schema and can be sent as JSON."""

    def ask(job: Any) -> dict[str, Any]:
        envelope = asyncio.run(worker.answer(job))
        action = job["input"].get("action", "transcribe") if envelope["status"] == "success" else ""
        check_schema(envelope, action)
        json.dumps(envelope, ensure_ascii=False, allow_nan=False).encode()
        return envelope

    return ask


@pytest.fixture
def server() -> Iterator[LoopbackServer]:
    server = LoopbackServer()
    yield server
    server.close()


@pytest.fixture
def private_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the SDK's guard reach the loopback server."""
    monkeypatch.setenv("RUNPOD_ALLOW_PRIVATE_DOWNLOAD_URLS", "true")


@pytest.fixture
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty directory that temporary files go to."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


@pytest.fixture
def platform() -> Iterator[Platform]:
    platform = Platform()
    yield platform
    platform.close()


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """A platform and a worker of it, whose log is `live.log`."""
    platform = Platform()
    log = tmp_path_factory.mktemp("worker") / "log"
    with worker_process(platform, log, PARAKEET_CONCURRENCY="64") as process:
        platform.log = log
        yield platform
        process.terminate()
        assert process.wait(20) == 0
    platform.close()
