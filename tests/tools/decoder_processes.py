"""What the tests need of the processes that decode."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from parakeet_worker.audio.formats.children import Children

SERVER = """
import socket, sys
from parakeet_worker.audio.formats import child_server
child_server.serve(socket.socket(fileno=0), lambda _: (exec(sys.argv[1], {}), sys.stdout.flush()))
"""


@contextmanager
def children_that_run(code: str) -> Iterator[Children]:
    """Give children that run some Python instead of a decoder."""
    with closing(Children((sys.executable, "-c", SERVER, code))) as children:
        yield children


def children_of(children: Children) -> list[int]:
    """The process ids of those that have not ended."""
    assert children.server_pid
    pids = [int(path.name) for path in Path("/proc").glob("[0-9]*")]
    return [pid for pid in pids if _state(pid)[1:] == [str(children.server_pid)] and is_running(pid)]


def is_running(pid: int) -> bool:
    return _state(pid)[0] not in ("X", "Z")


def _state(pid: int) -> list[str]:
    """The letter of a process's state, and its parent."""
    try:
        return (Path("/proc") / str(pid) / "stat").read_text().rpartition(") ")[2].split()[:2]
    except OSError:
        return ["X", ""]


def wait_for(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)
