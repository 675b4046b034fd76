import pytest

from cost import Cost, covered, measure_cost
from outcomes import outcome
from results import Execution


def test_each_moment_is_counted_once() -> None:
    assert covered([]) == 0
    assert covered([(5, 6), (0, 2), (1, 3), (1.5, 2.5)]) == 4


def test_requests_that_a_worker_has_at_the_same_time_cost_it_once() -> None:
    outcomes = [
        outcome("a", sent=100, seconds=4, duration=1800, executions=(Execution("x", 101, 103),)),
        outcome("b", sent=100, seconds=4, duration=1800, executions=(Execution("x", 102, 104),)),
        outcome("c", sent=200, seconds=2, duration=3600, executions=(Execution("y", 201, 202),)),
    ]
    cost = measure_cost(outcomes, price_per_hour=36)
    assert (cost.audio_seconds, cost.worker_seconds, cost.workers, cost.wall_seconds) == (7200, 4, 2, 6)
    assert (cost.rtfx, cost.wall_rtfx) == (1800, 1200)
    assert cost.dollars == pytest.approx(0.04)
    assert cost.dollars_per_1000_hours == pytest.approx(20)


def test_what_failed_costs_and_gives_no_audio() -> None:
    attempts = (Execution("w", 10, 11), Execution("w", 20, 22))
    cost = measure_cost([outcome("a", None, None, executions=attempts), outcome("b", executions=())])  # type: ignore[arg-type]
    assert cost.worker_seconds is None
    cost = measure_cost([outcome("a", hypothesis=None, executions=attempts), outcome("b")])
    assert (cost.audio_seconds, cost.worker_seconds) == (10, 4)
    # One that was refused on the way has cost no worker anything.
    cost = measure_cost([outcome("a", hypothesis=None, executions=()), outcome("b")])
    assert (cost.audio_seconds, cost.worker_seconds) == (10, 1)


def test_without_a_figure_there_is_none() -> None:
    nothing = measure_cost([], price_per_hour=1)
    assert nothing == Cost(0, None, 0, 0, 1)
    assert (nothing.rtfx, nothing.wall_rtfx, nothing.dollars, nothing.dollars_per_1000_hours) == (None,) * 4
    assert measure_cost([outcome()]).dollars is None
    assert measure_cost([outcome(executions=(Execution("", 0, 1),))]).workers is None
