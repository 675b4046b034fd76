"""RunPod's entry point: `python handler.py` serves jobs, or runs test_input.json where there is no platform."""

import os
import signal
import sys
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

if __name__ == "__main__":
    # The first process of a container ignores the signal by default. No job is in hand while the worker is imported.
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))

if find_spec("parakeet_worker") is None:
    # It is not installed. Processes that it starts find it by the variable.
    _SRC = str(Path(__file__).resolve().parent / "src")
    sys.path.insert(0, _SRC)
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (_SRC, os.environ.get("PYTHONPATH"))))

from parakeet_worker.settings import Settings
from parakeet_worker.startup import build_worker, start

if TYPE_CHECKING:
    from parakeet_worker.serverless.worker import Worker


@cache
def settings() -> Settings:
    """Read the settings from the environment, once."""
    return Settings.from_env()


@cache
def worker() -> "Worker":
    """Build the worker on the first job, so that importing this module costs nothing."""
    return build_worker(settings())


async def handler(job: dict[str, Any]) -> dict[str, Any]:
    """Answer one job: `{"id": …, "input": {"action": …, …}}`."""
    return await worker().answer(job)


if __name__ == "__main__":
    start(handler, settings, worker)
