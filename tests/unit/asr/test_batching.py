"""Which windows share a batch."""

import time
from statistics import median
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from parakeet_worker.asr.batch_cost import UNKNOWN, BatchCost
from parakeet_worker.asr.batching import LINEAR_S, LONGEST_BATCH_S, audio_rate, choose_batch, memory_seconds

# What launches cost on a GPU; 140 padded seconds are free. A CPU, on which nothing is free.
GPU = BatchCost(launch=0.025, padded=0.025 / 140, longest=0.0003)
CPU = BatchCost(launch=0.0, padded=0.0001, longest=0.00002)


def choose(lengths: list[float], first: int = 0, budget: float = 10_000, cost: BatchCost = CPU) -> list[int]:
    """Choose a batch of windows that are all due, in ascending order of their indices."""
    due = [float(index != first) for index in range(len(lengths))]
    return sorted(choose_batch(lengths, due, 2.0, budget, cost))


def test_one_window_goes_alone_at_once() -> None:
    assert choose([500.0], budget=100) == [0]


def test_like_lengths_share_a_batch() -> None:
    assert choose([2.0, 30.0, 2.1, 29.0, 1.9], 0) == [0, 2, 4]
    assert choose([2.0, 30.0, 2.1, 29.0, 1.9], 1) == [1, 3]


def test_any_lengths_share_a_batch_that_costs_no_more_than_its_launches() -> None:
    assert choose([2.0, 20.0, 2.1, 10.0, 1.9], 0, cost=GPU) == [0, 1, 2, 3, 4]


def test_a_saturated_device_is_given_no_padding() -> None:
    assert choose([2.0] * 60 + [30.0] * 5, 0, cost=GPU) == list(range(60))


def test_before_anything_is_measured_only_like_lengths_share_a_batch() -> None:
    assert choose([2.0, 30.0, 2.0, 29.0, 2.0], 0, cost=UNKNOWN) == [0, 2, 4]


def test_the_budget_is_in_padded_seconds() -> None:
    assert len(choose([10.0] * 50, 7, budget=120)) == 12
    assert len(choose([10.0] * 50, 7, budget=120, cost=GPU)) == 12


def test_a_batch_takes_no_longer_than_pays() -> None:
    slow = BatchCost(launch=0.0, padded=0.002, longest=0.0)
    assert len(choose([10.0] * 50, cost=slow)) == 10
    assert float(slow.seconds(10, 10.0)) <= LONGEST_BATCH_S < float(slow.seconds(11, 10.0))
    assert choose([200.0, 200.0], cost=slow) == [0]  # alone it is decoded, however long that takes


def test_windows_that_cost_nothing_join_also_where_one_takes_long() -> None:
    for slow in (BatchCost(0.025, 1 / 14_000, 0.01), BatchCost(0.25, 1 / 14_000, 0.0003)):
        assert len(choose([30.0] * 64, cost=slow)) == 64


def test_a_long_window_takes_more_of_the_budget() -> None:
    fast = BatchCost(launch=0.01, padded=1e-9, longest=0.0)
    assert memory_seconds(LINEAR_S) == LINEAR_S
    assert memory_seconds(2 * LINEAR_S) == 4 * LINEAR_S
    assert len(choose([LINEAR_S] * 9, 0, 4 * LINEAR_S, fast)) == 4
    assert len(choose([2 * LINEAR_S] * 9, 0, 10 * LINEAR_S, fast)) == 2


def test_a_window_that_is_not_due_joins_where_it_costs_nothing() -> None:
    lengths, due = [10.0, 5.0, 9.0, 11.0, 8.0], [0.0, 0.5, 3.0, 2.0, 2.5]
    # The device has room for 14 windows of 10 seconds; the one of 11 s would make the batch longer.
    assert sorted(choose_batch(lengths, due, 1.0, 1_000, GPU)) == [0, 1, 2, 4]
    assert sorted(choose_batch(lengths, due, 1.0, 30, GPU)) == [0, 1, 4]  # the earlier one of the two
    assert sorted(choose_batch([10.0, 10.0], [0.0, 2.0], 1.0, 1_000, CPU)) == [0]
    assert sorted(choose_batch([10.0, 10.0], [0.0, 2.0], 2.0, 1_000, CPU)) == [0, 1]


def test_where_none_is_due_the_first_one_is_decoded() -> None:
    assert choose_batch([10.0, 10.0], [5.0, 4.0], 0.0, 1_000, CPU) == [1]


@pytest.mark.parametrize("first", [0, 255, 511])
def test_choosing_takes_under_a_millisecond(first: int) -> None:
    lengths = sorted(np.random.default_rng(0).uniform(1, 35, 512).tolist())
    seconds = []
    for _ in range(20):
        started = time.thread_time()
        choose(lengths, first, cost=GPU)
        seconds.append(time.thread_time() - started)
    assert median(seconds) < 0.002  # 0.4 ms where no other test runs


COSTS = st.builds(BatchCost, st.floats(0, 0.05), st.floats(1e-6, 0.01), st.floats(0, 0.001))


@given(st.lists(st.floats(0.1, 600.0), min_size=1, max_size=30), st.data(), st.floats(1.0, 2_000.0), COSTS)
def test_what_always_holds(lengths: Any, data: Any, budget: Any, cost: Any) -> None:
    first = data.draw(st.integers(0, len(lengths) - 1))
    batch = choose(lengths, first, budget, cost)
    assert first in batch
    assert len(set(batch)) == len(batch)

    def is_allowed(run: list[float]) -> bool:
        longest = max(run)
        limit = max(LONGEST_BATCH_S, 2 * (cost.launch + cost.longest * longest))
        fits = len(run) * memory_seconds(longest) <= budget
        return len(run) == 1 or (fits and float(cost.seconds(len(run), longest)) <= limit * (1 + 1e-9))

    chosen = [lengths[index] for index in batch]
    assert is_allowed(chosen)
    order = sorted(lengths)
    runs = [order[low:high] for low in range(len(order)) for high in range(low + 1, len(order) + 1)]
    best = max(audio_rate(run, cost) for run in runs if lengths[first] in run and is_allowed(run))
    assert audio_rate(chosen, cost) >= best * (1 - 1e-6)
