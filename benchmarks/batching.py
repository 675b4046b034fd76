"""The worker's scheduler beside other ways to make batches, on simulated devices; see `simulated.py`.

    make bench-batching
    python benchmarks/batching.py --jobs 500 --seeds 1 --models 2      # in seconds, with noise

Prints tables, and writes them with the numbers behind them (JSON) and a chart (SVG) to `benchmarks/results/`. All but
the times on the host are the same on any machine.
"""

import argparse
import json
import queue
import statistics
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import chart
from parakeet_worker.asr.batching import choose_batch
from parakeet_worker.asr.scheduler import WINDOW_INTERVAL_S, Scheduler
from parakeet_worker.model.self_check import warm_up
from simulated import (
    DEVICES,
    Clip,
    Device,
    Feed,
    Noise,
    Outcome,
    SimulatedDevice,
    Simulation,
    nearest_lengths,
    poisson,
    run_in_order,
    run_scheduler,
    traffic,
)

HERE = Path(__file__).parent

WORKER, NEAREST, ALONE, TIMED = "the worker", "10% padding", "one by one", "32 or 10 ms"

BATCHERS: dict[str, Callable[[Device, Feed], Outcome]] = {
    WORKER: run_scheduler,
    NEAREST: partial(run_scheduler, choose=nearest_lengths),
    ALONE: partial(run_in_order, most=1, wait=0.0),
    TIMED: partial(run_in_order, most=32, wait=0.010),
}

IN_FLIGHT = (1, 8, 64, 128)
SHARES = (0.3, 0.6, 0.9)  # of what the worker does with most jobs in flight

# With this part of the audio or less that arrives, a batcher does not keep up.
_KEEPS_UP = 0.97

# Batches after which the cost should be known, and those on which it is then tried.
LEARNT, TRIED = 20, 100
NOISES = {
    "20% noise": Noise(spread=0.2),
    "20% noise, 5% of batches 10x slower": Noise(spread=0.2, slow_share=0.05),
}
LEARNT_AT = (8, 64)

HOUR = [33.0] * 120
CLIPS = 64
LEARNING = 500  # jobs before them

WAITING = 512
SLEEPING = DEVICES[:2]

# A ratio of latencies is no worse if it is 1.00.
_EQUAL = 1.005


@dataclass(frozen=True)
class Served:
    """How a batcher served a load.

    Attributes:
        rtfx: Seconds of audio per second.
        jobs_s: Jobs per second.
        batch: Mean number of windows in a batch.
        p50_ms: Median time from a job's arrival to its answer, in ms.
        p95_ms: What 95 percent of jobs take at most, in ms.
        keeps_up: Whether the jobs are answered as fast as they arrive.
    """

    rtfx: float
    jobs_s: float
    batch: float
    p50_ms: float
    p95_ms: float
    keeps_up: bool


def serve(batcher: Callable[[Device, Feed], Outcome], device: Device, feeds: Sequence[Feed]) -> Served:
    """Run a batcher on several feeds, and pool what comes of them.

    Raises:
        RuntimeError: A job was not answered, or more than once.
    """
    outcomes = [batcher(device, feed) for feed in feeds]
    for outcome in outcomes:
        if [outcome.answers.get(index) for index in range(len(outcome.feed.lengths))] != [1] * len(outcome.ended):
            raise RuntimeError("not every job was answered once")
    seconds = sum(outcome.seconds for outcome in outcomes)
    rtfx = sum(outcome.audio_s for outcome in outcomes) / seconds
    arrived = sum(sum(feed.lengths) for feed in feeds) / seconds
    latencies = np.concatenate([outcome.latencies() for outcome in outcomes]) * 1e3
    return Served(
        rtfx=rtfx,
        jobs_s=sum(len(outcome.steady) for outcome in outcomes) / seconds,
        batch=sum(len(outcome.ended) for outcome in outcomes) / sum(len(outcome.batches) for outcome in outcomes),
        p50_ms=float(np.percentile(latencies, 50)),
        p95_ms=float(np.percentile(latencies, 95)),
        keeps_up=rtfx > _KEEPS_UP * arrived,
    )


def measure_loads(device: Device, jobs: int, seeds: int) -> dict[str, Any]:
    """Run all batchers on all loads of a device, on equal jobs."""

    def compare(name: str, in_flight: int | None, rate: float | None) -> dict[str, Any]:
        def feed(seed: int) -> Feed:
            if in_flight:
                return Feed(traffic(jobs, seed), in_flight=in_flight)
            assert rate
            return Feed(traffic(jobs, seed), poisson(jobs, rate, seed + 1_000))

        served = {key: serve(run, device, [feed(seed) for seed in range(seeds)]) for key, run in BATCHERS.items()}
        worker, nearest, timed = (served[key] for key in (WORKER, NEAREST, TIMED))
        return {
            "load": name,
            "in_flight": in_flight,
            "jobs_per_second": rate,
            "batchers": {key: asdict(each) for key, each in served.items()},
            "rtfx_to_nearest": worker.rtfx / nearest.rtfx,
            "p95_to_nearest": worker.p95_ms / nearest.p95_ms,
            "p95_to_timed": worker.p95_ms / timed.p95_ms,
        }

    loads = [compare(f"{level} in flight", level, None) for level in IN_FLIGHT]
    capacity = loads[-1]["batchers"][WORKER]["jobs_s"]
    loads += [compare(f"{share:.0%} load", None, share * capacity) for share in SHARES]
    return {**asdict(device), "capacity_jobs_s": capacity, "loads": loads}


def measure_cost_errors(device: Device, in_flight: int, noise: str, models: int) -> dict[str, Any]:
    """Return how far the learnt cost of a batch is from its true one, by the mean of each of several models."""
    means = []
    for seed in range(models):
        batches = LEARNT + TRIED
        feed = Feed(traffic(batches * in_flight, seed), in_flight=in_flight)
        outcome = Simulation(device, feed, noise=NOISES[noise], seed=seed, most=batches).run()
        tried = outcome.batches[LEARNT:batches]
        errors = [abs(each.predicted / device.seconds(each.windows, each.longest) - 1) for each in tried]
        means.append(statistics.mean(errors))
    return {
        "device": device.name,
        "in_flight": in_flight,
        "noise": noise,
        "mean": statistics.mean(means),
        "worst": max(means),
    }


def measure_hour(device: Device, rate: float, seeds: int) -> list[dict[str, Any]]:
    """Return what 95 percent of clips that arrive at once take at most, without and with an hour of audio before them.

    That is right after the warm-up, and after traffic of `rate` jobs per second.
    """

    def latencies(hour: Sequence[float], earlier: int, seed: int) -> NDArray[np.float64]:
        arrivals = poisson(earlier, rate, seed)
        burst = arrivals[-1] + 60.0 if earlier else 0.0
        jobs = [*traffic(earlier, seed + 1_000), *hour, *traffic(CLIPS, seed)]
        delays = [0.0] * earlier + [index * WINDOW_INTERVAL_S for index in range(len(hour))] + [0.0] * CLIPS
        arrivals += [burst] * (len(jobs) - earlier)
        outcome = run_scheduler(device, Feed(jobs, arrivals, delays=delays))
        return outcome.latencies(range(len(jobs) - CLIPS, len(jobs)))

    found = []
    for after, earlier in (("warm-up", 0), ("traffic", LEARNING)):
        alone, beside = (
            float(np.percentile(np.concatenate([latencies(hour, earlier, seed) for seed in range(seeds)]), 95)) * 1e3
            for hour in ([], HOUR)
        )
        ratio = beside / alone
        found.append(
            {"device": device.name, "after": after, "alone_p95_ms": alone, "beside_p95_ms": beside, "ratio": ratio}
        )
    return found


def measure_choosing(device: Device, rounds: int) -> dict[str, Any]:
    """Time the choice among many windows, with the one that is due first at several places among the lengths."""
    lengths = sorted(traffic(WAITING, seed=0))
    times = []
    for place in (0, WAITING // 4, WAITING // 2, 3 * WAITING // 4, WAITING - 1):
        due = [float(index != place) for index in range(WAITING)]
        for _ in range(rounds):
            started = time.perf_counter()
            choose_batch(lengths, due, 2.0, device.batch_seconds, device.cost)
            times.append((time.perf_counter() - started) * 1e3)
    return {"device": device.name, "median_ms": statistics.median(times), "worst_ms": max(times)}


class Sleeper(SimulatedDevice):
    """A device that takes the time of a batch really, in sleep."""

    def __init__(self, device: Device) -> None:
        super().__init__(device)
        self.warm_up_times = warm_up(self)

    def decode(self, lengths: Sequence[float], meanwhile: Callable[[], None]) -> None:
        """Sleep until the batch would be decoded."""
        end = time.perf_counter() + self.device.seconds(len(lengths), max(lengths))
        meanwhile()
        time.sleep(max(0.0, end - time.perf_counter()))


def measure_host(device: Device, in_flight: int, seconds: float, simulated: float) -> dict[str, Any]:
    """Measure for how long the device waits for the host, in real time, with a client on a thread of its own.

    Args:
        device: The device, which sleeps.
        in_flight: Number of jobs in flight.
        seconds: For how long.
        simulated: RTFx on simulated time.
    """
    recognizer = Sleeper(device)
    scheduler = Scheduler(lambda: recognizer)
    lengths = traffic(4_096, seed=0)
    answers: queue.SimpleQueue[Future[Any]] = queue.SimpleQueue()
    sent = 0

    def send() -> None:
        nonlocal sent
        length = lengths[sent % len(lengths)]
        scheduler.submit(Clip(sent, length)).add_done_callback(answers.put)
        sent += 1

    started = time.perf_counter()
    for _ in range(in_flight):
        send()
    while time.perf_counter() - started < seconds:
        answers.get(timeout=10).result()
        send()
    elapsed, stats = time.perf_counter() - started, scheduler.stats
    scheduler.close()
    return {
        "device": device.name,
        "in_flight": in_flight,
        "host_share": stats.host_s / elapsed,
        "rtfx": stats.audio_s / elapsed,
        "simulated_rtfx": simulated,
        "ratio": stats.audio_s / elapsed / simulated,
    }


def measure(jobs: int, seeds: int, models: int, seconds: float) -> dict[str, Any]:
    """Measure everything.

    Args:
        jobs: Number of jobs in a run.
        seeds: Number of runs of each batcher and load, which are pooled.
        models: Number of cost models that learn, for each device, load and noise.
        seconds: Seconds of each measurement in real time.
    """
    devices = [measure_loads(device, jobs, seeds) for device in DEVICES]
    result: dict[str, Any] = {
        "jobs": jobs,
        "seeds": seeds,
        "models": models,
        "devices": devices,
        "cost_errors": [
            measure_cost_errors(device, in_flight, noise, models)
            for noise in NOISES
            for device in DEVICES
            for in_flight in LEARNT_AT
        ],
        "hour": [
            row
            for device, measured in zip(DEVICES, devices, strict=True)
            for row in measure_hour(device, SHARES[1] * measured["capacity_jobs_s"], max(seeds, models))
        ],
        "choosing": [measure_choosing(device, rounds=40) for device in DEVICES],
        "host": [
            measure_host(device, 64, seconds, find(devices, device.name, 64)["batchers"][WORKER]["rtfx"])
            for device in SLEEPING
        ],
    }
    return {**result, "bars": bars(result)}


def find(devices: Sequence[dict[str, Any]], name: str, in_flight: int) -> dict[str, Any]:
    """Return the measurements of a device with some number of jobs in flight."""
    (device,) = [device for device in devices if device["name"] == name]
    (load,) = [load for load in device["loads"] if load["in_flight"] == in_flight]
    return dict(load)


def bars(result: dict[str, Any]) -> list[dict[str, Any]]:
    """Return what was to be reached, what was measured, and whether it is met."""

    def faster(device: str, in_flight: int, wanted: float) -> dict[str, Any]:
        ratio = find(result["devices"], device, in_flight)["rtfx_to_nearest"]
        name = f"RTFx to that of 10% padding, {device}, {in_flight} in flight"
        return {"bar": name, "wanted": f">= {wanted:.1f}x", "measured": f"{ratio:.2f}x", "met": ratio >= wanted}

    def no_later(key: str, other: str) -> dict[str, Any]:
        ratios = [(load[key], device["name"], load["load"]) for device in result["devices"] for load in device["loads"]]
        ratio, device, load = max(ratios)
        worse = sum(each[0] >= _EQUAL for each in ratios)
        return {
            "bar": f"p95 to that of {other}, worst",
            "wanted": "<= 1.00x",
            "measured": f"{ratio:.2f}x ({device}, {load}); worse in {worse} of {len(ratios)}",
            "met": ratio < _EQUAL,
        }

    def learnt(noise: str, key: str, what: str) -> dict[str, Any]:
        cells = [cell for cell in result["cost_errors"] if cell["noise"] == noise]
        cell = max(cells, key=lambda cell: cell[key])
        return {
            "bar": f"error of the cost, {noise}, {what}",
            "wanted": "<= 15%",
            "measured": f"{cell[key]:.1%} ({cell['device']}, {cell['in_flight']} in flight)",
            "met": cell[key] <= 0.15,
        }

    hour = max(result["hour"], key=lambda each: each["ratio"])
    choosing = max(result["choosing"], key=lambda each: each["median_ms"])
    worst = max(each["worst_ms"] for each in result["choosing"])
    return [
        faster("H100 eager", 64, 2.3),
        faster("H100 eager", 8, 2.8),
        faster("4090 eager", 64, 1.3),
        faster("two cores", 64, 1.0),
        no_later("p95_to_nearest", NEAREST),
        no_later("p95_to_timed", TIMED),
        *(
            learnt(noise, key, what)
            for noise in NOISES
            for key, what in (("mean", "mean of all models"), ("worst", "worst model"))
        ),
        {
            "bar": "p95 of 64 clips beside an hour, to theirs alone, worst",
            "wanted": "<= 1.3x",
            "measured": f"{hour['ratio']:.2f}x ({hour['device']}, after {hour['after']})",
            "met": hour["ratio"] <= 1.3,
        },
        {
            "bar": f"choosing among {WAITING} windows, median",
            "wanted": "< 1 ms",
            "measured": f"{choosing['median_ms']:.2f} ms (at most {worst:.1f} ms)",
            "met": choosing["median_ms"] < 1,
        },
    ]


def table(result: dict[str, Any]) -> str:
    """Lay out a result as text."""
    lines = [
        f"Simulated devices, {result['seeds']} x {result['jobs']:,} jobs for each load, ms from arrival to answer.",
        "* does not keep up: the latency grows with the number of jobs.",
    ]
    for device in result["devices"]:
        lines += ["", *_loads(device)]
    lines += ["", f"Error of the learnt cost, batches {LEARNT + 1} to {LEARNT + TRIED}, {result['models']} models", ""]
    lines.append(f"{'':61}{'mean':>8}{'worst model':>14}")
    for cell in result["cost_errors"]:
        name = f"{cell['device']}, {cell['in_flight']} in flight, {cell['noise']}"
        lines.append(f"{name:61}{cell['mean']:>8.1%}{cell['worst']:>14.1%}")
    lines += ["", f"p95 of {CLIPS} clips that arrive with an hour of audio, in ms", ""]
    lines.append(f"{'':28}{'alone':>8}{'beside it':>12}{'ratio':>8}")
    for each in result["hour"]:
        latencies = f"{each['alone_p95_ms']:8.0f}{each['beside_p95_ms']:12.0f}"
        name = f"{each['device']}, after {each['after']}"
        lines.append(f"{name:28}{latencies}{each['ratio']:7.2f}x")
    lines += ["", f"Choosing among {WAITING} windows, in ms of this machine", ""]
    lines.append(f"{'':14}{'median':>8}{'worst':>8}")
    lines += [f"{each['device']:14}{each['median_ms']:8.2f}{each['worst_ms']:8.2f}" for each in result["choosing"]]
    lines += ["", "Real threads, devices that sleep: for how long the device waits for the host, and RTFx", ""]
    lines.append(f"{'':28}{'waits':>8}{'RTFx':>8}{'simulated':>11}{'ratio':>8}")
    for each in result["host"]:
        name = f"{each['device']}, {each['in_flight']} in flight"
        rtfx = f"{each['rtfx']:8,.0f}{each['simulated_rtfx']:11,.0f}{each['ratio']:7.2f}x"
        lines.append(f"{name:28}{each['host_share']:8.2%}{rtfx}")
    lines += ["", f"{'bar':76}{'wanted':10}{'':8}measured", ""]
    for bar in result["bars"]:
        lines.append(f"{bar['bar']:76}{bar['wanted']:10}{'met' if bar['met'] else 'MISSED':8}{bar['measured']}")
    return "\n".join(lines) + "\n"


def _loads(device: dict[str, Any]) -> list[str]:
    """Return the lines of a device's loads."""
    cost = f"{device['launch'] * 1e3:.0f} ms, {device['rate']:,} padded s/s, {device['step'] * 1e3:.1f} ms/s"
    lines = [
        f"{device['name']} ({cost}), {device['capacity_jobs_s']:,.0f} jobs/s",
        "",
        f"{'':13}" + "".join(f"| {key:27}" for key in BATCHERS) + "| worker to 10%  to 32",
        f"{'':13}" + f"| {'RTFx':>7}{'batch':>6}{'p50':>7}{'p95':>6} " * len(BATCHERS) + "|  RTFx    p95    p95",
    ]
    for load in device["loads"]:
        cells = "".join(
            f"|{each['rtfx']:7,.0f}{' ' if each['keeps_up'] or load['in_flight'] else '*'}{each['batch']:6.1f}"
            f"{each['p50_ms']:7.0f}{each['p95_ms']:7.0f} "
            for each in load["batchers"].values()
        )
        ratios = f"{load['rtfx_to_nearest']:5.2f}x {load['p95_to_nearest']:5.2f}x {load['p95_to_timed']:5.2f}x"
        lines.append(f"{load['load']:13}{cells}| {ratios}")
    return lines


def report(result: dict[str, Any], out: Path) -> None:
    """Print the tables, and write them as text, JSON and SVG."""
    text = table(result)
    print(text)
    out.mkdir(parents=True, exist_ok=True)
    (out / "batching.txt").write_text(text)
    (out / "batching.json").write_text(json.dumps(result, indent=1) + "\n")
    (out / "batching.svg").write_text(chart.batching(result))


def main() -> None:
    """Run the command line; see `--help`."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--jobs", type=int, default=2_400, help="number of jobs in a run")
    parser.add_argument("--seeds", type=int, default=3, help="number of runs that are pooled")
    parser.add_argument("--models", type=int, default=20, help="number of cost models that learn")
    parser.add_argument("--seconds", type=float, default=5.0, help="seconds of each measurement in real time")
    parser.add_argument("--out", type=Path, default=HERE / "results")
    options = parser.parse_args()
    report(measure(options.jobs, options.seeds, options.models, options.seconds), options.out)


if __name__ == "__main__":
    main()
