"""Measuring how long the stages of a job or of a start take."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class StageTimer:
    """Adds up seconds by stage. Several threads may time different stages at once.

    Args:
        clock: Returns seconds that never go back.

    Attributes:
        seconds: Seconds of each stage, in the order in which the stages first ended.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.seconds: dict[str, float] = {}
        self._clock = clock
        self._started = clock()

    @property
    def elapsed(self) -> float:
        """Seconds since the timer was made."""
        return self._clock() - self._started

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time what is done in the context as a part of a stage, also when it raises."""
        began = self._clock()
        try:
            yield
        finally:
            self.add(name, self._clock() - began)

    def add(self, name: str, seconds: float) -> None:
        """Add seconds to a stage."""
        self.seconds[name] = self.seconds.get(name, 0.0) + seconds
