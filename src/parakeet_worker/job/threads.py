"""Threads for blocking work that cannot always be interrupted."""

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

from parakeet_worker.exhaustion import worker_busy

T = TypeVar("T")


class Threads:
    """Runs each function on a thread of its own, which does not keep the process from ending.

    In a small pool, functions would have to wait for threads that hang, such as in a name lookup without an answer,
    which cannot be interrupted.

    Args:
        name: Name of the threads.
        most: Most threads at a time, including those that hang.
    """

    def __init__(self, name: str, most: int) -> None:
        self._name = name
        self._free = threading.BoundedSemaphore(most)

    def run(self, function: Callable[..., T], *args: object) -> "Future[T]":
        """Start to run a function.

        Returns:
            A future of its result. It cannot be cancelled.

        Raises:
            JobError: There are too many threads.
        """
        if not self._free.acquire(blocking=False):
            raise worker_busy()
        answer: Future[T] = Future()
        answer.set_running_or_notify_cancel()

        def run() -> None:
            try:
                result = function(*args)
            except BaseException as error:  # noqa: BLE001 - raised again where the future is awaited
                self._free.release()
                answer.set_exception(error)
            else:
                self._free.release()
                answer.set_result(result)

        try:
            threading.Thread(target=run, name=self._name, daemon=True).start()
        except RuntimeError as error:  # the system has no thread left
            self._free.release()
            raise worker_busy() from error
        return answer
