"""RunPod's entry point: `python handler.py` serves jobs, or runs test_input.json where there is no platform."""

import os
import signal
from functools import cache
from typing import TYPE_CHECKING, Any

if __name__ == "__main__":
    # The first process of a container would not hear it, and nothing is in hand while the worker is imported.
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))

from parakeet_worker.settings import Settings
from parakeet_worker.start import build_worker, start

if TYPE_CHECKING:
    from parakeet_worker.serving import Worker


@cache
def worker() -> "Worker":
    """Build the worker on the first job, so that importing this module costs nothing."""
    return build_worker(Settings.from_env())


async def handler(job: dict[str, Any]) -> dict[str, Any]:
    """Answer one job: `{"id": …, "input": {"action": …, …}}`."""
    return await worker().answer(job)


if __name__ == "__main__":
    start(handler, worker)
