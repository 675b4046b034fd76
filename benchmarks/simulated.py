"""Simulated devices, traffic for them, and batchers, on simulated time: minutes of traffic pass in a second.

The worker's own `Scheduler` runs, with its model thread and what it learns, by a clock that only the simulated batches
and the arrivals move. So equal traffic gives equal results, on any machine.
"""

import heapq
import threading
from abc import abstractmethod
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial

import numpy as np
from numpy.typing import NDArray

from parakeet_worker.asr.batch_cost import BatchCost, CostModel
from parakeet_worker.asr.batching import ChooseBatch, choose_batch
from parakeet_worker.asr.scheduler import Scheduler
from parakeet_worker.asr.types import (
    SAMPLE_RATE,
    BatchTime,
    Hypothesis,
    PaddedBatch,
    ReadHypothesis,
    Recognizer,
    WindowResult,
)
from parakeet_worker.model.self_check import warm_up

# A run takes seconds. One that takes longer hangs, such as after an exception in a callback, which futures swallow.
_LONGEST_RUN_S = 300.0

_HEARD = Hypothesis("", ())


@dataclass(frozen=True)
class Noise:
    """What makes a batch take longer or shorter than it should.

    Attributes:
        spread: Standard deviation of the logarithm of the time.
        slow_share: Share of batches that a neighbour makes slower.
        slow_factor: How many times as long those take.
    """

    spread: float = 0.0
    slow_share: float = 0.0
    slow_factor: float = 10.0

    def factor(self, draw: np.random.Generator) -> float:
        """Draw what the time of a batch is multiplied with."""
        factor = float(draw.lognormal(0.0, self.spread))
        return factor * self.slow_factor if draw.random() < self.slow_share else factor


QUIET = Noise()


@dataclass(frozen=True)
class Device:
    """A device, by what a batch of n windows, the longest of L seconds, costs: `max(launch, n * L / rate) + step * L`.

    Attributes:
        name: Its name.
        launch: Least time of a batch, in seconds.
        rate: Padded seconds of audio per second, once it is saturated.
        step: Time for each second of the longest window, in seconds.
        batch_seconds: Longest batch that its memory holds, in padded seconds.
    """

    name: str
    launch: float
    rate: float
    step: float
    batch_seconds: float = 2_400.0

    @property
    def cost(self) -> BatchCost:
        """Its true cost."""
        return BatchCost(self.launch, 1 / self.rate, self.step)

    def seconds(self, windows: int, longest: float) -> float:
        """Return what a batch takes without noise, in seconds."""
        return max(self.launch, windows * longest / self.rate) + self.step * longest


DEVICES = (
    Device("H100 eager", 0.025, 14_000, 0.0003),
    Device("H100 graphs", 0.006, 14_000, 0.0003),
    Device("4090 eager", 0.022, 6_000, 0.0004),
    Device("L4 eager", 0.030, 2_000, 0.0005),
    Device("two cores", 0.004, 480, 0.0004, batch_seconds=120.0),
)
"""GPUs with Parakeet's 0.6B, and two CPU cores with the bundled model."""


class Feed:
    """Jobs of one window each, in the order of their arrival.

    Args:
        lengths: Length of each job's window, in seconds.
        arrivals: When each job arrives, in seconds. None if each arrives when one before it is answered.
        in_flight: Number of jobs that arrive at 0 without `arrivals`.
        delays: Seconds from the arrival of each job until it is due. None if each is due at once.
    """

    def __init__(
        self,
        lengths: Sequence[float],
        arrivals: Sequence[float] | None = None,
        *,
        in_flight: int = 0,
        delays: Sequence[float] | None = None,
    ) -> None:
        self.lengths = lengths
        self.delays = delays or [0.0] * len(lengths)
        known = [0.0] * min(in_flight, len(lengths)) if arrivals is None else arrivals
        self.arrivals = dict(enumerate(known))
        self._coming = [(at, index) for index, at in enumerate(known)]
        heapq.heapify(self._coming)
        self._unused = deque(range(len(known), len(lengths)))

    @property
    def next_at(self) -> float:
        """When the next job arrives, as far as that is known: infinity if none does."""
        return self._coming[0][0] if self._coming else float("inf")

    def take(self) -> int:
        """Return the index of the next job."""
        return heapq.heappop(self._coming)[1]

    def answer(self, at: float) -> None:
        """Say that a job was answered: a further one arrives at that time if there is one."""
        if self._unused:
            self.arrivals[self._unused[0]] = at
            heapq.heappush(self._coming, (at, self._unused.popleft()))

    def end(self) -> None:
        """Let no further job arrive when one is answered."""
        self._unused.clear()


@dataclass(frozen=True)
class Batch:
    """A batch that was decoded: its number of windows, its longest one, and the time that was predicted, in seconds."""

    windows: int
    longest: float
    predicted: float = 0.0


@dataclass
class Outcome:
    """What became of the jobs of a feed.

    Attributes:
        feed: The feed.
        ended: When each job was answered, in seconds, by its index.
        answers: How often each job was answered.
        batches: The batches.
    """

    feed: Feed
    ended: dict[int, float] = field(default_factory=dict)
    answers: dict[int, int] = field(default_factory=dict)
    batches: list[Batch] = field(default_factory=list)

    def answer(self, index: int, at: float) -> None:
        """Note the answer to a job."""
        self.ended[index] = at
        self.answers[index] = self.answers.get(index, 0) + 1

    @property
    def seconds(self) -> float:
        """When the last job arrived. From there on the device has less and less to do."""
        return max(self.feed.arrivals.values())

    @property
    def steady(self) -> list[int]:
        """Indices of the jobs that were answered until then."""
        return [index for index, at in self.ended.items() if at <= self.seconds]

    @property
    def audio_s(self) -> float:
        """Seconds of audio in those."""
        return sum(self.feed.lengths[index] for index in self.steady)

    def latencies(self, indices: Sequence[int] | None = None) -> NDArray[np.float64]:
        """Return the seconds from the arrival of each job, or of some, to its answer."""
        chosen = self.ended if indices is None else indices
        return np.array([self.ended[index] - self.feed.arrivals[index] for index in chosen])


@dataclass(frozen=True)
class Clip:
    """A window without samples."""

    index: int
    seconds: float

    def __len__(self) -> int:
        return round(self.seconds * SAMPLE_RATE)


class SimulatedDevice(Recognizer):
    """A device that decodes nothing: `decode` lets the time of a batch pass.

    Args:
        device: The device.
    """

    warm_up_times: Sequence[BatchTime] = ()
    device_name = "simulated"
    precision_name = "none"

    def __init__(self, device: Device) -> None:
        self.device = device
        self.batch_seconds = device.batch_seconds

    def stage(self, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the samples."""
        return samples

    def pad(self, batch: Sequence[object], options: Sequence[object] = ()) -> PaddedBatch:
        """Return the batch, which has nothing to pad."""
        return _SimulatedBatch(self, [len(signal) / SAMPLE_RATE for signal in batch])  # type: ignore[arg-type]

    @abstractmethod
    def decode(self, lengths: Sequence[float], meanwhile: Callable[[], None]) -> None:
        """Let the time of a batch of windows of these lengths, in seconds, pass."""


@dataclass(frozen=True)
class _SimulatedBatch:
    """A batch on a simulated device: the lengths of its windows, in seconds."""

    device: SimulatedDevice
    lengths: Sequence[float]

    def transcribe(self, meanwhile: Callable[[], None] = lambda: None) -> list[ReadHypothesis]:
        self.device.decode(self.lengths, meanwhile)
        return [lambda: _HEARD] * len(self.lengths)


class Simulation(SimulatedDevice):
    """A simulated device, the worker's scheduler in front of it, and jobs that arrive.

    All that moves the time happens on the model thread: a batch lets the jobs arrive that come while it is decoded, and
    the answer to the last job in flight goes on to the next arrival.

    Args:
        device: The device.
        feed: The jobs.
        choose: The rule that makes batches. Another one than the worker's own gets no head start: its batches are
            chosen when their turn comes, so that each is the rule's own.
        noise: What the times of the batches are multiplied with, those of the warm-up too.
        seed: Of the noise.
        most: Number of batches after which no further job arrives.
    """

    def __init__(
        self,
        device: Device,
        feed: Feed,
        *,
        choose: ChooseBatch = choose_batch,
        noise: Noise = QUIET,
        seed: int = 0,
        most: int | None = None,
    ) -> None:
        super().__init__(device)
        self.costs = CostModel()
        self.now = 0.0
        self._feed, self._noise, self._most = feed, noise, most
        self._is_ahead = choose is choose_batch
        self._draw = np.random.default_rng(seed)
        self._in_flight = 0
        self._is_done = threading.Event()
        self._outcome = Outcome(feed)
        self._scheduler = Scheduler(self._load, costs=self.costs, choose=choose, clock=lambda: self.now)
        self.warm_up_times = warm_up(self, lambda: self.now)

    def run(self) -> Outcome:
        """Run until every job is answered.

        Raises:
            RuntimeError: That takes too long.
        """
        self.now = 0.0
        self._outcome.batches.clear()  # those of the warm-up
        self._scheduler.start()
        if not self._is_done.wait(_LONGEST_RUN_S):
            raise RuntimeError(f"{self._in_flight} jobs are not answered after {_LONGEST_RUN_S:.0f} seconds")
        self._scheduler.close()
        return self._outcome

    def decode(self, lengths: Sequence[float], meanwhile: Callable[[], None]) -> None:
        """Let the time of a batch pass, and the jobs arrive that come until its end."""
        count, longest = len(lengths), max(lengths)
        self._outcome.batches.append(Batch(count, longest, float(self.costs.cost.seconds(count, longest))))
        if len(self._outcome.batches) == self._most:
            self._feed.end()
        end = self.now + self.device.seconds(count, longest) * self._noise.factor(self._draw)
        if self._is_ahead:
            meanwhile()
        if self._in_flight:
            self._arrive(end)
        self.now = end

    def _load(self) -> "Simulation":
        self._arrive(self._feed.next_at)
        return self

    def _arrive(self, until: float) -> None:
        """Submit the jobs that arrive until some time, each at its own."""
        while self._feed.next_at <= until:
            self.now = max(self.now, self._feed.next_at)
            index = self._feed.take()
            self._in_flight += 1
            result = self._scheduler.submit(Clip(index, self._feed.lengths[index]), self._feed.delays[index])
            result.add_done_callback(partial(self._answered, index))

    def _answered(self, index: int, future: "Future[WindowResult]") -> None:
        self._outcome.answer(index, future.result().ended)
        self._in_flight -= 1
        self._feed.answer(self.now)
        self._arrive(self.now)
        if not self._in_flight:
            if self._feed.next_at == float("inf"):
                self._is_done.set()
            else:
                self._arrive(self._feed.next_at)


def run_scheduler(device: Device, feed: Feed, choose: ChooseBatch = choose_batch) -> Outcome:
    """Run the worker's scheduler, with its own rule or another one."""
    return Simulation(device, feed, choose=choose).run()


def run_in_order(device: Device, feed: Feed, *, most: int, wait: float) -> Outcome:
    """Run a batcher that takes jobs in the order of their arrival, as soon as a batch is full or its first one waited.

    Args:
        device: The device.
        feed: The jobs.
        most: Number of windows in a full batch.
        wait: Seconds after its arrival for which the first job of a batch waits for more, if the device is free.
    """
    outcome, now, waiting = Outcome(feed), 0.0, deque[int]()
    while True:
        while feed.next_at <= now:
            waiting.append(feed.take())
        until = feed.arrivals[waiting[0]] + wait if waiting else float("inf")
        if len(waiting) < most and now < until:
            now = min(until, feed.next_at)
            if now == float("inf"):
                return outcome
            continue
        batch = [waiting.popleft() for _ in range(min(most, len(waiting)))]
        longest = max(feed.lengths[index] for index in batch)
        now += device.seconds(len(batch), longest)
        outcome.batches.append(Batch(len(batch), longest))
        for index in batch:
            outcome.answer(index, now)
            feed.answer(now)


def nearest_lengths(
    lengths: Sequence[float], due: Sequence[float], now: float, budget: float, cost: BatchCost, padding: float = 0.1
) -> list[int]:
    """Choose a batch without knowing what it costs: the window that is due first, and those nearest to it in length.

    They join one by one while there is at most a tenth of a second of padding for each second of audio. Arguments and
    result are those of `choose_batch`.
    """
    first = min(range(len(due)), key=due.__getitem__)
    order = sorted(range(len(lengths)), key=lengths.__getitem__)
    low = high = order.index(first)  # the batch is order[low:high + 1]
    audio = lengths[first]
    while True:
        sides = [index for index in (low - 1, high + 1) if 0 <= index < len(order)]
        sides.sort(key=lambda index: abs(lengths[order[index]] - lengths[first]))
        for index in sides:
            added = lengths[order[index]]
            padded = (high - low + 2) * max(lengths[order[high]], added)
            if padded <= min(budget, (audio + added) * (1 + padding)):
                audio, low, high = audio + added, min(low, index), max(high, index)
                break
        else:
            return order[low : high + 1]


def traffic(count: int, seed: int) -> list[float]:
    """Draw lengths of real traffic, in seconds: log-normal about a median of 8, from 1 to 35."""
    drawn = np.random.default_rng(seed).lognormal(np.log(8.0), 0.6, count)
    return [float(length) for length in np.clip(drawn, 1.0, 35.0)]


def poisson(count: int, rate: float, seed: int) -> list[float]:
    """Draw the times at which jobs arrive that know nothing of each other, in seconds: `rate` of them per second."""
    return [float(at) for at in np.random.default_rng(seed).exponential(1 / rate, count).cumsum()]
