"""Attacks on a real worker by way of its downloads: what a good clip then takes, beside what it takes alone.

`python tests/attack_downloads.py` prints a table. Each attack is a function that returns its rows, for other scripts.
"""

import argparse
import contextlib
import socket
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from audio_files import data_url
from conftest import SPEECH, LoopbackServer
from runpod_platform import Job, Platform, wait_until, worker_process

CLIP = SPEECH / "clip02.flac"


@dataclass(frozen=True)
class Row:
    """One measurement.

    Attributes:
        name: What was done.
        alone_s: Seconds that a clip takes in the same worker without it.
        beside_s: Seconds that it takes at the same time: the median of several.
        worst_s: The longest of them.
        bar_s: How many seconds more than alone any of them may take.
    """

    name: str
    alone_s: float
    beside_s: float
    worst_s: float
    bar_s: float

    @property
    def is_met(self) -> bool:
        return self.worst_s <= self.alone_s + self.bar_s

    def __str__(self) -> str:
        return (
            f"{self.name:<72} {self.alone_s:>6.3f} s {self.beside_s:>6.3f} s {self.worst_s:>6.3f} s  "
            f"{'ok' if self.is_met else f'MISSED: at most {self.bar_s:g} s more'}"
        )


HEADING = f"{'':<72} {'alone':>8} {'beside':>8} {'worst':>8}"


@contextlib.contextmanager
def dripping() -> Iterator[str]:
    """Serve bodies that come at 20 kB/s, for ever, from one thread for all of them; yield the URL."""
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n"
    is_over = threading.Event()
    clients: list[socket.socket] = []
    with socket.create_server(("127.0.0.1", 0), backlog=512) as listening:

        def accept() -> None:
            while not is_over.is_set():
                with contextlib.suppress(OSError):
                    client, _ = listening.accept()
                    client.sendall(head)
                    client.setblocking(False)
                    clients.append(client)

        def drip() -> None:
            while not is_over.wait(0.05):
                for client in list(clients):
                    try:
                        client.send(b"x" * 1_000)
                    except BlockingIOError:
                        pass
                    except OSError:
                        clients.remove(client)
                        client.close()

        for each in (accept, drip):
            threading.Thread(target=each, daemon=True).start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/drip.wav"
        is_over.set()
        for client in clients:
            client.close()


@contextlib.contextmanager
def unreachable() -> Iterator[str]:
    """Yield the address of a listener whose backlog is full: the system leaves whoever connects waiting."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listening, contextlib.ExitStack() as waiting:
        for _ in range(8):
            filling = waiting.enter_context(socket.socket())
            filling.setblocking(False)
            filling.connect_ex(listening.getsockname())
        time.sleep(0.1)
        yield f"127.0.0.1:{listening.getsockname()[1]}"


@contextlib.contextmanager
def silent() -> Iterator[str]:
    """Yield the address of a server that takes connections and says nothing: no handshake, no headers."""
    with socket.create_server(("127.0.0.1", 0), backlog=512) as listening:
        yield f"127.0.0.1:{listening.getsockname()[1]}"


def seconds_of(platform: Platform, requests: list[dict]) -> list[float]:
    """Send requests one after another, and return how long each took."""
    took = []
    for request in requests:
        (job,) = platform.submit({"input": request})
        assert wait_until(lambda: job.answers, 120), "no answer"  # noqa: B023 - waited for here
        assert job.status == "COMPLETED", job.result
        took.append(job.ended - job.queued)
    return took


def send(platform: Platform, urls: list[str]) -> list[Job]:
    """Send a job for each URL, and wait until the worker has them all."""
    jobs = platform.submit(*[{"input": {"audio_url": url}} for url in urls])
    assert wait_until(lambda: all(job.handed_out for job in jobs), 60), "the worker does not take them"
    time.sleep(0.5)
    return jobs


def slow_downloads(drips: int = 64, hanging: int = 64, concurrency: int = 200, clips: int = 11) -> list[Row]:
    """Measure a clip beside downloads that drip, and beside cancelled ones that hang: in connects, handshakes, headers.

    Args:
        drips: Downloads that drip, and are not cancelled.
        hanging: Downloads that hang, and are cancelled.
        concurrency: Jobs that the worker takes at a time.
        clips: How many clips are sent for each measurement.
    """
    rows = []
    with contextlib.ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        server, platform = LoopbackServer(), Platform()
        stack.callback(server.close)
        stack.callback(platform.close)
        drip = stack.enter_context(dripping())
        full, quiet = stack.enter_context(unreachable()), stack.enter_context(silent())
        hangs = [f"http://{full}/a.wav", f"https://{quiet}/a.wav", f"http://{quiet}/a.wav"]
        data = CLIP.read_bytes()
        good = [{"audio_url": server.serve("/clip.flac", data)}, {"audio_url": data_url(data)}] * clips
        good = good[:clips]
        stack.enter_context(worker_process(platform, directory / "log", PARAKEET_CONCURRENCY=str(concurrency)))
        seconds_of(platform, good[:2])
        alone = statistics.median(seconds_of(platform, good))

        def measure(name: str) -> None:
            took = seconds_of(platform, good)
            rows.append(Row(name, alone, statistics.median(took), max(took), 0.2))

        for first in range(0, hanging, concurrency):
            count = min(concurrency, hanging - first)
            for job in send(platform, [hangs[index % len(hangs)] for index in range(count)]):
                platform.cancel(job)
            time.sleep(0.5)
        measure(f"beside {hanging} cancelled downloads that hang, concurrency {concurrency}")
        dripped = send(platform, [drip] * drips) if drips else []
        if drips:
            measure(f"and beside {drips} downloads that drip, concurrency {concurrency}")
        for job in dripped:
            platform.cancel(job)
    return rows


def main() -> None:
    """Print the rows, and fail if a bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.parse_args()
    print(HEADING)
    rows = []
    for attack in (lambda: slow_downloads(), lambda: slow_downloads(drips=4, hanging=40, concurrency=8)):
        for row in attack():
            print(row, flush=True)
            rows.append(row)
    raise SystemExit(not all(row.is_met for row in rows))


if __name__ == "__main__":
    main()
