"""Whatever is printed reaches the log in whole lines, and none of them can be forged or torn."""

import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from parakeet_worker.serverless.log import LineStream, as_json, as_text, printable
from processes import run
from project import ROOT


@pytest.fixture
def stream(tmp_path: Path) -> Iterator[Any]:
    """A stream into a file, and what it has written there."""
    with (tmp_path / "log").open("w", encoding="utf-8") as file:
        stream = LineStream(file, as_text, threading.RLock())
        stream.written = (tmp_path / "log").read_text  # type: ignore[attr-defined]
        stream.replaced = file  # type: ignore[attr-defined]
        yield stream


def test_a_line_without_an_end_is_kept_until_it_has_one(stream: Any) -> None:
    assert stream.write("INFO   | be") == 11
    stream.flush()
    assert stream.written() == ""
    other = threading.Thread(target=print, args=("other",), kwargs={"file": stream})
    other.start()
    other.join()
    assert stream.written() == "other\n"
    print("gun", file=stream)
    assert stream.written() == "other\nINFO   | begun\n"


def test_what_is_begun_is_written_in_the_end(stream: Any) -> None:
    stream.write("begun")
    thread = threading.Thread(target=stream.write, args=("begun elsewhere",))
    thread.start()
    thread.join()
    stream.drain()
    assert sorted(stream.written().splitlines()) == ["begun", "begun elsewhere"]
    stream.write("more")
    stream.close()
    assert stream.written().endswith("more\n")
    os.fstat(stream.replaced.fileno())  # is still open


def test_what_has_no_end_is_not_kept_for_ever(stream: Any) -> None:
    for _ in range(3):
        stream.write("." * 50_000)
    assert len(stream.written()) == 100_001
    print("x" * 1_000_000, file=stream)
    assert stream.written().splitlines()[1:] == ["." * 50_000 + "x" * 1_000_000]


def test_it_is_a_text_stream_like_the_one_it_replaces(stream: Any) -> None:
    assert stream.fileno() == stream.replaced.fileno()
    assert stream.buffer is stream.replaced.buffer
    assert (stream.encoding, stream.errors, stream.name) == ("utf-8", "backslashreplace", stream.replaced.name)
    assert stream.writable()
    assert not stream.readable()
    assert not stream.isatty()
    stream.writelines(["a\n", "b\n"])
    print("é 日本 \ud800", file=stream)
    assert stream.written() == "a\nb\né 日本 \\ud800\n"


def test_an_encoding_without_the_characters_gets_their_escapes() -> None:
    reading, writing = os.pipe()
    with os.fdopen(writing, "w", encoding="ascii") as file:
        print("é", file=LineStream(file, as_text, threading.RLock()))
    assert os.read(reading, 100) == b"\\xe9\n"
    os.close(reading)


def test_a_full_disk_fails_nobody() -> None:
    with Path("/dev/full").open("w") as full:
        print("lost", file=LineStream(full, as_text, threading.RLock()), flush=True)


def test_a_pipe_that_does_not_block_gets_all_of_it() -> None:
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    got = []

    def read() -> None:
        time.sleep(0.1)
        with os.fdopen(reading, "rb") as file:
            got.append(file.read())

    reader = threading.Thread(target=read)
    reader.start()
    with os.fdopen(writing, "w") as file:
        print("x" * 500_000, file=LineStream(file, as_text, threading.RLock()))
    reader.join()
    assert got == [b"x" * 500_000 + b"\n"]


@pytest.mark.parametrize(
    ("record", "written"),
    [
        ("INFO   | done", "INFO   | done"),
        ("INFO   | a\nERROR  | forged | done", "INFO   | a\\nERROR  | forged | done"),
        ("WARN   | \x1b[2J\r\x85\u2028\ud800\t", "WARN   | \\x1b[2J\\r\\x85\\u2028\\ud800\\t"),
        ("DEBUG  | Traceback:\nline\n", "DEBUG  | Traceback:\\nline"),
        ("a.py:1: UserWarning: x\x07\n  code()", "a.py:1: UserWarning: x\\x07\n  code()"),
        ('{"message": "é\\n"}', '{"message": "é\\n"}'),
        ("", ""),
    ],
)
def test_text(record: Any, written: Any) -> None:
    assert as_text(record) == written


@pytest.mark.parametrize(
    ("record", "level", "job_id", "message"),
    [
        ("--- Starting |  Version 1 ---", "INFO", None, "--- Starting |  Version 1 ---"),
        ("WARN   | 00000001-e1 | Stopping job.", "WARN", "00000001-e1", "Stopping job."),
        ("INFO   | Jobs in queue: 3", "INFO", None, "Jobs in queue: 3"),
        ("ERROR  | Fitness check failed: a | OSError: b", "ERROR", None, "Fitness check failed: a | OSError: b"),
        ("DEBUG  | rp_job | get_job: x", "DEBUG", None, "rp_job | get_job: x"),
        ("ERROR  | JobScaler.run_jobs | Task failed", "ERROR", None, "JobScaler.run_jobs | Task failed"),
        ("ERROR  | 1 | ValueError at\n  here\n", "ERROR", "1", "ValueError at\n  here"),
        ("WARNING:root:beware", "WARN", None, "WARNING:root:beware"),
        ("INFO:     Started server process", "INFO", None, "INFO:     Started server process"),
        ("a.py:1: UserWarning: x\n  code()", "WARN", None, "a.py:1: UserWarning: x\n  code()"),
        ("[1, 2]", "INFO", None, "[1, 2]"),
        ('{"cut": ', "INFO", None, '{"cut":'),
        ("[" * 100_000, "INFO", None, "[" * 100_000),
        ('{"a":' * 100_000, "INFO", None, '{"a":' * 100_000),
        ("lone \ud800", "INFO", None, "lone \ud800"),
    ],
)
def test_json(record: Any, level: Any, job_id: Any, message: Any) -> None:
    written = as_json(record, "INFO")
    assert printable(written) == written
    assert json.loads(written) == {"requestId": job_id, "level": level, "message": message}


def test_what_is_json_stays_as_it_is() -> None:
    line = '{"requestId":  "1", "message": "é", "level": "INFO"}'
    assert as_json(line, "INFO") == line
    assert as_json(" \n", "INFO") == ""


STREAMS = """
import sys, warnings
from parakeet_worker.serverless import log
log.install(as_json=sys.argv[1] == "json")
log.install(as_json=True)  # is installed already
sys.stdout.write("begun")
warnings.warn("beware", UserWarning)
print("on the \\ud800 other", file=sys.stderr)
raise ValueError("the end")
"""


def test_both_streams_are_replaced() -> None:
    done = run(STREAMS, "text", text=True)
    assert done.stdout == "begun\n"
    lines = done.stderr.splitlines()
    assert lines[0].endswith("UserWarning: beware")
    assert lines[-1] == "ValueError: the end"
    assert "on the \\ud800 other" in lines
    done = run(STREAMS, "json", text=True)
    lines = [json.loads(line) for line in (done.stdout + done.stderr).splitlines()]
    levels = {line["message"].splitlines()[0].rpartition(":")[2].strip(): line["level"] for line in lines}  # type: ignore[index]
    assert levels["begun"] == "INFO"
    assert levels["beware"] == "WARN"
    assert levels["on the \ud800 other"] == levels["the end"] == "ERROR"


FORK = """
import os, sys, threading, time
from parakeet_worker.serverless import log
log.install(as_json=False)

def talk():
    while True:
        print("from a thread")

threading.Thread(target=talk, daemon=True).start()
for _ in range(50):
    child = os.fork()
    if not child:
        print("from a child")
        os._exit(0)
    os.waitpid(child, 0)
"""


def test_a_child_of_the_process_can_print() -> None:
    done = run(FORK, text=True)
    assert done.returncode == 0
    lines = done.stdout.split("\n")
    assert lines.count("from a child") == 50
    assert set(lines[:-1]) <= {"from a child", "from a thread"}


def test_a_process_without_streams_starts() -> None:
    code = "from parakeet_worker.serverless import log; log.install(as_json=False)"
    code += "; import sys; sys.exit(sys.stdout is not None)"
    closed = ["sh", "-c", 'exec "$0" -c "$1" >&- 2>&-', sys.executable, code]
    assert subprocess.run(closed, cwd=ROOT, timeout=60, check=False).returncode == 0


def test_importing_replaces_nothing() -> None:
    code = "import sys, handler; sys.exit(sys.stdout is not sys.__stdout__ or sys.stderr is not sys.__stderr__)"
    assert run(code).returncode == 0


def test_a_handler_of_a_signal_may_print_while_a_line_is_written(tmp_path: Path) -> None:
    """Such as the SDK's of SIGINT: the thread has the lock already."""

    def form(record: str) -> str:
        if record == "first":
            print("within", file=lines)
        return record

    with (tmp_path / "log").open("w", encoding="utf-8") as file:
        lines = LineStream(file, form, threading.RLock())
        print("first", file=lines)
        assert (tmp_path / "log").read_text() == "within\nfirst\n"


def test_what_is_printable_has_no_control_characters() -> None:
    assert re.fullmatch(r"[ -~¡-ÿ\\]+", printable("".join(map(chr, range(256)))))
    assert printable("a b é 日本") == "a b é 日本"
