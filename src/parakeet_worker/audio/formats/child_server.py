"""The program that forks a decoder process for each file that FFmpeg decodes.

python -m parakeet_worker.audio.formats.child_server < socket

Loading FFmpeg and numpy takes 0.2 s of a core. This process does that once, and forks: a child is ready after some
milliseconds, and shares the memory of the libraries. It never reads a file itself, so no file can harm another.

A request is the demuxer's name and three descriptors: the file, a pipe for the child's messages, and a control socket.
This process sends the child's process id (`PID`) and later its exit status (`STATUS`) over the control socket. Closing
the other end of the control socket kills the child. Closing the socket of the requests kills all of them.
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
"""Messages of the control socket: a process id; an exit status, or the negative number of the signal that ended it."""

NAME_BYTES = 16
"""Length of a request in bytes: the demuxer's name, padded with zeros."""

_FILE, _MESSAGES, _CONTROL = range(3)

# Out of memory, the system kills a child, whose file can be decoded again, rather than the worker.
_OOM_SCORE = Path("/proc/self/oom_score_adj")


def serve(requests: socket.socket, decode: Callable[[str], None]) -> None:
    """Fork children until the other end of the socket is closed.

    Args:
        requests: The socket of the requests.
        decode: Called in a child with the demuxer's name. Descriptor 0 is the file, 1 the pipe for the messages; no
            other is open.
    """
    controls: dict[int, socket.socket] = {}  # by process id
    woken, wake = socket.socketpair()
    for end in (woken, wake):
        end.setblocking(False)
    signal.set_wakeup_fd(wake.fileno(), warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    gc.freeze()  # a collection in a child would copy the memory that it shares
    with selectors.DefaultSelector() as selector:
        selector.register(requests, selectors.EVENT_READ)
        selector.register(woken, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.fileobj is requests:
                    request, descriptors, _, _ = socket.recv_fds(requests, NAME_BYTES, 3)
                    if not request:
                        for pid in controls:
                            os.kill(pid, signal.SIGKILL)
                        return
                    # Fewer come at the limit on descriptors. The closed control socket tells the worker.
                    if len(descriptors) == 3 and (pid := _fork(request.rstrip(b"\0").decode(), descriptors, decode)):
                        control = controls[pid] = socket.socket(fileno=descriptors.pop(_CONTROL))
                        control.setblocking(False)
                        selector.register(control, selectors.EVENT_READ, pid)
                    for descriptor in descriptors:
                        os.close(descriptor)
                elif key.fileobj is woken:
                    woken.recv(1 << 16)
                    for pid, status in _ended():
                        control = controls.pop(pid)
                        with suppress(KeyError):
                            selector.unregister(control)
                        with suppress(OSError), control:
                            control.send(STATUS.pack(status))
                elif key.data in controls:  # the other end is closed
                    os.kill(key.data, signal.SIGKILL)
                    selector.unregister(key.fileobj)


def _fork(demuxer: str, descriptors: list[int], decode: Callable[[str], None]) -> int:
    """Fork a child and send its process id; return that, or 0 if the system has no room for another process."""
    try:
        pid = os.fork()
    except OSError:
        return 0
    if pid:
        with suppress(OSError):
            os.write(descriptors[_CONTROL], PID.pack(pid))
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
    """Return the process ids and exit codes of the children that have ended since the last call."""
    ended = []
    with suppress(ChildProcessError):
        while (child := os.waitpid(-1, os.WNOHANG))[0]:
            ended.append((child[0], os.waitstatus_to_exitcode(child[1])))
    return ended


def main() -> None:
    """Serve the socket on the standard input, with children that decode by `container_child`."""
    from parakeet_worker.audio.formats import container_child

    with suppress(OSError):
        _OOM_SCORE.write_text("1000")
    container_child.prepare()
    serve(socket.socket(fileno=0), container_child.run)


if __name__ == "__main__":
    main()
