"""RunPod's serverless queue on a loopback port: a worker takes jobs on one side, clients call an endpoint on the other.

As far as the SDK's worker and the Python and JavaScript clients go; see docs.runpod.io/serverless/endpoints.
"""

import asyncio
import contextlib
import itertools
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import defaultdict, deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
from aiohttp import web

API_KEY = "rp-key"
ENDPOINT = "parakeet"
FINAL = ("COMPLETED", "FAILED", "CANCELLED")

HANDLER = Path(__file__).parents[2] / "handler.py"


@dataclass(eq=False)
class Job:
    id: str
    request: dict[str, Any]
    raw: str | None = None
    status: str = "IN_QUEUE"
    result: dict[str, Any] = field(default_factory=dict)
    updates: list[Any] = field(default_factory=list)
    stream: list[Any] = field(default_factory=list)
    answers: int = 0
    handed_out: int = 0
    queued: float = field(default_factory=time.monotonic)
    taken: float = 0.0
    ended: float = 0.0
    done: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def shown(self) -> dict[str, Any]:
        """What `/status` says."""
        times = {}
        if self.taken:
            times["delayTime"] = round((self.taken - self.queued) * 1000)
        if self.ended and self.taken:
            times["executionTime"] = round((self.ended - self.taken) * 1000)
        output = {"output": self.updates[-1]} if self.updates and self.status == "IN_PROGRESS" else {}
        kept = {name: value for name, value in self.result.items() if name in ("output", "error")}
        return {"id": self.id, "status": self.status, **times, **output, **kept}


class Platform:
    """One endpoint.

    Args:
        hold: Seconds for which a poll of the worker is held open where there is nothing to say.
        latency: Seconds by which each answer is late, as if it came from afar.
        keeps_output: Whether a failed job shows the worker's `output` beside `error`. That is how the SDK sends it;
            RunPod's documentation shows `error` alone.
    """

    def __init__(self, hold: float = 2.0, latency: float = 0.0, keeps_output: bool = True) -> None:
        self.hold = hold
        self.latency = latency
        self.keeps_output = keeps_output
        # Where the worker that a test shares with others logs to.
        self.log = Path()
        self.jobs: dict[str, Job] = {}
        self.pings: list[dict[str, str]] = []
        self.asked: list[str] = []
        # What no worker should do.
        self.wrong: list[str] = []
        self.most_in_progress = 0
        # A larger result is refused with 413.
        self.most_bytes = 30_000_000
        # Seconds until an update of a job's progress is answered.
        self.update_latency = 0.0
        # How the next requests of a kind fare: a status, or "reset", or "twice" (a job is handed out, and once more).
        self.faults: dict[str, deque[int | str]] = defaultdict(deque)
        self._queue: deque[Job] = deque()
        self._stops: deque[str] = deque()
        self._numbers = itertools.count(1)
        self._started = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), daemon=True)
        self._thread.start()
        self._started.wait(10)

    # The worker's side.

    @property
    def environ(self) -> dict[str, str]:
        """What RunPod sets in a worker."""
        return {
            "RUNPOD_WEBHOOK_GET_JOB": f"{self.url}/v2/{ENDPOINT}/job-take/$ID?gpu=none",
            "RUNPOD_WEBHOOK_POST_OUTPUT": f"{self.url}/v2/{ENDPOINT}/job-done/$RUNPOD_POD_ID/$ID?gpu=none",
            "RUNPOD_WEBHOOK_POST_STREAM": f"{self.url}/v2/{ENDPOINT}/job-stream/$RUNPOD_POD_ID/$ID?gpu=none",
            "RUNPOD_WEBHOOK_PING": f"{self.url}/v2/{ENDPOINT}/ping/$RUNPOD_POD_ID",
            "RUNPOD_PING_INTERVAL": "1000",
            "RUNPOD_AI_API_KEY": "worker-key",
            "RUNPOD_POD_ID": "pod-1",
        }

    async def _take(self, request: web.Request) -> web.StreamResponse:
        return await self._hand_out(1, in_a_list=False)

    async def _take_batch(self, request: web.Request) -> web.StreamResponse:
        return await self._hand_out(int(request.query["batch_size"]), in_a_list=True)

    async def _hand_out(self, count: int, *, in_a_list: bool) -> web.StreamResponse:
        # Cancelled here when the worker hangs up, so that it is handed nothing then.
        await self._wait_for(self._queue)
        taken = [self._queue.popleft() for _ in range(min(count, len(self._queue)))]
        if not taken:
            return web.Response(status=204)
        for job in taken:
            if job.status not in FINAL:
                job.status, job.taken = "IN_PROGRESS", time.monotonic()
            job.handed_out += 1
            if self.faults["job"] and self.faults["job"].popleft() == "twice":
                self._enqueue(job)
        in_progress = sum(job.status == "IN_PROGRESS" for job in self.jobs.values())
        self.most_in_progress = max(self.most_in_progress, in_progress)
        bodies = [job.raw or json.dumps(job.request | {"id": job.id}) for job in taken]
        text = f"[{', '.join(bodies)}]" if in_a_list else bodies[0]
        return web.json_response(text=text)

    async def _wait_for(self, queue: deque[Any]) -> None:
        until = time.monotonic() + self.hold
        while not queue and (left := until - time.monotonic()) > 0:
            with contextlib.suppress(TimeoutError):
                async with self._changed:
                    await asyncio.wait_for(self._changed.wait(), left)

    async def _stop(self, request: web.Request) -> web.StreamResponse:
        await self._wait_for(self._stops)
        if not self._stops:
            return web.Response(status=204)
        stopped = list(self._stops)
        self._stops.clear()
        return web.json_response({"jobsToStop": stopped})

    async def _done(self, request: web.Request) -> web.StreamResponse:
        job = self._find(request)
        body = await request.read()
        if len(body) > self.most_bytes:
            return web.Response(status=413)
        result = json.loads(body)
        if result.get("status") == "IN_PROGRESS":
            if job.answers:
                self.wrong.append(f"an update of {job.id} came after its result")
            job.updates.append(result["output"])
            await asyncio.sleep(self.update_latency)
            return web.Response()
        job.answers += 1
        if job.status not in FINAL:
            self._end(job, "FAILED" if result.get("error") else "COMPLETED", result)
        return web.Response()

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        self._find(request).stream.append(json.loads(await request.read()))
        return web.Response()

    async def _ping(self, request: web.Request) -> web.StreamResponse:
        self.pings.append(dict(request.query))
        return web.Response()

    # The client's side.

    async def _run(self, request: web.Request) -> web.StreamResponse:
        job = self._accept(await request.json(), f"{next(self._numbers):08d}-e1")
        return web.json_response({"id": job.id, "status": job.status})

    async def _run_sync(self, request: web.Request) -> web.StreamResponse:
        job = self._accept(await request.json(), f"sync-{next(self._numbers):08d}-e1")
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(job.done.wait(), 90)
        return web.json_response(job.shown)

    def _accept(self, body: dict[str, Any], job_id: str) -> Job:
        job = self.jobs[job_id] = Job(job_id, body)
        self._enqueue(job)
        return job

    def _enqueue(self, job: Job) -> None:
        self._queue.append(job)
        self._notify()

    def _notify(self) -> None:
        async def notify() -> None:
            async with self._changed:
                self._changed.notify_all()

        self._background.add(task := asyncio.ensure_future(notify()))
        task.add_done_callback(self._background.discard)

    def _end(self, job: Job, status: str, result: dict[str, Any]) -> None:
        if status == "FAILED" and not self.keeps_output:
            result = {name: value for name, value in result.items() if name != "output"}
        job.status, job.result, job.ended = status, result, time.monotonic()
        job.done.set()
        if url := job.request.get("webhook"):
            self._background.add(task := asyncio.ensure_future(self._call(url, job.shown)))
            task.add_done_callback(self._background.discard)

    async def _call(self, url: str, body: dict[str, Any]) -> None:
        async with aiohttp.ClientSession() as session, session.post(url, json=body) as response:
            await response.read()

    async def _status(self, request: web.Request) -> web.StreamResponse:
        return web.json_response(self._find(request).shown)

    async def _status_sync(self, request: web.Request) -> web.StreamResponse:
        job = self._find(request)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(job.done.wait(), int(request.query.get("wait", "90000")) / 1000)
        return web.json_response(job.shown)

    async def _streamed(self, request: web.Request) -> web.StreamResponse:
        job = self._find(request)
        chunks, job.stream = job.stream, []
        return web.json_response({"status": job.status, "stream": chunks})

    async def _cancel(self, request: web.Request) -> web.StreamResponse:
        job = self._find(request)
        self._stop_job(job)
        return web.json_response(job.shown)

    def _stop_job(self, job: Job) -> None:
        if job in self._queue:
            self._queue.remove(job)
        if job.status == "IN_PROGRESS":
            self._stops.append(job.id)
            self._notify()
        if job.status not in FINAL:
            self._end(job, "CANCELLED", {})

    def _find(self, request: web.Request) -> Job:
        try:
            return self.jobs[request.match_info["id"]]
        except KeyError:
            raise web.HTTPNotFound from None

    async def _health(self, request: web.Request) -> web.StreamResponse:
        count: defaultdict[str, int] = defaultdict(int)
        for job in list(self.jobs.values()):
            count[job.status] += 1
        jobs = {
            "completed": count["COMPLETED"],
            "failed": count["FAILED"],
            "inProgress": count["IN_PROGRESS"],
            "inQueue": count["IN_QUEUE"],
            "retried": 0,
        }
        return web.json_response({"jobs": jobs, "workers": {"idle": 0, "initializing": 0, "running": 1}})

    async def _purge(self, request: web.Request) -> web.StreamResponse:
        removed, self._queue = self._queue, deque()
        for job in removed:
            self._end(job, "CANCELLED", {})
        return web.json_response({"removed": len(removed), "status": "completed"})

    @web.middleware
    async def _guard(self, request: web.Request, handler: Any) -> web.StreamResponse:
        kind = (*request.path.split("/"), "", "")[3]
        self.asked.append(kind)
        key = API_KEY if kind in _CLIENT else None
        if key and request.headers.get("Authorization", "").removeprefix("Bearer ") != key:
            return web.Response(status=401)
        if self.faults[kind]:
            fault = self.faults[kind].popleft()
            if fault == "reset":
                assert request.transport
                request.transport.abort()
                return web.Response()
            if fault:
                return web.Response(status=int(fault))
        answer: web.StreamResponse = await handler(request)
        await asyncio.sleep(self.latency)
        return answer

    async def _serve(self) -> None:
        self._changed = asyncio.Condition()
        self._background: set[asyncio.Task[None]] = set()
        app = web.Application(client_max_size=30_000_000, middlewares=[self._guard])
        root = f"/v2/{ENDPOINT}"
        app.add_routes(
            [
                web.get(root + "/job-take/{worker}", self._take),
                web.get(root + "/job-take-batch/{worker}", self._take_batch),
                web.get(root + "/job-stop/{worker}", self._stop),
                web.post(root + "/job-done/{worker}/{id}", self._done),
                web.post(root + "/job-stream/{worker}/{id}", self._stream),
                web.get(root + "/ping/{worker}", self._ping),
                web.post(root + "/run", self._run),
                web.post(root + "/runsync", self._run_sync),
                web.get(root + "/status/{id}", self._status),
                web.get(root + "/status-sync/{id}", self._status_sync),
                web.get(root + "/stream/{id}", self._streamed),
                web.post(root + "/cancel/{id}", self._cancel),
                web.get(root + "/health", self._health),
                web.post(root + "/purge-queue", self._purge),
            ]
        )
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1, handler_cancellation=True)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        self._loop, self._closing = asyncio.get_running_loop(), asyncio.Event()
        self._started.set()
        await self._closing.wait()
        await runner.cleanup()

    def submit(self, *requests: dict[str, Any]) -> list[Job]:
        """Queue jobs as `/run` does, from a test's thread."""

        async def accept() -> list[Job]:
            return [self._accept(request, f"{next(self._numbers):08d}-e1") for request in requests]

        return asyncio.run_coroutine_threadsafe(accept(), self._loop).result(10)

    def submit_raw(self, jobs: dict[str, str]) -> list[Job]:
        """Queue jobs by what the worker gets to read: JSON, under the ids that their answers are expected for."""

        async def accept() -> list[Job]:
            made = [Job(job_id, {}, raw) for job_id, raw in jobs.items()]
            for job in made:
                self.jobs[job.id] = job
                self._queue.append(job)
            self._notify()
            return made

        return asyncio.run_coroutine_threadsafe(accept(), self._loop).result(10)

    def cancel(self, job: Job) -> None:
        """Cancel a job as `/cancel` does, from a test's thread."""
        self._loop.call_soon_threadsafe(self._stop_job, job)

    def requeue(self) -> None:
        """Give the jobs of a worker that died to the next one."""
        for job in self.jobs.values():
            if job.status == "IN_PROGRESS":
                job.status = "IN_QUEUE"
                self._loop.call_soon_threadsafe(self._enqueue, job)

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._closing.set)
        self._thread.join(10)

    def finished(self) -> int:
        return sum(job.status in FINAL for job in list(self.jobs.values()))


_CLIENT = ("run", "runsync", "status", "status-sync", "stream", "cancel", "health", "purge-queue")


@contextlib.contextmanager
def worker_process(
    platform: Platform, log: Path, *arguments: str, script: Path = HANDLER, shows_secrets: str = "", **environ: str
) -> Iterator[subprocess.Popen[bytes]]:
    """Run `handler.py` as RunPod does, its output in `log`; kill it in the end if it is still there.

    Its log must then hold nothing of the URLs of the jobs, nor of a password in `environ`.

    Args:
        platform: Whose jobs it does.
        log: Where its output goes.
        arguments: Of its command line.
        script: What is run.
        shows_secrets: Why this log may hold URLs, where it may.
        environ: What is added to its environment.
    """
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("RUNPOD_", "PARAKEET_"))}
    settings = {
        "RUNPOD_SKIP_AUTO_SYSTEM_CHECKS": "true",
        "RUNPOD_SKIP_GPU_CHECK": "true",
        "RUNPOD_ALLOW_PRIVATE_DOWNLOAD_URLS": "true",
        "PARAKEET_CPU_THREADS": "1",
    }
    with (
        log.open("ab") as output,
        subprocess.Popen(
            [sys.executable, str(script), *arguments],
            env=kept | settings | platform.environ | environ,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        ) as process,
    ):
        try:
            yield process
        finally:
            # The SDK's heartbeat is a process of its own.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
    assert not platform.wrong
    if not shows_secrets:
        text = log.read_text(errors="replace")
        shown = sorted(secret for secret in _secrets(platform, environ) if secret in text)
        assert not shown, f"the log shows {shown}"


def _secrets(platform: Platform, environ: dict[str, str]) -> set[str]:
    """Return what no log may hold: URLs, their queries and passwords, and pieces of inline audio."""
    given = [job.request.get("input") for job in list(platform.jobs.values())]
    inputs = [fields for fields in given if isinstance(fields, dict)]
    urls = {fields.get("audio_url") for fields in inputs}
    secrets: set[str] = set()
    for payload in {fields.get("audio_base64") for fields in inputs}:
        if isinstance(payload, str):
            secrets |= _pieces(payload)
    for url in {url for url in urls if isinstance(url, str)} | set(environ.values()):
        if url[:5].lower() == "data:":
            secrets |= _pieces(url.partition(",")[2])
        elif "://" in url:
            with contextlib.suppress(ValueError):
                parts = urlsplit(url)
                secrets |= {url, parts.query, parts.password or "", f"{parts.username}:{parts.password}"}
    return {secret for secret in secrets if len(secret) >= 6}


def _pieces(payload: str) -> set[str]:
    middle = len(payload) // 2
    return {payload[:40], payload[middle : middle + 40], payload[-40:]}


def wait_until(condition: Any, seconds: float = 30.0) -> bool:
    """Wait until something holds, and say whether it does."""
    deadline = time.monotonic() + seconds
    while not (holds := condition()) and time.monotonic() < deadline:
        time.sleep(0.02)
    return bool(holds)
