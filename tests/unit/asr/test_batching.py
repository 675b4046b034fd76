"""Which windows share a batch."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from parakeet_worker.asr.batching import LINEAR_S, choose_batch, cost


def test_one_window_goes_alone_at_once() -> None:
    assert choose_batch([500.0], 0, budget=100) == [0]


def test_like_lengths_share_a_batch() -> None:
    assert choose_batch([2.0, 30.0, 2.1, 29.0, 1.9], 0, budget=100) == [4, 0, 2]
    assert choose_batch([2.0, 30.0, 2.1, 29.0, 1.9], 1, budget=100) == [3, 1]


def test_the_budget_is_in_padded_seconds() -> None:
    assert len(choose_batch([10.0] * 50, 7, budget=120)) == 12


def test_a_long_window_takes_more_of_the_budget() -> None:
    assert cost(LINEAR_S) == LINEAR_S
    assert cost(2 * LINEAR_S) == 4 * LINEAR_S
    assert len(choose_batch([LINEAR_S] * 9, 0, budget=4 * LINEAR_S)) == 4
    assert len(choose_batch([2 * LINEAR_S] * 9, 0, budget=10 * LINEAR_S)) == 2


@given(st.lists(st.floats(0.1, 40.0), min_size=1, max_size=80), st.data(), st.floats(1.0, 500.0))
def test_what_always_holds(lengths: Any, data: Any, budget: Any) -> None:
    first = data.draw(st.integers(0, len(lengths) - 1))
    batch = choose_batch(lengths, first, budget)
    chosen = [lengths[index] for index in batch]
    assert first in batch
    assert len(set(batch)) == len(batch)
    assert chosen == sorted(chosen)
    if len(batch) > 1:
        assert max(chosen) * len(chosen) <= budget
        assert max(chosen) * len(chosen) <= sum(chosen) * 1.1 + 1e-6
