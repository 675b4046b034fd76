"""The client: recordings in, transcripts out, with everything between that a caller would have to do by hand."""

import contextlib
import json
import os
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Mapping
from concurrent import futures
from dataclasses import dataclass
from typing import Any, Self, Unpack, cast

from tqdm import tqdm

from parakeet_client.contract import (
    MAX_RUN_BYTES,
    RETRIES,
    ModelInfo,
    Options,
    Source,
    Transcript,
    TranscriptionError,
    build_request,
)
from parakeet_client.endpoint import BASE_URL, Endpoint, Pace, WaitLimit

# What is wrong with every request, not with one recording.
FATAL = frozenset({"unauthorized", "unknown_endpoint"})

# How long /runsync may hold a request open, in seconds: RunPod takes 1 at least. Its answer is then that of /status.
_LEAST_HELD_S, _MOST_HELD_S = 1.0, 10.0


@dataclass(frozen=True)
class Task:
    """A recording to transcribe.

    Attributes:
        source: A URL, a file, or the bytes of a file.
        options: What to ask for.
        job_id: A job that was sent for it before. It is waited for. If RunPod does not know it any longer, or it failed
            in a way that may pass, the recording is sent again.
        on_submit: Called with the id of each job that is sent for it, from a thread of the client.
        on_end: Called with what RunPod says of each of these jobs when it has ended, such as its `executionTime`.
    """

    source: Source
    options: Options
    job_id: str | None = None
    on_submit: Callable[[str], None] = lambda _: None
    on_end: Callable[[Mapping[str, Any]], None] = lambda _: None


class Client:
    """A Parakeet endpoint on RunPod. Several threads may use it; close it, or use it in a `with` block.

    Args:
        endpoint_id: The endpoint's id, from RunPod's console.
        api_key: A RunPod API key; by default that of the environment variable `RUNPOD_API_KEY`.
        base_url: Where RunPod's endpoints are; by default that of `RUNPOD_ENDPOINT_BASE_URL`, or RunPod's own.
        pace: How long to wait between requests.

    Raises:
        ValueError: The id, the key or the base URL cannot be one.
    """

    def __init__(
        self, endpoint_id: str, *, api_key: str | None = None, base_url: str | None = None, pace: Pace | None = None
    ) -> None:
        if not re.fullmatch(r"[\w-]+", endpoint_id, re.ASCII):
            raise ValueError("endpoint_id must be the id of an endpoint, not an address")
        key = (os.environ.get("RUNPOD_API_KEY", "") if api_key is None else api_key).strip()
        if not key:
            raise ValueError("give a RunPod API key as api_key, or set RUNPOD_API_KEY")
        if not re.fullmatch(r"[!-~]+", key):
            raise ValueError("the RunPod API key has spaces or other characters that no key has")
        self.endpoint_id = endpoint_id
        self._pace = pace or Pace()
        url = base_url or os.environ.get("RUNPOD_ENDPOINT_BASE_URL") or BASE_URL
        if not re.match(r"https?://[^/]", url, re.IGNORECASE):
            raise ValueError("the base URL of RunPod's endpoints must begin with https:// or http://")
        self._endpoint = Endpoint(endpoint_id, key, url, self._pace)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._endpoint.close()

    def transcribe(self, source: Source, *, timeout: float | None = None, **options: Unpack[Options]) -> Transcript:
        """Transcribe a recording and wait for it.

        What may succeed if it is sent again is sent again, a few times. If waiting ends early, the job is cancelled.

        Args:
            source: A URL, a file, or the bytes of a file. Files go into the request, so RunPod's limits hold for them:
                about 15 MB. Larger ones must be where the worker can download them.
            timeout: Longest wait in seconds; by default as long as RunPod keeps the job.
            **options: What to ask for, see `Options`.

        Raises:
            TranscriptionError: It was not transcribed.
        """
        return self.run(Task(source, options), timeout=timeout)

    def run(self, task: Task, *, timeout: float | None = None, stop: threading.Event | None = None) -> Transcript:
        """Transcribe the recording of a task, as `transcribe` does.

        Args:
            task: The recording, and what is called while it is transcribed.
            timeout: Longest wait in seconds; by default as long as RunPod keeps the job.
            stop: Ends the waiting once it is set.

        Raises:
            TranscriptionError: It was not transcribed.
        """
        return self._transcribe(task, _limit(stop or threading.Event(), timeout), cancel_on_exit=True)

    def transcribe_many(
        self,
        sources: Iterable[Source],
        *,
        in_flight: int = 32,
        timeout: float | None = None,
        progress: bool = False,
        **options: Unpack[Options],
    ) -> list[Transcript | TranscriptionError]:
        """Transcribe recordings, and return their transcripts or failures in the order of the recordings.

        Args:
            sources: The recordings, each as for `transcribe`.
            in_flight: How many of them RunPod has at a time.
            timeout: Longest wait for each, in seconds.
            progress: Whether to show a progress bar.
            **options: What to ask for, see `Options`.

        Raises:
            TranscriptionError: RunPod takes no request at all (`unauthorized`, `unknown_endpoint`).
            TypeError: There is one source in place of several, or an option does not exist.
        """
        if isinstance(sources, str | bytes):
            raise TypeError("sources must be several; transcribe() takes one")
        tasks = [Task(source, options) for source in sources]
        results: dict[int, Transcript | TranscriptionError] = {}
        with (
            contextlib.closing(self.as_completed(tasks, in_flight=in_flight, timeout=timeout)) as completed,
            tqdm(total=len(tasks), unit="file", disable=not progress) as bar,
        ):
            for number, result in completed:
                if isinstance(result, TranscriptionError) and result.code in FATAL:
                    raise result
                results[number] = result
                bar.update()
        return [results[number] for number in range(len(tasks))]

    def as_completed(
        self,
        tasks: Iterable[Task],
        *,
        in_flight: int = 32,
        timeout: float | None = None,
        cancel_on_exit: bool = True,
    ) -> Generator[tuple[int, Transcript | TranscriptionError], None, None]:
        """Yield the number of each task and its result, as they become known.

        Args:
            tasks: The recordings.
            in_flight: How many of them RunPod has at a time.
            timeout: Longest wait for each, in seconds.
            cancel_on_exit: Whether jobs are cancelled when nobody waits for them any longer, as after Ctrl+C.
        """
        stop = threading.Event()

        def result(task: Task) -> Transcript | TranscriptionError:
            try:
                return self._transcribe(task, _limit(stop, timeout), cancel_on_exit=cancel_on_exit)
            except TranscriptionError as error:
                return error

        pool = futures.ThreadPoolExecutor(in_flight, "parakeet-client")
        try:
            numbers = {pool.submit(result, task): number for number, task in enumerate(tasks)}
            for future in futures.as_completed(numbers):
                # Not kept: a result may have megabytes.
                yield numbers.pop(future), future.result()
        finally:
            stop.set()
            pool.shutdown(cancel_futures=True)

    def model_info(self, *, timeout: float | None = None) -> ModelInfo:
        """Return what a worker of the endpoint says of its model.

        Raises:
            TranscriptionError: There was no answer.
        """
        limit = _limit(threading.Event(), timeout)
        job = self._endpoint.post("run", json.dumps({"input": {"action": "model_info"}}).encode(), limit)
        output = _output_of(self._wait(job, limit, cancel_on_exit=True))
        if "model" not in output:
            raise TranscriptionError("unexpected_answer", "The endpoint's answer does not describe a model.")
        return cast("ModelInfo", output)

    def _transcribe(self, task: Task, limit: WaitLimit, *, cancel_on_exit: bool) -> Transcript:
        """Send a task, wait for it, and send it again after a failure while its code allows that."""
        failures: Counter[str] = Counter()
        job_id = task.job_id
        while True:
            try:
                job = {"id": job_id, "status": ""} if job_id else self._submit(task, limit)
                ended = self._wait(job, limit, cancel_on_exit=cancel_on_exit)
                task.on_end(ended)
                return self._fetched(_output_of(ended), limit)
            except TranscriptionError as error:
                if job_id and error.code == "expired":
                    # Nothing failed here: the result of an earlier run of the program is gone.
                    job_id = None
                    continue
                if failures[error.code] >= RETRIES.get(error.code, 0):
                    raise
                failures[error.code] += 1
            job_id = None
            limit.sleep(self._pace.retry(failures.total() - 1))

    def _submit(self, task: Task, limit: WaitLimit) -> dict[str, Any]:
        limit.sleep(0.0)
        body = build_request(task.source, task.options)
        path = "run"
        if len(body) > MAX_RUN_BYTES:
            path = f"runsync?wait={max(_LEAST_HELD_S, limit.at_most(_MOST_HELD_S)) * 1000:.0f}"
        job = self._endpoint.post(path, body, limit)
        try:
            task.on_submit(job["id"])
        except BaseException:
            # The caller could not note the job, so nobody will ever ask for it.
            self._endpoint.cancel(job["id"])
            raise
        return job

    def _wait(self, job: dict[str, Any], limit: WaitLimit, *, cancel_on_exit: bool) -> Mapping[str, Any]:
        """Wait for a job, and return what RunPod says of it when it has ended.

        Raises:
            TranscriptionError: RunPod does not know it, or waiting has ended.
        """
        job_id, polls, has_ended = job["id"], 0, False
        try:
            while job["status"] in ("", "IN_QUEUE", "IN_PROGRESS"):
                if job["status"]:
                    limit.sleep(self._pace.poll(polls))
                    polls += 1
                job = self._endpoint.status(job_id, limit)
            has_ended = True
        except TranscriptionError as error:
            has_ended = error.code == "expired"
            raise
        finally:
            if not has_ended and cancel_on_exit:
                self._endpoint.cancel(job_id)
        return job

    def _fetched(self, output: Mapping[str, Any], limit: WaitLimit) -> Transcript:
        """Return the transcript, from the bucket if it was too large for RunPod."""
        url = output.get("result_url")
        if url is None:
            return Transcript.from_answer(output)
        answer = self._endpoint.fetch(str(url), limit)
        if not isinstance(answer, dict):
            raise TranscriptionError("unexpected_answer", "The result in the bucket is not a transcript.")
        return Transcript.from_answer(answer)


def _limit(stop: threading.Event, timeout: float | None) -> WaitLimit:
    return WaitLimit(stop, None if timeout is None else time.monotonic() + timeout)


def _output_of(job: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the output of a job that has ended.

    Raises:
        TranscriptionError: It has none.
    """
    status, output = job["status"], job.get("output")
    fields = output if isinstance(output, dict) else {}
    if status == "COMPLETED" and fields.get("status") == "success":
        return fields
    if status == "COMPLETED" and fields.get("status") != "error":
        raise TranscriptionError("unexpected_answer", "The endpoint's answer is not one of a Parakeet worker.")
    if status in ("COMPLETED", "FAILED"):
        message = fields.get("message") or job.get("error") or "RunPod does not say why."
        raise TranscriptionError(str(fields.get("code", "failed")), str(message))
    if status == "CANCELLED":
        raise TranscriptionError("cancelled", "The job was cancelled.")
    if status == "TIMED_OUT":
        raise TranscriptionError("timed_out", "RunPod gave the job up: it waited or ran for too long.")
    raise TranscriptionError("unexpected_answer", f"RunPod says that the job is {status}.")
