"""Threads for work that mostly waits, and that cannot always be made to stop waiting."""

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

from parakeet_worker.exhaustion import worker_busy

T = TypeVar("T")


class Threads:
    """Runs each function on a thread of its own, which does not keep the process from ending.

    A pool of few threads would make a function wait for those that hang, such as a look-up of a name that nobody
    answers: the system has no way to end that.

    Args:
        name: What the threads are called.
        most: How many there may be at a time, those that hang among them.
    """

    def __init__(self, name: str, most: int) -> None:
        self._name = name
        self._free = threading.BoundedSemaphore(most)

    def run(self, function: Callable[..., T], *args: object) -> "Future[T]":
        """Begin to run a function.

        Returns:
            What it will return or raise. It cannot be cancelled.

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
            except BaseException as error:  # noqa: BLE001 - it is raised where the answer is awaited
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
