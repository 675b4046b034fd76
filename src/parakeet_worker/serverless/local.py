"""The local test mode of RunPod's SDK: the job that it is given is checked first, and one is bundled."""

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

from parakeet_worker.serverless.platform import has_queue
from parakeet_worker.settings import REPOSITORY

_FILE = "test_input.json"
_BUNDLED = REPOSITORY / _FILE


class TestInputError(ValueError):
    """The job of the local test mode is unusable. The message says why."""


def bundled_job() -> dict[str, Any]:
    """Return the job of the `test_input.json` that comes with the worker."""
    return _parse(_BUNDLED.read_text(encoding="utf-8"), str(_BUNDLED))


def prepare_test_input() -> None:
    """Check the job on the command line, or in `test_input.json` where the SDK will read it.

    The SDK looks for the file in the working directory. Where there is none, the bundled job is put on the command
    line.

    Raises:
        TestInputError: The job is not a JSON object, or the option has no value.
    """
    # As the SDK reads them, which is not imported yet: abbreviations are taken, and empty text is no job.
    parser = argparse.ArgumentParser(add_help=False, exit_on_error=False)
    parser.add_argument("--test_input")
    parser.add_argument("--rp_serve_api", action="store_true")
    try:
        options, _ = parser.parse_known_args()
    except argparse.ArgumentError as error:
        raise TestInputError(str(error)) from error
    if options.test_input:
        _parse(options.test_input, "--test_input")
    elif not (options.rp_serve_api or has_queue() or os.environ.get("RUNPOD_REALTIME_PORT", "0") != "0"):
        if Path(_FILE).exists():
            _parse(Path(_FILE).read_bytes(), _FILE)
        elif _BUNDLED.exists():
            sys.argv += ["--test_input", json.dumps(bundled_job())]


def _parse(text: str | bytes, name: str) -> dict[str, Any]:
    try:
        job = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise TestInputError(f"{name} is not JSON: {error}") from error
    # The SDK takes an empty object for no job at all.
    if not isinstance(job, dict) or not job:
        raise TestInputError(f'{name} must be a JSON object such as {{"input": {{"action": "model_info"}}}}')
    return job
