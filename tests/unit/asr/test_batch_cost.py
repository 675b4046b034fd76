"""What a batch costs, learnt from batches."""

import math
from collections.abc import Iterator

import numpy as np
import pytest

from parakeet_worker.asr.batch_cost import UNKNOWN, BatchCost, CostModel, fit
from parakeet_worker.asr.types import BatchTime

H100 = BatchCost(0.025, 1 / 14_000, 0.0003)
CPU = BatchCost(0.004, 1 / 480, 0.0004)
WARM_UPS = [(1, 2.0), (1, 8.0), (16, 8.0)]


def batches(count: int, seed: int = 0) -> Iterator[tuple[int, float]]:
    """Yield numbers of windows, and the longest one in seconds, as in traffic."""
    random = np.random.default_rng(seed)
    for _ in range(count):
        windows = int(random.integers(1, 65))
        yield windows, float(np.clip(random.lognormal(math.log(8), 0.6, windows), 1, 35).max())


def learnt(device: BatchCost, sizes: list[tuple[int, float]], noise: float = 0.0, slow: float = 0.0) -> CostModel:
    random, model = np.random.default_rng(1), CostModel()
    for windows, longest in sizes:
        factor = math.exp(random.normal(0, noise)) * (10 if random.random() < slow else 1)
        model.observe(BatchTime(windows, longest, float(device.seconds(windows, longest)) * factor))
        model.fit()
    return model


def error(model: CostModel, device: BatchCost) -> float:
    """Return the mean relative error over other batches."""
    errors = [abs(float(model.cost.seconds(*size) / device.seconds(*size)) - 1) for size in batches(100, seed=9)]
    return sum(errors) / len(errors)


@pytest.mark.parametrize("device", [H100, CPU])
def test_the_parameters_are_found(device: BatchCost) -> None:
    found = learnt(device, [*WARM_UPS, *batches(20)]).cost
    assert found.launch == pytest.approx(device.launch, rel=0.15)
    assert found.padded == pytest.approx(device.padded, rel=0.15)
    assert found.launch / found.padded == pytest.approx(device.launch / device.padded, rel=0.2)


@pytest.mark.parametrize("device", [H100, CPU])
@pytest.mark.parametrize("slow", [0.0, 0.1])
def test_noise_and_slow_batches_hardly_matter(device: BatchCost, slow: float) -> None:
    assert error(learnt(device, [*WARM_UPS, *batches(20)], noise=0.2, slow=slow), device) < 0.15


def test_a_saturation_that_was_never_seen_is_not_feared() -> None:
    cost = learnt(H100, WARM_UPS).cost
    assert cost.free_windows(8.0) >= 16
    assert float(cost.seconds(64, 8.0)) < float(H100.seconds(64, 8.0)) * 1.1


def test_a_saturation_is_not_believed_to_be_far_beyond_what_was_seen() -> None:
    cost = learnt(H100, WARM_UPS).cost
    assert 16 * 8 < cost.launch / cost.padded < 6 * 16 * 8


def test_large_batches_are_not_forgotten_for_small_ones() -> None:
    sizes = [*WARM_UPS, *batches(50), *[(1, 3.0)] * 5_000]
    assert error(learnt(H100, sizes, noise=0.05), H100) < 0.1


def test_a_device_that_has_become_slower_is_learnt_again() -> None:
    model, slower = learnt(H100, [*WARM_UPS, *batches(200)]), BatchCost(0.05, 1 / 7_000, 0.0006)
    for windows, longest in batches(1_000, seed=5):
        model.observe(BatchTime(windows, longest, float(slower.seconds(windows, longest))))
        model.fit()
    assert error(model, slower) < 0.1


def test_before_the_first_batch_the_cost_is_that_of_the_padding() -> None:
    model = CostModel()
    model.fit()
    assert model.cost == UNKNOWN
    model.observe(BatchTime(1, 0.0, 0.1))  # nothing can be learnt from it
    model.fit()
    assert model.cost == UNKNOWN


def test_one_time_is_enough() -> None:
    cost = fit([BatchTime(1, 2.0, 0.01)])
    assert float(cost.seconds(1, 2.0)) == pytest.approx(0.01)
    assert cost.launch > 0
    assert cost.padded > 0


def test_windows_within_a_time() -> None:
    assert H100.free_windows(10.0) == 35
    longest = np.array([10.0, 35.0])
    for seconds in (0.05, 0.25):
        for windows, length in zip(H100.windows_within(seconds, longest).astype(int), longest, strict=True):
            assert float(H100.seconds(int(windows), length)) <= seconds < float(H100.seconds(int(windows) + 1, length))
    assert H100.windows_within(0.02, longest).tolist() == [0, 0]
