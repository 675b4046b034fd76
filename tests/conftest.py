"""What the tests share: the clips, the real model, a loopback HTTP server, and answers checked against the schemas."""

import asyncio
import json
import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from jsonschema import Draft202012Validator

from parakeet_worker import contract
from parakeet_worker.model.device import Plan
from parakeet_worker.settings import Settings
from parakeet_worker.start import build_worker
from runpod_platform import Platform, worker_process

# A worker refuses them, and the tests need none.
for variable in ("http_proxy", "https_proxy", "all_proxy"):
    os.environ.pop(variable, None)
    os.environ.pop(variable.upper(), None)

ROOT = Path(__file__).parents[1]
SPEECH = ROOT / "tests" / "speech"
MODEL_DIR = Settings.from_env({}).model_dir
CPU = Plan(torch.device("cpu"), torch.float32, batch_seconds=120.0)

# Two threads that spin for each other on two busy cores are many times slower than one.
torch.set_num_threads(1)


@dataclass(frozen=True)
class Clip:
    path: Path
    duration: float
    text: str
    words: tuple[dict, ...]


@pytest.fixture(scope="session")
def clips():
    lines = (SPEECH / "clips.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    return [Clip(SPEECH / r["file"], r["duration"], r["text"], tuple(r["words"])) for r in records]


@pytest.fixture(scope="session")
def recognizer():
    from parakeet_worker.model.loading import load_model
    from parakeet_worker.model.recognizer import NemoRecognizer

    return NemoRecognizer(load_model(MODEL_DIR, CPU.device, is_lean=Settings.from_env().lean_imports), CPU)


@pytest.fixture(scope="session")
def worker():
    return build_worker(
        replace(Settings.from_env({"PARAKEET_CPU_THREADS": "1"}), lean_imports=Settings.from_env().lean_imports)
    )


def check_schema(envelope: dict, action: str) -> None:
    name = "error" if envelope.get("status") == "error" else action
    Draft202012Validator(contract.schema(name)).validate(envelope)


@pytest.fixture(scope="session")
def ask(worker) -> Callable[[object], dict]:
    """Send a job to the worker; the answer is valid by its schema and can be sent as JSON."""

    def ask(job: object) -> dict:
        envelope = asyncio.run(worker.answer(job))
        action = job["input"].get("action", "transcribe") if envelope["status"] == "success" else ""
        check_schema(envelope, action)
        json.dumps(envelope, ensure_ascii=False, allow_nan=False).encode()
        return envelope

    return ask


class LoopbackServer:
    """An HTTP server on a loopback port that answers each path as a test says."""

    def __init__(self) -> None:
        self.routes: dict[str, Callable[[BaseHTTPRequestHandler], None]] = {}
        self.requests: list[tuple[str, dict[str, str]]] = []
        self.posts: list[tuple[str, bytes]] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                outer.requests.append((self.path, dict(self.headers)))
                outer.routes.get(self.path.partition("?")[0], lambda h: h.send_error(404))(self)

            do_HEAD = do_GET

            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                outer.posts.append((self.path.partition("?")[0], body))
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_):
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._server.handle_error = lambda *_: None  # a client that hangs up is what some tests are about
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def serve(self, path: str, body: bytes, status: int = 200, **headers: str) -> str:
        """Answer `path` with `body` and return its URL."""

        def answer(handler):
            handler.send_response(status)
            sent = {"Content-Length": str(len(body))} | {n.replace("_", "-"): v for n, v in headers.items()}
            for name, value in sent.items():
                handler.send_header(name, value)
            handler.end_headers()
            if handler.command != "HEAD":
                handler.wfile.write(body)

        self.routes[path] = answer
        return self.url + path

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def server() -> Iterator[LoopbackServer]:
    server = LoopbackServer()
    yield server
    server.close()


@pytest.fixture
def private_addresses(monkeypatch):
    """Let the SDK's guard reach the loopback server."""
    monkeypatch.setenv("RUNPOD_ALLOW_PRIVATE_DOWNLOAD_URLS", "true")


@pytest.fixture
def scratch(tmp_path, monkeypatch) -> Path:
    """An empty directory that temporary files go to."""
    import tempfile

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


@pytest.fixture
def platform():
    platform = Platform()
    yield platform
    platform.close()


@pytest.fixture(scope="module")
def live(tmp_path_factory):
    """A platform and a worker of it, whose log is `live.log`."""
    platform = Platform()
    log = tmp_path_factory.mktemp("worker") / "log"
    with worker_process(platform, log, PARAKEET_CONCURRENCY="64") as process:
        platform.log = log
        yield platform
        process.terminate()
        assert process.wait(20) == 0
    platform.close()
