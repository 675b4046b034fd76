"""A RunPod endpoint on a loopback port without a worker: each job goes as a test says."""

import base64
import json
import threading
import time
from collections import defaultdict, deque
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

API_KEY = "rp-scripted-key"
ENDPOINT = "scripted"


def done(text: str = "Hello.", **fields: Any) -> dict[str, Any]:
    """The state of a job with a transcript."""
    output = {
        "status": "success",
        "text": text,
        "duration": 1.5,
        "processing_time": 0.1,
        "sample_rate": 16000,
        "timestamp": "2026-11-26T12:00:00.000000",
    }
    return {"status": "COMPLETED", "output": output | fields}


def failed(code: str, error: str = "It went wrong.", **fields: Any) -> dict[str, Any]:
    """The state of a failed job, as RunPod's SDK sends it."""
    return {"status": "FAILED", "error": error, "output": {"status": "error", "code": code, **fields}}


WAITING = {"status": "IN_QUEUE"}
RUNNING = {"status": "IN_PROGRESS", "output": {"seconds_done": 1.0, "seconds_total": None}}


@dataclass
class Job:
    """What was sent, under which path, and the states that are still to be told; the last one stays."""

    id: str
    path: str
    input: dict[str, Any]
    states: list[dict[str, Any]]
    polls: int = 0
    is_cancelled: bool = False

    @property
    def source(self) -> str:
        """The URL of the audio, or the text that was sent as audio."""
        audio = self.input.get("audio_base64")
        return base64.b64decode(audio).decode() if audio else str(self.input.get("audio_url", ""))


class ScriptedPlatform:
    """An endpoint whose jobs go as `fates` says: for each source, the states of its first job, of its second and so on.

    A source without a fate, or with no more of them, is transcribed at once.
    """

    def __init__(self) -> None:
        self.fates: dict[str, deque[list[dict[str, Any]]]] = defaultdict(deque)
        # How the next requests of a kind fare: a status, one with `Retry-After`, or "reset".
        self.faults: dict[str, deque[int | str | tuple[int, str]]] = defaultdict(deque)
        self.jobs: dict[str, Job] = {}
        self.asked: list[str] = []
        # Bodies and headers of requests to the bucket, by path.
        self.bucket: dict[str, bytes] = {}
        self.bucket_headers: list[dict[str, str]] = []
        self.most_in_flight = 0
        self._lock = threading.Lock()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            wbufsize = -1  # an answer in one packet

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
                with outer._lock:
                    outer._answer(self, body)

            def do_GET(self) -> None:
                with outer._lock:
                    outer._answer(self, b"")

            def log_message(self, *_: Any) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        self.http.handle_error = lambda *_: None  # type: ignore[method-assign]  # clients hang up
        self.url = f"http://127.0.0.1:{self.http.server_port}/v2"
        threading.Thread(target=self.http.serve_forever, args=(0.01,), daemon=True).start()

    def _answer(self, handler: BaseHTTPRequestHandler, body: bytes) -> None:
        path = handler.path.partition("?")[0]
        kind = [*path.split("/"), "", ""][3] if path.startswith("/v2/") else "bucket"
        self.asked.append(kind)
        if self.faults[kind]:
            fault = self.faults[kind].popleft()
            if fault == "reset":
                handler.close_connection = True
                handler.connection.close()
                return
            status, retry_after = fault if isinstance(fault, tuple) else (int(fault), "")
            self._send(handler, status, b"", **({"Retry-After": retry_after} if retry_after else {}))
        elif kind == "bucket":
            self.bucket_headers.append(dict(handler.headers))
            content = self.bucket.get(path)
            self._send(handler, 404 if content is None else 200, content or b"")
        elif handler.headers["Authorization"] != f"Bearer {API_KEY}":
            self._send(handler, 401, b"")
        elif not path.startswith(f"/v2/{ENDPOINT}/"):
            self._send(handler, 404, b"")
        elif kind in ("run", "runsync"):
            job = Job(f"job-{len(self.jobs) + 1}", kind, json.loads(body)["input"], [])
            fates = self.fates[job.source]
            job.states = list(fates.popleft()) if fates else [done(job.source)]
            self.jobs[job.id] = job
            in_flight = sum(j.states[0]["status"] in ("IN_QUEUE", "IN_PROGRESS") for j in self.jobs.values())
            self.most_in_flight = max(self.most_in_flight, in_flight)
            state = job.states[0] if kind == "runsync" else WAITING
            self._send(handler, 200, json.dumps({"id": job.id, **state}).encode())
        else:
            found = self.jobs.get(path.rpartition("/")[2])
            if found is None:
                self._send(handler, 404, b"")
                return
            if kind == "cancel":
                found.is_cancelled, found.states = True, [{"status": "CANCELLED"}]
            found.polls += kind == "status"
            state = found.states.pop(0) if len(found.states) > 1 else found.states[0]
            self._send(handler, 200, json.dumps({"id": found.id, **state}).encode())

    def _send(self, handler: BaseHTTPRequestHandler, status: int, body: bytes, **headers: str) -> None:
        handler.send_response(status)
        for name, value in ({"Content-Length": str(len(body))} | headers).items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(body)

    def sent(self) -> list[str]:
        """The sources that jobs were sent for, in order."""
        return [job.source for job in list(self.jobs.values())]

    def finish(self) -> None:
        """Transcribe all jobs that are not done."""
        with self._lock:
            for job in self.jobs.values():
                if job.states[-1]["status"] in ("IN_QUEUE", "IN_PROGRESS"):
                    job.states = [done(job.source)]

    def forget(self) -> None:
        """Keep no job any longer, as RunPod does half an hour after its end."""
        with self._lock:
            for job_id in list(self.jobs):
                self.jobs[f"forgotten {job_id}"] = self.jobs.pop(job_id)

    def wait_for_jobs(self, count: int) -> None:
        """Wait until so many jobs were asked for."""
        deadline = time.monotonic() + 20
        while sum(job.polls > 0 for job in list(self.jobs.values())) < count:
            assert time.monotonic() < deadline
            time.sleep(0.01)

    def close(self) -> None:
        self.http.shutdown()
        self.http.server_close()
