"""Lines of the log that several threads write at once."""

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from parakeet_worker.serverless.log import LineStream, as_text
from project import ROOT


def run(code: str, *arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run code in a process whose output is unbuffered, as in the image."""
    return subprocess.run(
        [sys.executable, "-u", "-c", code, *arguments],
        cwd=ROOT,
        capture_output=True,
        timeout=60,
        check=False,
        **options,
    )


THREADS = """
import sys, threading
from parakeet_worker.serverless import log
log.install(as_json=sys.argv[1] == "json")
begin = threading.Barrier(8)

def talk(thread):
    begin.wait()
    for number in range(10_000):
        if number % 3 == 0:
            print(f"INFO   | thread {thread} says {number}", flush=True)
        elif number % 3 == 1:
            print("INFO   |", "thread", thread, "says", number)
        else:
            for piece in ("INFO   | ", f"thread {thread} ", f"says {number}", "\\n"):
                sys.stdout.write(piece)
                sys.stdout.flush()

threads = [threading.Thread(target=talk, args=(thread,)) for thread in range(8)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
"""


@pytest.mark.parametrize("form", ["text", "json"])
def test_no_line_is_torn_by_another_thread(form: Any) -> None:
    done = run(THREADS, form, text=True)
    assert done.stderr == ""
    *lines, rest = done.stdout.split("\n")
    if form == "json":
        lines = [f"{line['level']}   | {line['message']}" for line in map(json.loads, lines)]
    assert rest == ""
    assert sorted(lines) == sorted(f"INFO   | thread {t} says {n}" for t in range(8) for n in range(10_000))


@pytest.fixture
def stream(tmp_path: Path) -> Iterator[Any]:
    """A stream into a file, and what it has written there."""
    with (tmp_path / "log").open("w", encoding="utf-8") as file:
        stream = LineStream(file, as_text, threading.RLock())
        stream.written = (tmp_path / "log").read_text  # type: ignore[attr-defined]
        yield stream
