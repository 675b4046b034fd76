"""`make bench-batching` in small: the worker's scheduler on simulated time."""

from dataclasses import asdict
from pathlib import Path
from xml.etree import ElementTree

import pytest

import batching
from batching import BATCHERS, NEAREST, TIMED, WORKER, Served, serve
from simulated import DEVICES, Device, Feed, Noise, Simulation, poisson, run_in_order, run_scheduler, traffic

H100 = DEVICES[0]


def closed(batcher: str, in_flight: int = 8) -> Served:
    return serve(BATCHERS[batcher], H100, [Feed(traffic(400, seed=0), in_flight=in_flight)])


def test_the_scheduler_fills_what_launches_cost_anyway() -> None:
    worker, nearest, timed = closed(WORKER), closed(NEAREST), closed(TIMED)
    assert worker.rtfx >= 2 * nearest.rtfx
    assert worker.p95_ms < min(nearest.p95_ms, timed.p95_ms)
    assert worker.batch == pytest.approx(8, abs=0.5)


@pytest.mark.parametrize("batcher", BATCHERS)
def test_equal_traffic_gives_equal_results_and_every_job_one(batcher: str) -> None:
    def feeds() -> list[Feed]:
        return [Feed(traffic(300, 1), in_flight=64), Feed(traffic(300, 2), poisson(300, 400.0, 3))]

    for first, second in zip(feeds(), feeds(), strict=True):
        outcome, again = (BATCHERS[batcher](H100, feed) for feed in (first, second))
        assert outcome.answers == dict.fromkeys(range(300), 1)
        assert outcome.ended == again.ended
        assert outcome.batches == again.batches
        assert min(outcome.latencies()) >= H100.launch
        assert sum(batch.windows for batch in outcome.batches) == 300


def test_a_batch_in_order_waits_until_it_is_full_or_its_first_job_has_waited() -> None:
    device = Device("", launch=0.1, rate=1e9, step=0.0)
    arrivals = [0.0, 0.004, 0.02, 0.12, 0.125, 0.13, 0.5]
    outcome = run_in_order(device, Feed([1.0] * 7, arrivals), most=3, wait=0.01)
    assert [batch.windows for batch in outcome.batches] == [2, 1, 3, 1]
    assert [round(at, 3) for at in outcome.ended.values()] == [0.11, 0.11, 0.21, 0.31, 0.31, 0.31, 0.61]


def test_noise_makes_batches_slower_and_is_of_its_seed() -> None:
    def ended(noise: Noise, seed: int) -> float:
        feed = Feed(traffic(200, 0), in_flight=8)
        return max(Simulation(H100, feed, noise=noise, seed=seed).run().ended.values())

    slow = Noise(spread=0.2, slow_share=0.2)
    assert ended(slow, 1) == ended(slow, 1) != ended(slow, 2)
    assert ended(slow, 1) > 1.5 * max(run_scheduler(H100, Feed(traffic(200, 0), in_flight=8)).ended.values())


def test_the_whole_program_in_small(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(batching, "DEVICES", DEVICES[:1])
    monkeypatch.setattr(batching, "SLEEPING", DEVICES[:1])
    monkeypatch.setattr(batching, "bars", lambda result: [])
    result = batching.measure(jobs=130, seeds=1, models=1, seconds=0.3)
    batching.report(result, tmp_path)
    assert [load["load"] for load in result["devices"][0]["loads"]][:4] == [f"{n} in flight" for n in (1, 8, 64, 128)]
    assert all(cell["mean"] < 0.5 for cell in result["cost_errors"])
    assert 0 < result["host"][0]["ratio"] < 1.5
    assert capsys.readouterr().out == (tmp_path / "batching.txt").read_text() + "\n"
    assert len(list(ElementTree.parse(tmp_path / "batching.svg").iter("{http://www.w3.org/2000/svg}polyline"))) == 12


def test_bars_say_what_is_missed() -> None:
    served = asdict(Served(1.0, 1.0, 1.0, 1.0, 1.0, True))
    loads = [
        {
            "load": f"{level} in flight",
            "in_flight": level,
            "batchers": {WORKER: served},
            "rtfx_to_nearest": 2.5,
            "p95_to_nearest": 1.0 if level == 8 else 0.5,
            "p95_to_timed": 1.02 if level == 8 else 0.5,
        }
        for level in (8, 64)
    ]
    found = batching.bars(
        {
            "devices": [{"name": device.name, "loads": loads} for device in DEVICES],
            "cost_errors": [
                {"device": "a", "in_flight": 8, "noise": noise, "mean": 0.1, "worst": 0.2} for noise in batching.NOISES
            ],
            "hour": [{"device": "a", "after": "traffic", "ratio": 1.4}],
            "choosing": [{"median_ms": 0.5, "worst_ms": 2.0}],
        }
    )
    met = [True, False, True, True, True, False, True, False, True, False, False, True]
    assert [bar["met"] for bar in found] == met
