"""Ending the work of a thread for a job that was cancelled."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress


class Aborted(Exception):  # noqa: N818 - what happened, not a mistake
    """The job that the work was for is gone."""


class Abort:
    """A wish to stop, passed from the event loop to a thread that works for one job."""

    def __init__(self) -> None:
        self._is_set = threading.Event()
        self._lock = threading.Lock()
        self._wake: Callable[[], object] | None = None

    def set(self) -> None:
        """Ask the thread to stop, and wake it where it waits for the network."""
        with self._lock:
            self._is_set.set()
            if self._wake:
                # Its connection may have ended by itself a moment ago.
                with suppress(Exception):
                    self._wake()

    def check(self) -> None:
        """Stop here if the job is gone.

        Raises:
            Aborted: It is.
        """
        if self._is_set.is_set():
            raise Aborted

    def sleep(self, seconds: float) -> None:
        """Wait, but not for a job that is gone.

        Raises:
            Aborted: It is.
        """
        self._is_set.wait(seconds)
        self.check()

    @contextmanager
    def waking(self, wake: Callable[[], object]) -> Iterator[None]:
        """Have `set()` call `wake`, on its own thread, for as long as this lasts.

        Raises:
            Aborted: The job is gone already.
        """
        with self._lock:
            self.check()
            self._wake = wake
        try:
            yield
        finally:
            with self._lock:
                self._wake = None
