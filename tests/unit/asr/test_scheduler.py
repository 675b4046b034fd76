"""The engine: batches, fairness, cancellation, and every fault ending in an answer."""

import asyncio
import threading
import time
import weakref
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import pytest

from parakeet_worker.asr.batch_cost import BatchCost, CostModel
from parakeet_worker.asr.scheduler import Scheduler
from parakeet_worker.asr.types import BatchTime, DeviceFailedError, Hypothesis, PaddedBatch
from parakeet_worker.cancellation import CancellationToken, JobCancelledError
from parakeet_worker.errors import Code, JobError
from recognizers import FakeBatch, FakeRecognizer, transcribe


class Script(FakeRecognizer):
    """A recognizer that says how many samples each window has, keeps the batches, and fails as a test tells it to."""

    def __init__(self, fail: Any = lambda batch: None) -> None:
        self.fail = fail
        self.batches: list[list[float]] = []
        self.gate = threading.Event()
        self.gate.set()
        self.began = threading.Event()

    def hear(self, batch: Any) -> list[Hypothesis]:
        self.began.set()
        self.gate.wait(10)
        self.batches.append([len(signal) / 16_000 for signal in batch])
        self.fail(batch)
        return [Hypothesis(str(len(signal)), ()) for signal in batch]


class Known(CostModel):
    """A cost that is not learnt."""

    def __init__(self, cost: BatchCost) -> None:
        super().__init__()
        self.cost = cost

    def fit(self) -> None:
        pass


LAUNCHES = BatchCost(launch=0.02, padded=1e-5, longest=0.0)  # of a GPU that small batches do not fill
SATURATED = BatchCost(launch=0.0, padded=0.001, longest=0.0005)  # of a CPU


def seconds(length: float) -> np.ndarray:
    return np.zeros(int(length * 16_000), np.float32)


async def busy(engine: Scheduler, recognizer: Script) -> asyncio.Task[Any]:
    """Start a job that holds the model until `recognizer.gate` is set."""
    recognizer.gate.clear()
    recognizer.began.clear()
    task = asyncio.create_task(transcribe(engine, [seconds(0.5)]))
    await asyncio.to_thread(recognizer.began.wait, 10)
    return task


async def together(
    engine: Scheduler, recognizer: Script, lengths: Sequence[float], *, return_exceptions: bool = False
) -> list[Any]:
    """Queue jobs of these lengths, in seconds, while the model is held. Return what each gets, the holder first."""
    first = await busy(engine, recognizer)
    jobs = [asyncio.create_task(transcribe(engine, [seconds(length)])) for length in lengths]
    await asyncio.sleep(0.05)
    recognizer.batches.clear()
    recognizer.gate.set()
    return await asyncio.gather(first, *jobs, return_exceptions=return_exceptions)


def test_a_job_alone_starts_at_once() -> None:
    recognizer = Script()
    engine = Scheduler(lambda: recognizer)

    async def one() -> float:
        await transcribe(engine, [seconds(1)])
        started = time.perf_counter()
        await transcribe(engine, [seconds(1)])
        return time.perf_counter() - started

    assert min(asyncio.run(one()) for _ in range(5)) < 0.01


def test_jobs_that_wait_share_batches_of_like_length() -> None:
    recognizer = Script()
    engine = Scheduler(lambda: recognizer, costs=Known(SATURATED))

    async def many() -> Any:
        first = await busy(engine, recognizer)
        jobs = [asyncio.create_task(transcribe(engine, [seconds(length)])) for length in [3, 20, 3.1, 20.5, 2.9, 19.8]]
        await asyncio.sleep(0.05)
        assert engine.waiting == 6
        recognizer.gate.set()
        return [(await job)[0].text for job in [first, *jobs]]

    assert asyncio.run(many()) == [str(int(n * 16_000)) for n in [0.5, 3, 20, 3.1, 20.5, 2.9, 19.8]]
    assert recognizer.batches == [[0.5], [2.9, 3, 3.1], [19.8, 20, 20.5]]
    assert engine.stats.windows == 7
    assert engine.waiting == 0
    assert engine.stats.padded_s / engine.stats.audio_s < 1.1


def test_a_short_clip_is_not_stuck_behind_an_hour_of_audio() -> None:
    recognizer = Script()
    engine = Scheduler(lambda: recognizer)

    async def race() -> None:
        first = await busy(engine, recognizer)
        hour = asyncio.create_task(transcribe(engine, [seconds(30)] * 120))
        await asyncio.sleep(0.05)
        clip = asyncio.create_task(transcribe(engine, [seconds(1)]))
        await asyncio.sleep(0.05)
        recognizer.gate.set()
        await asyncio.gather(first, hour, clip)

    asyncio.run(race())
    assert sum(map(len, recognizer.batches)) == 122
    assert any(1 in batch for batch in recognizer.batches[:4])


def test_an_hour_of_audio_is_not_stuck_behind_clips() -> None:
    recognizer = Script()
    engine = Scheduler(lambda: recognizer)

    async def flood() -> None:
        stop = False

        async def clips() -> None:
            while not stop:
                await transcribe(engine, [seconds(1)])

        flooding = [asyncio.create_task(clips()) for _ in range(8)]
        await asyncio.wait_for(transcribe(engine, [seconds(30)] * 12), 10)
        stop = True
        await asyncio.gather(*flooding)

    asyncio.run(flood())


def test_no_more_is_queued_than_the_next_batches_take() -> None:
    recognizer = Script()
    engine = Scheduler(lambda: recognizer)
    cancellation = CancellationToken()

    async def fill() -> None:
        first = await busy(engine, recognizer)
        engine.wait_for_room(cancellation)  # there is room while 480 seconds wait or less
        clips = [engine.submit(seconds(30)) for _ in range(17)]  # they do not count
        engine.wait_for_room(cancellation)
        answers = clips + [engine.submit(seconds(30), 0.25) for _ in range(17)]
        waiting = asyncio.create_task(asyncio.to_thread(engine.wait_for_room, cancellation))
        await asyncio.sleep(0.05)
        assert not waiting.done()
        recognizer.gate.set()
        await asyncio.wait_for(waiting, 5)
        await asyncio.gather(first, *map(asyncio.wrap_future, answers))

    asyncio.run(fill())


def test_a_job_that_waits_for_room_can_be_cancelled() -> None:
    recognizer = Script()
    engine = Scheduler(lambda: recognizer)
    cancellation = CancellationToken()

    async def fill() -> None:
        first = await busy(engine, recognizer)
        answers = [engine.submit(seconds(500), 0.25)]
        waiting = asyncio.create_task(asyncio.to_thread(engine.wait_for_room, cancellation))
        await asyncio.sleep(0.05)
        cancellation.cancel()
        with pytest.raises(JobCancelledError):
            await asyncio.wait_for(waiting, 5)
        engine.cancel(answers)
        recognizer.gate.set()
        await first

    asyncio.run(fill())
    assert recognizer.batches == [[0.5]]


def test_a_cancelled_job_leaves_the_queue_at_once() -> None:
    recognizer = Script()
    engine = Scheduler(lambda: recognizer)

    async def cancel() -> None:
        first = await busy(engine, recognizer)
        gone = asyncio.create_task(transcribe(engine, [seconds(2)] * 3))
        stays = asyncio.create_task(transcribe(engine, [seconds(3)]))
        await asyncio.sleep(0.05)
        gone.cancel()
        with pytest.raises(asyncio.CancelledError):
            await gone
        assert engine.waiting == 1
        recognizer.gate.set()
        await asyncio.gather(first, stays)

    asyncio.run(cancel())
    assert recognizer.batches == [[0.5], [3]]


def test_a_job_cancelled_on_the_model_harms_no_other() -> None:
    recognizer = Script()
    engine = Scheduler(lambda: recognizer)

    async def cancel() -> Any:
        first = await busy(engine, recognizer)
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        recognizer.gate.set()
        return await transcribe(engine, [seconds(1)])

    assert asyncio.run(cancel())[0].text == "16000"


@pytest.mark.parametrize(
    "error",
    [MemoryError(), RuntimeError("[enforce fail at alloc_cpu.cpp:1] DefaultCPUAllocator: not enough memory")],
)
def test_out_of_memory_halves_the_batch_and_loses_no_job(error: Any) -> None:
    def too_much(batch: Any) -> None:
        if sum(len(signal) for signal in batch) > 40 * 16_000:
            raise error

    recognizer = Script(too_much)
    engine = Scheduler(lambda: recognizer, costs=Known(LAUNCHES))

    jobs = together(engine, recognizer, [10] * 9 + [50], return_exceptions=True)
    *results, too_long = asyncio.run(jobs)
    assert [result[0].text for result in results] == ["8000"] + ["160000"] * 9
    assert isinstance(too_long, JobError)
    assert too_long.code is Code.OUT_OF_MEMORY
    # The next batches are as large as what fitted.
    recognizer.batches.clear()
    asyncio.run(transcribe(engine, [seconds(10)] * 9))
    assert max(map(len, recognizer.batches)) <= 4


def test_batches_grow_back_after_another_has_freed_its_memory() -> None:
    is_full = True

    def too_much(batch: Any) -> None:
        if is_full and len(batch) > 1:
            raise MemoryError

    recognizer = Script(too_much)
    engine = Scheduler(lambda: recognizer, costs=Known(LAUNCHES))

    asyncio.run(together(engine, recognizer, [10] * 10))
    is_full = False
    asyncio.run(together(engine, recognizer, [10] * 10))
    assert max(map(len, recognizer.batches)) == 3  # the least that a batch may hold is 30 s
    for _ in range(30):
        asyncio.run(together(engine, recognizer, [10] * 30))
    assert max(map(len, recognizer.batches)) == 10


def test_a_batch_is_free_before_its_halves_are_decoded() -> None:
    class Tensor:
        """What a forward pass has allocated."""

    allocated: list[weakref.ref[Tensor]] = []
    alive: list[int] = []

    def fail(batch: Any) -> None:
        alive.append(sum(reference() is not None for reference in allocated))
        tensor = Tensor()
        allocated.append(weakref.ref(tensor))
        if len(batch) > 1:
            raise MemoryError

    recognizer = Script(fail)
    engine = Scheduler(lambda: recognizer, costs=Known(LAUNCHES))

    asyncio.run(together(engine, recognizer, [10] * 4))
    assert alive == [0] * 8


def test_half_a_batch_of_long_windows_is_half_its_memory() -> None:
    def too_much(batch: Any) -> None:
        if len(batch) > 2:
            raise MemoryError

    recognizer = Script(too_much)
    recognizer.batch_seconds = 10_000.0
    engine = Scheduler(lambda: recognizer, costs=Known(LAUNCHES))

    asyncio.run(together(engine, recognizer, [400] * 4))
    assert [len(batch) for batch in recognizer.batches] == [1, 4, 2, 2]
    asyncio.run(together(engine, recognizer, [400] * 4))
    assert [len(batch) for batch in recognizer.batches] == [1, 2, 2]


def test_a_window_that_cannot_be_decoded_fails_alone() -> None:
    def poisoned(batch: Any) -> None:
        if any(len(signal) == 3 * 16_000 for signal in batch):
            raise ValueError("poison")

    recognizer = Script(poisoned)
    engine = Scheduler(lambda: recognizer, costs=Known(LAUNCHES))

    results = asyncio.run(together(engine, recognizer, [2.9, 3, 3.1, 2.95], return_exceptions=True))
    assert [type(result) for result in results] == [list, list, ValueError, list, list]


@pytest.mark.parametrize("error", [DeviceFailedError("illegal memory access"), SystemExit(3), KeyboardInterrupt()])
def test_a_failed_device_answers_every_job(error: Any) -> None:
    def fail(batch: Any) -> None:
        raise error

    recognizer = Script(fail)
    engine = Scheduler(lambda: recognizer, costs=Known(LAUNCHES))

    async def many() -> Any:
        first = await busy(engine, recognizer)
        jobs = [asyncio.create_task(transcribe(engine, [seconds(n)])) for n in (1, 5, 9)]
        await asyncio.sleep(0.05)
        recognizer.gate.set()
        now = await asyncio.gather(first, *jobs, return_exceptions=True)
        later = await asyncio.gather(transcribe(engine, [seconds(1)]), return_exceptions=True)
        return now + later  # type: ignore[operator]

    results = asyncio.run(many())
    assert [result.code for result in results] == [Code.DEVICE_FAILED] * 5
    assert len(recognizer.batches) == 1


def test_a_model_that_fails_to_load_is_tried_again() -> None:
    attempts = []

    def load() -> Any:
        attempts.append(1)
        if len(attempts) == 1:
            raise OSError("no such file")
        return Script()

    engine = Scheduler(load)
    with pytest.raises(JobError) as raised:
        asyncio.run(transcribe(engine, [seconds(1)]))
    assert raised.value.code is Code.MODEL_UNAVAILABLE
    assert asyncio.run(transcribe(engine, [seconds(1)]))[0].text == "16000"


class Overlapping(Script):
    """A recognizer whose device works beside the model thread: the next batch is prepared meanwhile."""

    def __init__(self) -> None:
        super().__init__()
        self.padded: list[list[float]] = []
        self.arrivals: Any = lambda: None

    def pad(self, batch: Any, options: Any = ()) -> PaddedBatch:
        self.padded.append([len(signal) / 16_000 for signal in batch])
        padded = FakeBatch(self, batch)
        recognizer = self

        class Batch:
            def transcribe(self, meanwhile: Any = lambda: None) -> Any:
                hypotheses = padded.transcribe()
                meanwhile()
                recognizer.arrivals()
                return hypotheses

        return Batch()


def test_the_next_batch_is_padded_while_the_device_works() -> None:
    recognizer = Overlapping()
    engine = Scheduler(lambda: recognizer, costs=Known(SATURATED))

    results = asyncio.run(together(engine, recognizer, [3, 20, 3.1]))
    assert [result[0].text for result in results] == ["8000", "48000", "320000", "49600"]
    assert recognizer.batches == [[0.5], [3, 3.1], [20]]
    assert len(recognizer.padded) == 3  # each batch once


def test_a_prepared_batch_is_chosen_anew_if_a_better_one_has_come() -> None:
    recognizer = Overlapping()
    engine = Scheduler(lambda: recognizer, costs=Known(LAUNCHES))
    late: list[Any] = []

    def arrive() -> None:
        if not late:
            late.extend(engine.submit(seconds(5)) for _ in range(3))

    async def run() -> None:
        first = await busy(engine, recognizer)
        recognizer.arrivals = arrive
        job = asyncio.create_task(transcribe(engine, [seconds(4)]))
        await asyncio.sleep(0.05)
        recognizer.gate.set()
        await asyncio.gather(first, job, *map(asyncio.wrap_future, late))

    asyncio.run(run())
    assert [4] in recognizer.padded
    assert sorted(map(sorted, recognizer.batches)) == [[0.5], [4, 5, 5, 5]]


def test_a_prepared_batch_without_a_cancelled_window_is_padded_anew() -> None:
    recognizer = Overlapping()
    engine = Scheduler(lambda: recognizer, costs=Known(LAUNCHES))

    async def run() -> Any:
        first = await busy(engine, recognizer)
        results = [engine.submit(seconds(length)) for length in (4, 5, 6)]
        recognizer.arrivals = lambda: engine.cancel(results[1:2])
        recognizer.gate.set()
        await first
        return [(await asyncio.wrap_future(results[index])).hypothesis.text for index in (0, 2)]

    assert asyncio.run(run()) == ["64000", "96000"]
    assert sorted(map(sorted, recognizer.batches)) == [[0.5], [4, 6]]
    assert engine.waiting == 0


def test_a_batch_that_cannot_be_prepared_fails_no_other() -> None:
    class Full(Overlapping):
        def pad(self, batch: Any, options: Any = ()) -> PaddedBatch:
            if len(self.padded) == 1 and len(batch) > 1:
                self.padded.append([])
                raise MemoryError
            return super().pad(batch)

    recognizer = Full()
    engine = Scheduler(lambda: recognizer, costs=Known(LAUNCHES))
    results = asyncio.run(together(engine, recognizer, [3, 4, 5]))
    assert [result[0].text for result in results] == ["8000", "48000", "64000", "80000"]
    assert recognizer.padded[1] == []
    assert list(map(len, recognizer.batches)) == [1, 3]


def test_words_are_made_where_they_are_read() -> None:
    read_on: list[str] = []

    class Reads(Script):
        def pad(self, batch: Any, options: Any = ()) -> PaddedBatch:
            padded = FakeBatch(self, batch)

            def read(hypothesis: Any) -> Any:
                read_on.append(threading.current_thread().name)
                if hypothesis().text == "32000":
                    raise ValueError("no words")
                return hypothesis()

            class Batch:
                def transcribe(self, meanwhile: Any = lambda: None) -> Any:
                    return [partial(read, hypothesis) for hypothesis in padded.transcribe()]

            return Batch()

    engine = Scheduler(Reads)
    good, bad = (engine.submit(seconds(length)).result(10) for length in (1, 2))
    assert good.hypothesis is good.hypothesis
    with pytest.raises(ValueError, match="no words"):
        assert bad.hypothesis
    assert set(read_on) == {threading.current_thread().name}


def test_the_cost_is_learnt_from_the_warm_up_and_from_each_batch() -> None:
    recognizer, costs = Script(), CostModel()
    recognizer.warm_up_times = [BatchTime(1, 2.0, 0.03), BatchTime(1, 8.0, 0.031), BatchTime(16, 8.0, 0.032)]
    engine = Scheduler(lambda: recognizer, costs=costs)
    asyncio.run(transcribe(engine, [seconds(1)]))
    assert costs.cost.free_windows(8.0) >= 16

    recognizer.fail = lambda _: time.sleep(0.02)
    for _ in range(20):
        asyncio.run(transcribe(engine, [seconds(1)]))
    assert float(costs.cost.seconds(1, 1.0)) == pytest.approx(0.02, rel=0.3)


def test_the_time_in_which_the_device_waits_is_counted() -> None:
    class Slow(Script):
        def pad(self, batch: Any, options: Any = ()) -> PaddedBatch:
            time.sleep(0.05)
            return super().pad(batch)

    engine = Scheduler(Slow)
    asyncio.run(transcribe(engine, [seconds(1)] * 2))
    assert 0.05 < engine.stats.host_s < 1
    assert engine.stats.host_s + engine.stats.busy_s < 1


def test_the_rest_of_a_long_recording_holds_up_no_clip() -> None:
    recognizer = Script()
    engine = Scheduler(lambda: recognizer, costs=Known(SATURATED))

    async def race() -> None:
        first = await busy(engine, recognizer)
        hour = [engine.submit(seconds(10), index * 100.0) for index in range(5)]
        clips = [asyncio.create_task(transcribe(engine, [seconds(10)])) for _ in range(3)]
        await asyncio.sleep(0.05)
        recognizer.gate.set()
        await asyncio.gather(first, *clips, *map(asyncio.wrap_future, hour))

    asyncio.run(race())
    assert recognizer.batches[1] == [10] * 4  # the clips and the window that is due


def test_a_choice_that_fails_takes_the_first_window_alone() -> None:
    def fail(*_: Any) -> Any:
        raise MemoryError

    class Unfit(CostModel):
        fit = fail

    recognizer = Script()
    engine = Scheduler(lambda: recognizer, costs=Unfit(), choose=fail)
    results = asyncio.run(together(engine, recognizer, [3, 4]))
    assert [result[0].text for result in results] == ["8000", "48000", "64000"]
    assert recognizer.batches == [[0.5], [3], [4]]
