"""What is evaluated: the worker in this process, one behind a `/runsync`, or an endpoint on RunPod.

All are asked the same, for the text and the times of its words, and what failed is sent again as the Python client
does it: after failures that may pass, as often as the client's table says.
"""

import asyncio
import base64
import hashlib
import itertools
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent import futures
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import httpx

from parakeet_client import Client, Options, Pace, Task, Transcript, TranscriptionError
from parakeet_client.client import FATAL
from parakeet_client.contract import RETRIES, is_url
from parakeet_client.endpoint import WaitLimit, may_pass
from results import Execution, Failure, without_secrets

if TYPE_CHECKING:
    from parakeet_worker.serverless.worker import Worker

# The name of the worker in this process.
HERE = "here"

_OPTIONS: Options = {"timestamps": ["word"]}

# Whoever starts a server has a reason to wait for it; this ends the wait for one that hangs.
_LONGEST_REQUEST_S = 3600.0
# For the first request: who has not started the server should not wait a minute to hear it.
_FIRST_ATTEMPTS = 2

# The setting of RunPod's SDK, which the worker's log follows.
_LOG_LEVEL = "RUNPOD_LOG_LEVEL"

# What `model_info` says of the model and of what runs it.
_MODEL_FIELDS = ("model", "version", "engine", "device", "precision")


class TargetError(Exception):
    """The target takes no requests. The message says why, and what to do."""


class StoppedError(Exception):
    """The evaluation was stopped before there was an answer."""


@dataclass(frozen=True)
class Answer:
    """What a target made of a recording.

    Attributes:
        transcript: None if there is none.
        error: Why there is none.
        executions: When workers had the request.
    """

    transcript: Transcript | None
    error: Failure | None
    executions: tuple[Execution, ...]


class Target(Protocol):
    """Something that transcribes. Its methods may be called on any thread."""

    def model(self) -> dict[str, str]:
        """Return what it says of its model, once that is loaded.

        Raises:
            TargetError: It does not answer.
        """
        ...

    def transcribe(self, audio: str) -> Answer:
        """Transcribe a path or a URL. A failure is an answer, too.

        Raises:
            TargetError: It would not take any other recording either.
            StoppedError: `stop` was called.
        """
        ...

    def stop(self) -> None:
        """Give up what is in flight."""
        ...


def fingerprint(name: str) -> str:
    """Return what tells the weights of a target from others; empty if nothing does before it is asked.

    Raises:
        TargetError: The model of the worker in this process cannot be found.
    """
    if name != HERE:
        return ""
    from parakeet_worker.settings import Settings, SettingsError

    try:
        model = Settings.from_env().model
    except SettingsError as error:
        raise TargetError(str(error)) from error
    if model.is_file():
        state = model.stat()
        return f"{state.st_size}-{state.st_mtime_ns}"
    # The card has the checksums of all other files.
    return hashlib.sha256((model / "card.json").read_bytes()).hexdigest()[:16]


@contextmanager
def open_target(name: str, pace: Pace | None = None) -> Iterator[Target]:
    """Open a target: `here`, the URL of a server, or the id of an endpoint on RunPod.

    Args:
        name: Which.
        pace: How long to wait between requests.

    Raises:
        TargetError: There is no such target, or it cannot be used.
    """
    pace = pace or Pace()
    if name == HERE:
        with _quiet(), _open_here(pace) as here:
            yield here
    elif is_url(name):
        timeout = httpx.Timeout(_LONGEST_REQUEST_S, connect=15.0, pool=None)
        with httpx.Client(timeout=timeout, limits=httpx.Limits(max_connections=None)) as http:
            yield ServerTarget(name, http, pace)
    else:
        try:
            client = Client(name, pace=pace)
        except ValueError as error:
            raise TargetError(f"{error}; a target is {HERE!r}, a URL or the id of an endpoint") from error
        with client:
            yield EndpointTarget(client)


class HandlerTarget:
    """The worker in this process.

    Args:
        worker: Answers jobs.
        loop: Runs on another thread, and is the worker's.
        pace: How long to wait between requests.
    """

    def __init__(self, worker: "Worker", loop: asyncio.AbstractEventLoop, pace: Pace) -> None:
        self._worker = worker
        self._loop = loop
        self._stop = threading.Event()
        self._retry = partial(_with_retries, pace=pace, limit=WaitLimit(self._stop))
        self._numbers = itertools.count()
        self._running: set[futures.Future[dict[str, Any]]] = set()

    def model(self) -> dict[str, str]:
        """Wait until the model is loaded, and return what the worker says of it."""
        return _model_fields(self._ask({"action": "model_info"}))

    def transcribe(self, audio: str) -> Answer:
        """Transcribe a path or a URL."""
        return self._retry(partial(self._attempt, audio))

    def stop(self) -> None:
        """Cancel what is in flight."""
        self._stop.set()
        for running in list(self._running):
            running.cancel()

    def _attempt(self, audio: str, executions: list[Execution]) -> Transcript:
        job_input = _job_input(audio)
        start = time.time()
        try:
            answer = self._ask(job_input)
        finally:
            executions.append(Execution(HERE, start, time.time()))
        return _transcript(answer)

    def _ask(self, job_input: Mapping[str, Any]) -> dict[str, Any]:
        job = {"id": f"evaluation-{next(self._numbers)}", "input": job_input}
        running = asyncio.run_coroutine_threadsafe(self._worker.answer(job), self._loop)
        self._running.add(running)
        try:
            if self._stop.is_set():
                running.cancel()
            return running.result()
        except futures.CancelledError:
            raise StoppedError from None
        finally:
            self._running.discard(running)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the worker from writing its log, which would break the progress bar. What failed is in the results."""
    if _LOG_LEVEL in os.environ:
        yield
        return
    os.environ[_LOG_LEVEL] = "ERROR"
    try:
        yield
    finally:
        del os.environ[_LOG_LEVEL]


@contextmanager
def _open_here(pace: Pace) -> Iterator[HandlerTarget]:
    from parakeet_worker.settings import Settings, SettingsError
    from parakeet_worker.startup import build_worker

    try:
        worker = build_worker(Settings.from_env())
    except SettingsError as error:
        raise TargetError(str(error)) from error
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="evaluation-loop", daemon=True)
    thread.start()
    try:
        yield HandlerTarget(worker, loop, pace)
    except KeyboardInterrupt:
        # Closing waits for a model that is being loaded, so the next Ctrl+C ends the process. All outcomes are on disk.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        raise
    finally:
        worker.close()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


class ServerTarget:
    """A server with a `/runsync`, such as the one of `make serve`.

    Args:
        url: Its address, with or without `/runsync`.
        http: For the requests.
        pace: How long to wait between requests.
    """

    def __init__(self, url: str, http: httpx.Client, pace: Pace) -> None:
        self._url = url if url.rstrip("/").endswith("/runsync") else f"{url.rstrip('/')}/runsync"
        self._http = http
        self._pace = pace
        self._stop = threading.Event()
        self._limit = WaitLimit(self._stop)

    def model(self) -> dict[str, str]:
        """Return what the worker behind the server says of its model."""
        try:
            answer, _ = self._ask({"action": "model_info"}, min(_FIRST_ATTEMPTS, self._pace.requests))
        except TranscriptionError as error:
            raise TargetError(f"there is no worker at {without_secrets(self._url)}: {error.message}") from error
        return _model_fields(answer)

    def transcribe(self, audio: str) -> Answer:
        """Transcribe a path or a URL."""
        return _with_retries(partial(self._attempt, audio), self._pace, self._limit)

    def stop(self) -> None:
        """Send nothing any more. A request that the server has is waited for."""
        self._stop.set()

    def _attempt(self, audio: str, executions: list[Execution]) -> Transcript:
        answer, seconds = self._ask(_job_input(audio), self._pace.requests)
        end = time.time()
        # Without the way there and back, where the answer says so.
        processing = answer.get("processing_time", seconds)
        executions.append(Execution(without_secrets(self._url), end - min(processing, seconds), end))
        return _transcript(answer)

    def _ask(self, job_input: Mapping[str, Any], attempts: int) -> tuple[Mapping[str, Any], float]:
        """Return the output of a job, which is sent at most `attempts` times, and the seconds until it came.

        Raises:
            TranscriptionError: It has none, or the server does not answer.
        """
        response = self._post({"input": job_input}, attempts)
        try:
            job = response.json()
            status, output = job["status"], job.get("output")
        except (ValueError, TypeError, KeyError, AttributeError):
            raise TranscriptionError("unexpected_answer", "The server's answer is not a job.") from None
        if not isinstance(output, dict):
            # The SDK's server leaves the output of a failed job out, and with it the code.
            output = {"status": "error", "code": "failed", "error": str(job.get("error") or f"The job is {status}.")}
        return output, response.elapsed.total_seconds()

    def _post(self, body: Mapping[str, Any], attempts: int) -> httpx.Response:
        problem = ""
        for number in range(attempts):
            self._limit.sleep(self._pace.retry(number - 1) if number else 0.0)
            try:
                response = self._http.post(self._url, json=body)
            except httpx.RequestError as error:
                problem = str(error) or type(error).__name__
                continue
            except httpx.InvalidURL as error:
                raise TargetError(f"the URL of the server is none: {error}") from error
            if response.is_success:
                return response
            problem = f"{response.status_code} {response.reason_phrase}"
            if not may_pass(response):
                raise TranscriptionError("request_refused", f"The server refused the request: {problem}.")
        raise TranscriptionError("unreachable", f"No answer after {attempts} attempts: {problem}")


class EndpointTarget:
    """An endpoint on RunPod, behind the Python client.

    Args:
        client: The client.
    """

    def __init__(self, client: Client) -> None:
        self._client = client
        self._stop = threading.Event()

    def model(self) -> dict[str, str]:
        """Return what a worker of the endpoint says of its model. If there is none, RunPod starts one."""
        try:
            return _model_fields(self._client.model_info())
        except TranscriptionError as error:
            raise TargetError(error.message) from error

    def transcribe(self, audio: str) -> Answer:
        """Transcribe a path or a URL."""
        executions: list[Execution] = []
        submitted = 0.0

        def on_submit(_: str) -> None:
            nonlocal submitted
            submitted = time.time()

        def on_end(job: Mapping[str, Any]) -> None:
            delay, execution = job.get("delayTime"), job.get("executionTime")
            if isinstance(delay, int | float) and isinstance(execution, int | float):
                # A large job's id comes with its result, or after ten seconds: then it was submitted before that.
                start = min(submitted + delay / 1000, time.time() - execution / 1000)
                executions.append(Execution(str(job.get("workerId", "")), start, start + execution / 1000))

        task = Task(audio if is_url(audio) else Path(audio), _OPTIONS, on_submit=on_submit, on_end=on_end)
        try:
            transcript = self._client.run(task, stop=self._stop)
        except TranscriptionError as error:
            return _failed(error, executions)
        return Answer(transcript, None, tuple(executions))

    def stop(self) -> None:
        """Cancel what is in flight."""
        self._stop.set()


def _with_retries(attempt: Callable[[list[Execution]], Transcript], pace: Pace, limit: WaitLimit) -> Answer:
    """Return the answer of the last attempt: of the first that succeeds, or fails in a way that does not pass.

    Args:
        attempt: Transcribes, and adds when the worker had the request to the list.
        pace: How long to wait between attempts.
        limit: When waiting ends.
    """
    executions: list[Execution] = []
    failures: Counter[str] = Counter()
    while True:
        try:
            return Answer(attempt(executions), None, tuple(executions))
        except TranscriptionError as error:
            if failures[error.code] >= RETRIES.get(error.code, 0):
                return _failed(error, executions)
            failures[error.code] += 1
        try:
            limit.sleep(pace.retry(failures.total() - 1))
        except TranscriptionError:
            raise StoppedError from None


def _failed(error: TranscriptionError, executions: list[Execution]) -> Answer:
    if error.code == "stopped":
        raise StoppedError from error
    if error.code in FATAL:
        raise TargetError(error.message) from error
    return Answer(None, Failure(error.code, error.message), tuple(executions))


def _job_input(audio: str) -> dict[str, Any]:
    """Return the input of a job.

    Raises:
        TranscriptionError: The file cannot be read.
    """
    if is_url(audio):
        return {"audio_url": audio, **_OPTIONS}
    try:
        content = Path(audio).read_bytes()
    except OSError as error:
        raise TranscriptionError("unreadable_file", f"The file cannot be read: {error.strerror}.") from None
    return {"audio_base64": base64.b64encode(content).decode(), **_OPTIONS}


def _transcript(answer: Mapping[str, Any]) -> Transcript:
    """Return the transcript of a worker's answer.

    Raises:
        TranscriptionError: It has none.
    """
    if answer.get("status") != "success":
        message = answer.get("error") or answer.get("message") or "The worker does not say why."
        raise TranscriptionError(str(answer.get("code", "failed")), str(message))
    return Transcript.from_answer(answer)


def _model_fields(answer: Mapping[str, Any]) -> dict[str, str]:
    if answer.get("status") != "success":
        raise TargetError(f"the worker does not describe its model: {answer.get('error', 'it does not say why')}")
    return {field: str(answer.get(field, "")) for field in _MODEL_FIELDS}
