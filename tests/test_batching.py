"""Which windows share a batch."""

from hypothesis import given
from hypothesis import strategies as st

from parakeet_worker.model.batching import choose


def test_one_window_goes_alone_at_once():
    assert choose([500.0], 0, budget=100) == [0]


def test_like_lengths_share_a_batch():
    assert choose([2.0, 30.0, 2.1, 29.0, 1.9], 0, budget=100) == [4, 0, 2]
    assert choose([2.0, 30.0, 2.1, 29.0, 1.9], 1, budget=100) == [3, 1]


def test_the_budget_is_in_padded_seconds():
    assert len(choose([10.0] * 50, 7, budget=120)) == 12


@given(st.lists(st.floats(0.1, 40.0), min_size=1, max_size=80), st.data(), st.floats(1.0, 500.0))
def test_what_always_holds(lengths, data, budget):
    first = data.draw(st.integers(0, len(lengths) - 1))
    batch = choose(lengths, first, budget)
    chosen = [lengths[index] for index in batch]
    assert first in batch
    assert len(set(batch)) == len(batch)
    assert chosen == sorted(chosen)
    if len(batch) > 1:
        assert max(chosen) * len(chosen) <= budget
        assert max(chosen) * len(chosen) <= sum(chosen) * 1.1 + 1e-6
