"""How much audio was transcribed, how long workers were busy with it, and what that costs."""

import itertools
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from results import Outcome


@dataclass(frozen=True)
class Cost:
    """Audio, time and money.

    Attributes:
        audio_seconds: Audio that was transcribed. What failed is not counted.
        worker_seconds: Time in which a worker had at least one request, added up over workers; failed ones are
            counted. None if nobody says when workers had them.
        workers: Number of workers that had requests. None if they have no names; then all count as one.
        wall_seconds: Time in which at least one request was on its way, by the evaluation's clock.
        price_per_hour: Dollars for an hour of a worker, if given.
    """

    audio_seconds: float
    worker_seconds: float | None
    workers: int | None
    wall_seconds: float
    price_per_hour: float | None = None

    @property
    def rtfx(self) -> float | None:
        """Seconds of audio per second of worker time."""
        return self.audio_seconds / self.worker_seconds if self.worker_seconds else None

    @property
    def wall_rtfx(self) -> float | None:
        """Seconds of audio per second of wall-clock time."""
        return self.audio_seconds / self.wall_seconds if self.wall_seconds else None

    @property
    def dollars(self) -> float | None:
        """Price of the worker time."""
        if self.price_per_hour is None or self.worker_seconds is None:
            return None
        return self.worker_seconds / 3600 * self.price_per_hour

    @property
    def dollars_per_1000_hours(self) -> float | None:
        """Price of the worker time for a thousand hours of audio."""
        if self.dollars is None or not self.audio_seconds:
            return None
        return self.dollars / (self.audio_seconds / 3600) * 1000


def measure_cost(
    outcomes: Iterable[Outcome], price_per_hour: float | None = None, repeated: Iterable[Outcome] = ()
) -> Cost:
    """Return the cost of an evaluation.

    A worker has several requests at a time, so the times of requests cannot be added up: that would count the same
    second of a worker several times.

    Args:
        outcomes: All of them, failed ones included.
        price_per_hour: Dollars for an hour of a worker.
        repeated: Earlier outcomes of the same utterances, which failed.
    """
    audio = 0.0
    by_worker: defaultdict[str, list[tuple[float, float]]] = defaultdict(list)
    on_the_way = []
    is_known = True
    for outcome in itertools.chain(outcomes, repeated):
        if outcome.hypothesis is not None:
            audio += outcome.duration or 0.0
            is_known = is_known and bool(outcome.executions)
        on_the_way.append((outcome.sent, outcome.sent + outcome.seconds))
        for execution in outcome.executions:
            by_worker[execution.worker].append((execution.start, execution.end))
    busy = sum(map(covered, by_worker.values())) if is_known and by_worker else None
    workers = None if "" in by_worker else len(by_worker)
    return Cost(audio, busy, workers, covered(on_the_way), price_per_hour)


def covered(spans: Iterable[tuple[float, float]]) -> float:
    """Return how much time spans cover together, each moment counted once."""
    total, reached = 0.0, float("-inf")
    for start, end in sorted(spans):
        total += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return total
