"""Lines of the log that several threads write at once."""

import json
from typing import Any

import pytest

from processes import run

THREADS = """
import sys, threading
from parakeet_worker.serverless import log
log.install(as_json=sys.argv[1] == "json")
sys.setswitchinterval(1e-5)  # by default, a thread has many lines before the next one's turn
begin = threading.Barrier(8)

def talk(thread):
    begin.wait()
    for number in range(1_500):
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
    assert sorted(lines) == sorted(f"INFO   | thread {t} says {n}" for t in range(8) for n in range(1_500))
