"""Progress of a long recording, reported once a second at most."""

import threading
import time
from collections.abc import Callable

ProgressCallback = Callable[[float, float | None], object]
"""Called with the seconds of audio that are transcribed, and with the length of the recording or None if unknown."""

_SHORTEST_S = 30.0
_INTERVAL_S = 1.0


class Progress:
    """Reports the progress of one recording: once a second at most, and not of one under 30 s, nor when it is done.

    Args:
        callback: Called with the progress, on any thread. Must return soon.
        clock: Returns seconds that never go back.

    Attributes:
        total: Length of the recording in seconds, or None while it is unknown.
    """

    def __init__(self, callback: ProgressCallback, clock: Callable[[], float] = time.monotonic) -> None:
        self.total: float | None = None
        self._callback = callback
        self._clock = clock
        self._lock = threading.Lock()
        self._done = 0.0
        self._reported = clock()

    def add(self, seconds: float) -> None:
        """Add seconds of audio that are transcribed. Safe on any thread."""
        with self._lock:
            self._done += seconds
            now = self._clock()
            is_short = self.total is not None and self.total < _SHORTEST_S
            is_end = self.total is not None and self._done >= self.total
            if is_short or is_end or self._done < _SHORTEST_S / 2 or now - self._reported < _INTERVAL_S:
                return
            self._reported = now
            done = self._done
        self._callback(round(done, 1), None if self.total is None else round(self.total, 1))
