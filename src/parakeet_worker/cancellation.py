"""Stopping the threads that work for a job whose caller has cancelled it."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress


class JobCancelledError(Exception):
    """The job that a thread works for was cancelled."""


class CancellationToken:
    """Tells the threads that work for one job that it was cancelled. Safe on any thread."""

    def __init__(self) -> None:
        self._is_cancelled = threading.Event()
        self._lock = threading.Lock()
        self._callback: Callable[[], object] | None = None

    def cancel(self) -> None:
        """Cancel the job, and call the callback that `calling` has set."""
        with self._lock:
            self._is_cancelled.set()
            if self._callback:
                # The connection that it cuts may have ended by itself a moment ago.
                with suppress(Exception):
                    self._callback()

    def check(self) -> None:
        """Raise if the job was cancelled.

        Raises:
            JobCancelledError: It was.
        """
        if self._is_cancelled.is_set():
            raise JobCancelledError

    def sleep(self, seconds: float) -> None:
        """Sleep, at most until the job is cancelled.

        Raises:
            JobCancelledError: It was cancelled.
        """
        self._is_cancelled.wait(seconds)
        self.check()

    @contextmanager
    def calling(self, callback: Callable[[], object]) -> Iterator[None]:
        """Have `cancel()` call `callback`, on the thread that cancels, while the context lasts.

        Raises:
            JobCancelledError: The job is cancelled already.
        """
        with self._lock:
            self.check()
            self._callback = callback
        try:
            yield
        finally:
            with self._lock:
                self._callback = None
