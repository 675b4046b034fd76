"""The program that starts a child for each file that FFmpeg decodes.

python -m parakeet_worker.audio.child_server < socket

Loading FFmpeg and numpy takes 0.2 s of a core. This process does that once, and forks: a child is ready after some
milliseconds, and shares the memory of the libraries. It never reads a file itself, so no file can harm another.

A request is the demuxer's name and three descriptors: the file, where the messages go, and a line to this process. The
line says the child's process id (`PID`), and how it ended (`STATUS`). Closing the other end of it kills the child, and
closing the socket ends them all.
"""

import gc
import os
import selectors
import signal
import socket
import struct
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

PID = STATUS = struct.Struct("<i")
"""What the line says: a process id, and then the exit status, or the negative number of the signal that ended it."""

NAME_BYTES = 16
"""Length of a request: the demuxer's name, filled up with zeros."""

_FILE, _MESSAGES, _LINE = range(3)

# Where memory ends, the system ends a child, whose job can be tried again, and not the worker.
_OOM_SCORE = Path("/proc/self/oom_score_adj")


def serve(requests: socket.socket, decode: Callable[[str], None]) -> None:
    """Start children until the other end of the socket is closed.

    Args:
        requests: Where requests come from.
        decode: What a child does, with the demuxer's name: it has the file as descriptor 0, the messages as 1, and
            nothing else.
    """
    lines: dict[int, socket.socket] = {}  # by process id
    woken, wake = socket.socketpair()
    for end in (woken, wake):
        end.setblocking(False)
    signal.set_wakeup_fd(wake.fileno(), warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    gc.freeze()  # else every child copies the memory of what is collected
    with selectors.DefaultSelector() as selector:
        selector.register(requests, selectors.EVENT_READ)
        selector.register(woken, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.fileobj is requests:
                    request, descriptors, _, _ = socket.recv_fds(requests, NAME_BYTES, 3)
                    if not request:
                        for pid in lines:
                            os.kill(pid, signal.SIGKILL)
                        return
                    # With fewer, this process has reached its limit of them; the end of the line tells the caller.
                    if len(descriptors) == 3 and (pid := _fork(request.rstrip(b"\0").decode(), descriptors, decode)):
                        line = lines[pid] = socket.socket(fileno=descriptors.pop(_LINE))
                        line.setblocking(False)
                        selector.register(line, selectors.EVENT_READ, pid)
                    for descriptor in descriptors:
                        os.close(descriptor)
                elif key.fileobj is woken:
                    woken.recv(1 << 16)
                    for pid, status in _ended():
                        line = lines.pop(pid)
                        with suppress(KeyError):
                            selector.unregister(line)
                        with suppress(OSError), line:
                            line.send(STATUS.pack(status))
                elif key.data in lines:  # the other end is closed
                    os.kill(key.data, signal.SIGKILL)
                    selector.unregister(key.fileobj)


def _fork(demuxer: str, descriptors: list[int], decode: Callable[[str], None]) -> int:
    """Start a child and say so on its line; return its process id, or 0 where there is no room for it."""
    try:
        pid = os.fork()
    except OSError:
        return 0
    if pid:
        with suppress(OSError):
            os.write(descriptors[_LINE], PID.pack(pid))
        return pid
    status = 1
    try:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        os.dup2(descriptors[_FILE], 0)
        os.dup2(descriptors[_MESSAGES], 1)
        os.closerange(3, max(int(path.name) for path in Path("/dev/fd").iterdir()) + 1)
        decode(demuxer)
        status = 0
    finally:
        os._exit(status)


def _ended() -> list[tuple[int, int]]:
    """Return the process ids and the exit codes of children that have ended since the last time."""
    ended = []
    with suppress(ChildProcessError):
        while (child := os.waitpid(-1, os.WNOHANG))[0]:
            ended.append((child[0], os.waitstatus_to_exitcode(child[1])))
    return ended


def main() -> None:
    """Serve the socket that is the standard input, with children that decode with FFmpeg."""
    from parakeet_worker.audio import container_child

    with suppress(OSError):
        _OOM_SCORE.write_text("1000")
    container_child.prepare()
    serve(socket.socket(fileno=0), container_child.run)


if __name__ == "__main__":
    main()
