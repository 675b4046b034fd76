"""RunPod's entry point: `python handler.py` serves jobs, or runs test_input.json where there is no platform."""

from functools import cache
from typing import Any

from parakeet_worker.serving import Worker, build_worker, start
from parakeet_worker.settings import Settings


@cache
def worker() -> Worker:
    """Build the worker on the first job, so that importing this module costs nothing."""
    return build_worker(Settings.from_env())


async def handler(job: dict[str, Any]) -> dict[str, Any]:
    """Answer one job: `{"id": …, "input": {"action": …, …}}`."""
    return await worker().answer(job)


if __name__ == "__main__":
    start(handler, worker)
