"""Serving: the worker's handler is given to RunPod's SDK, which runs until it is stopped."""

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

import runpod
from runpod import RunPodLogger

from parakeet_worker.asr.types import GraphCaptureError
from parakeet_worker.serverless.envelope import Envelope
from parakeet_worker.serverless.log import drain
from parakeet_worker.serverless.logger import choose_log_level, is_logged
from parakeet_worker.serverless.open_files import jobs_for_files
from parakeet_worker.serverless.platform import has_queue
from parakeet_worker.serverless.worker import Worker

Handler = Callable[[Any], Awaitable[Envelope]]

_STDERR = 2

Restart = Callable[[Mapping[str, str]], NoReturn]

# Longest wait for the model at the end. All jobs are answered by then: nobody needs what it still decodes.
_CLOSING_S = 1.0

_log = RunPodLogger()


def replace_process(environ: Mapping[str, str]) -> NoReturn:
    """Replace this process by one of the same command, with further environment variables."""
    drain()
    sys.stdout.flush()
    sys.stderr.flush()
    # Libraries may have opened files, or the device, in a way that the next program would inherit.
    for descriptor in [int(link.name) for link in Path("/proc/self/fd").iterdir()]:
        with suppress(OSError):  # that of the listing itself is closed
            os.set_inheritable(descriptor, descriptor <= _STDERR)
    os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], os.environ | environ)  # noqa: S606 - its own


def serve(
    handler: Handler, worker: Worker, concurrency: int, loop: str = "worker", restart: Restart = replace_process
) -> None:
    """Give the handler to RunPod's SDK, which reads the command line and runs until it is stopped.

    On the platform, a worker whose model cannot be loaded, or does not transcribe as it should, logs why and exits
    before it takes a job. One whose device is not as it was, after a failed capture of CUDA graphs, starts anew.

    Args:
        handler: Answers a job.
        worker: The worker behind the handler.
        concurrency: Jobs to take at a time. Fewer are taken if the limit on open files is too low for them.
        loop: `worker`, or `sdk` for RunPod's own loop.
        restart: Replaces the process, if CUDA graphs cannot be captured, by one with further environment variables.
    """

    async def model_is_fit() -> None:
        try:
            await worker.ready()
        except GraphCaptureError:
            restart({"PARAKEET_CUDA_GRAPHS": "false"})
        # Here, since the SDK's local modes, whose output is a result, have no fitness checks.
        worker.start_summary()

    choose_log_level()
    runpod.serverless.register_fitness_check(model_is_fit)
    # For a stop before the loop has started: by default, the first process of a container ignores the signal.
    signal.signal(signal.SIGTERM, _stop)
    is_on_platform = has_queue()
    if is_on_platform:
        _choose_loop(loop)
    jobs = jobs_for_files(concurrency)
    if jobs < concurrency:
        _log.warn(f"The limit on open files is enough for {jobs} jobs at a time, not {concurrency}.")
    try:
        runpod.serverless.start({"handler": handler, "concurrency_modifier": lambda _: jobs, "store": worker.store})
    finally:
        if is_on_platform:
            _leave(worker)
        # A thread that is still loading must not outlive the interpreter.
        worker.close()


def _choose_loop(name: str) -> None:
    """Make the SDK run our loop, or log why it runs its own."""
    reason: str | None = "PARAKEET_LOOP is sdk"
    if name != "sdk":
        try:
            from parakeet_worker.serverless.job_loop import install

            reason = install()
        except ImportError:
            reason = f"version {runpod.__version__} of RunPod's SDK lacks what the worker's loop is built on"
    if reason is None:
        return
    _log.warn(f"RunPod's own loop takes the jobs: {reason}. It is slower, and may lose jobs when the worker stops.")
    if is_logged("DEBUG"):
        _log.warn("The log level is INFO: below it, RunPod's own loop prints transcripts.")
        sys.argv += ["--rp_log_level", "INFO"]  # the SDK reads the arguments again, and takes the last one


def _stop(*_: object) -> NoReturn:
    sys.exit(0)


def _leave(worker: Worker) -> None:
    """Exit without waiting for threads: the look-up of a name that does not resolve holds one for half a minute."""
    error = sys.exc_info()[1]
    if error is not None and not isinstance(error, SystemExit):
        return
    closing = threading.Thread(target=worker.close, daemon=True)
    closing.start()
    closing.join(_CLOSING_S)
    for child in multiprocessing.active_children():  # the SDK's heartbeat
        child.terminate()
    drain()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(error.code if isinstance(error, SystemExit) and isinstance(error.code, int) else 0)
