"""How many children decode at a time, and in which order the others follow."""

import threading
import time
from dataclasses import dataclass

from parakeet_worker.audio.abort import Abort

# After so long others go first. Most files are decoded whole in less.
_TURN_S = 0.05

# A reader that has not come back for so long waits for something else: the model's queue, most often.
_AWAY_S = 0.05

# How soon it is seen that a job is gone, and that a reader is away.
_INTERVAL_S = 0.1


@dataclass
class _Turn:
    """When a turn began, and since when its reader is away, or None."""

    began: float
    away_since: float | None = None


class Turns:
    """Limit how many decode at a time.

    A recording of hours must not keep a short one waiting. So a turn goes to another when it has lasted `_TURN_S`, or
    when its reader is away. Who comes for the first time goes first; the others follow each other.

    A child without a turn is not stopped: it comes to rest by itself when its pipe is full.

    Args:
        count: How many turns there are.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self._changed = threading.Condition()
        self._turns: dict[object, _Turn] = {}
        self._new: list[object] = []
        self._waiting: list[object] = []

    def take(self, reader: object, abort: Abort) -> None:
        """Wait for a turn, or go on with the one that `reader` has.

        Raises:
            Aborted: The job is gone.
        """
        with self._changed:
            turn = self._turns.get(reader)
            if turn and not (self._is_anyone_waiting() and time.monotonic() - turn.began > _TURN_S):
                turn.away_since = None
                return
            queue = self._waiting if turn else self._new
            self._drop(reader)
            queue.append(reader)
            try:
                while not (self._is_next(reader) and self._has_room()):
                    abort.check()
                    self._changed.wait(_INTERVAL_S)
                self._turns[reader] = _Turn(time.monotonic())
            finally:
                queue.remove(reader)
                self._changed.notify_all()

    def leave(self, reader: object) -> None:
        """Note that `reader` does something else: it loses its turn if it is away for long and others wait."""
        with self._changed:
            if turn := self._turns.get(reader):
                turn.away_since = time.monotonic()

    def end(self, reader: object) -> None:
        """Give the turn of `reader` back, if it has one."""
        with self._changed:
            self._drop(reader)

    def _drop(self, reader: object) -> None:
        if self._turns.pop(reader, None):
            self._changed.notify_all()

    def _is_anyone_waiting(self) -> bool:
        return bool(self._new or self._waiting)

    def _is_next(self, reader: object) -> bool:
        return (self._new or self._waiting)[0] is reader

    def _has_room(self) -> bool:
        if len(self._turns) >= self._count:
            until = time.monotonic() - _AWAY_S
            for reader, turn in self._turns.items():
                if turn.away_since is not None and turn.away_since < until:
                    del self._turns[reader]
                    break
        return len(self._turns) < self._count
