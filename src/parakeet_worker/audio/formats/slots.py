"""Slots that limit how many decoder processes work at a time, and who gets the next one."""

import threading
import time
from dataclasses import dataclass

from parakeet_worker.cancellation import CancellationToken

# A slot that others wait for is handed on after so long. Most files are decoded whole in less.
_SLICE_S = 0.05

# A reader that has paused for so long waits for something else, most often for room in the model's queue.
_PAUSE_S = 0.05

# How often a waiting reader checks for cancellation and for paused readers.
_INTERVAL_S = 0.1


@dataclass
class _Slot:
    """When its reader got it, and since when that is paused, or None."""

    began: float
    paused_since: float | None = None


class DecoderSlots:
    """Limits how many readers decode at a time.

    A recording of hours must not keep a short one waiting. So a slot that others wait for is handed on after 50 ms, or
    when its reader has paused. New readers go first; the others take turns.

    A child whose reader has no slot is not stopped: it blocks when its pipe is full.

    Args:
        count: Number of slots.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self._changed = threading.Condition()
        self._held: dict[object, _Slot] = {}
        self._new: list[object] = []
        self._waiting: list[object] = []

    @property
    def waiting(self) -> list[object]:
        """Readers that wait for a slot, in the order in which they get one."""
        with self._changed:
            return [*self._new, *self._waiting]

    def acquire(self, reader: object, cancellation: CancellationToken) -> None:
        """Wait for a slot, unless `reader` has one and may keep it.

        Raises:
            JobCancelledError: The job was cancelled.
        """
        with self._changed:
            slot = self._held.get(reader)
            if slot and not (self._is_anyone_waiting() and time.monotonic() - slot.began > _SLICE_S):
                slot.paused_since = None
                return
            queue = self._waiting if slot else self._new
            self._drop(reader)
            queue.append(reader)
            try:
                while not (self._is_next(reader) and self._has_room()):
                    cancellation.check()
                    self._changed.wait(_INTERVAL_S)
                self._held[reader] = _Slot(time.monotonic())
            finally:
                queue.remove(reader)
                self._changed.notify_all()

    def pause(self, reader: object) -> None:
        """Note that `reader` has paused. It loses its slot to those that wait, unless it acquires again soon."""
        with self._changed:
            if slot := self._held.get(reader):
                slot.paused_since = time.monotonic()

    def release(self, reader: object) -> None:
        """Release the slot of `reader`, if it has one."""
        with self._changed:
            self._drop(reader)

    def _drop(self, reader: object) -> None:
        if self._held.pop(reader, None):
            self._changed.notify_all()

    def _is_anyone_waiting(self) -> bool:
        return bool(self._new or self._waiting)

    def _is_next(self, reader: object) -> bool:
        return (self._new or self._waiting)[0] is reader

    def _has_room(self) -> bool:
        if len(self._held) >= self._count:
            until = time.monotonic() - _PAUSE_S
            for reader, slot in self._held.items():
                if slot.paused_since is not None and slot.paused_since < until:
                    del self._held[reader]
                    break
        return len(self._held) < self._count
