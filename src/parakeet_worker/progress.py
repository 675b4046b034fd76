"""How far a long job is, told now and then."""

import threading
import time
from collections.abc import Callable
from contextvars import ContextVar

Report = Callable[[float, float | None], object]
"""Called with the seconds of audio that are done, and how many there are in all, where that is known."""

teller: ContextVar[Report] = ContextVar("teller")
"""Who tells the platform of the job that is being answered; unset where there is no platform."""

_SHORTEST_S = 30.0
_INTERVAL_S = 1.0


class Progress:
    """Tells of the progress of one recording: at most once a second, and never of a short one or of its end.

    Args:
        report: Whom to tell. Must return soon.
        clock: Seconds that never go back.
    """

    def __init__(self, report: Report, clock: Callable[[], float] = time.monotonic) -> None:
        self.total: float | None = None
        self._report = report
        self._clock = clock
        self._lock = threading.Lock()
        self._done = 0.0
        self._told = clock()

    def add(self, seconds: float) -> None:
        """Count seconds of audio as done. On any thread."""
        with self._lock:
            self._done += seconds
            now = self._clock()
            is_short = self.total is not None and self.total < _SHORTEST_S
            is_end = self.total is not None and self._done >= self.total
            if is_short or is_end or self._done < _SHORTEST_S / 2 or now - self._told < _INTERVAL_S:
                return
            self._told = now
            done = self._done
        self._report(round(done, 1), None if self.total is None else round(self.total, 1))
