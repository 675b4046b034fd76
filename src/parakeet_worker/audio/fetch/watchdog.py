"""An end to every wait and every response of a download: a deadline, cancellation, and limits on what a server sends.

The connections below are urllib3's, with a watchdog that can cut them at any time: while they connect, during the TLS
handshake, and while headers or the body are read.
"""

import http.client
import io
import os
import select
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import urllib3

from parakeet_worker.cancellation import CancellationToken
from parakeet_worker.exhaustion import wait_for_descriptor

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

# Most interim responses (RFC 9110, 15.2) before the final one. Servers send one or two.
_MOST_INTERIM = 20

# Lines of headers, chunk sizes and trailers that are always read. Each further line must come with some bytes: a
# response of nothing but lines keeps a core busy. Servers send thousands of bytes in a chunk.
_FREE_LINES, _LEAST_PER_LINE = 1_000, 32

# Bytes on the wire, as a factor of the largest file and in addition to it, for headers and chunk sizes.
_OVERHEAD, _FREE_BYTES = 1.25, 10_000_000

# Headers that announce the body of a redirect, which requests would read into memory before it follows.
_BODY_HEADERS = ("Content-Length", "Transfer-Encoding", "Content-Encoding")


class DeadlineError(TimeoutError):
    """The deadline has passed."""


class EndlessResponseError(Exception):
    """A server sends more and more that is not the file. The argument is the message for the caller."""


class Watchdog:
    """Ends every wait of a download at its deadline, or when its job is cancelled: also connect, handshake and headers.

    Args:
        seconds: How long the download may take.
        cancellation: Cancels the download with its job.
        max_bytes: Largest file, in bytes.
    """

    def __init__(self, seconds: float, cancellation: CancellationToken, max_bytes: int) -> None:
        self.cancellation = cancellation
        self.most_on_wire = max_bytes * _OVERHEAD + _FREE_BYTES
        self._deadline = time.monotonic() + seconds
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None

    @property
    def left(self) -> float:
        """Seconds that are left; below zero when none are."""
        return self._deadline - time.monotonic()

    def check(self) -> None:
        """Raise if the job is cancelled or the deadline has passed.

        Raises:
            JobCancelledError: The job was cancelled.
            DeadlineError: The deadline has passed.
        """
        self.cancellation.check()
        if self.left <= 0:
            raise DeadlineError

    def limit(self, seconds: float | None) -> float:
        """Return the timeout of a wait in seconds: `seconds`, or the time to the deadline if that is less.

        Raises:
            JobCancelledError: The job was cancelled.
            DeadlineError: The deadline has passed.
        """
        self.check()
        # Zero would be no limit.
        left = max(self.left, 0.001)
        return left if seconds is None else min(seconds, left)

    def hold(self, connected: socket.socket) -> None:
        """Cut this socket when the job is cancelled. It may still be connecting."""
        with self._lock:
            self._socket = connected
        self.check()

    @contextmanager
    def running(self) -> Iterator[None]:
        """Apply to all connections that this thread opens in the context."""
        _watchdogs.current = self
        try:
            with self.cancellation.calling(self._cut):
                yield
        finally:
            _watchdogs.current = None

    def _cut(self) -> None:
        with self._lock, suppress(OSError):
            if self._socket:
                # Reads return its end, and a pending connect fails.
                socket.socket.shutdown(self._socket, socket.SHUT_RDWR)


class _Watchdogs(threading.local):
    current: Watchdog | None = None


_watchdogs = _Watchdogs()


class _Wire(io.RawIOBase):
    """The bytes of a connection, read until the watchdog's deadline and limit."""

    def __init__(self, raw: io.RawIOBase, connected: socket.socket, watchdog: Watchdog) -> None:
        self.count = 0
        self._raw = raw
        self._connected = connected
        self._watchdog = watchdog
        self._seconds = connected.gettimeout()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: "WriteableBuffer") -> int | None:
        self._connected.settimeout(self._watchdog.limit(self._seconds))
        count: int | None = self._raw.readinto(buffer)
        self._watchdog.check()
        self.count += count or 0
        if self.count > self._watchdog.most_on_wire:
            raise EndlessResponseError("the server sends more than the file")
        return count

    def close(self) -> None:
        self._raw.close()
        super().close()


class _Reader(io.BufferedReader):
    """A buffered reader with a limit on the number of lines."""

    def __init__(self, wire: _Wire) -> None:
        super().__init__(wire)
        self._wire = wire
        self._lines = 0

    def readline(self, size: int | None = -1, /) -> bytes:
        self._lines += 1
        if self._lines > _FREE_LINES + self._wire.count / _LEAST_PER_LINE:
            raise EndlessResponseError("the server sends its answer in too small pieces")
        return super().readline(size)


class _Response(http.client.HTTPResponse):
    """A response whose interim responses, lines and bytes are limited."""

    def __init__(self, sock: socket.socket, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - as http.client's
        super().__init__(sock, *args, **kwargs)
        if _watchdogs.current:
            self.fp: Any = _Reader(_Wire(self.fp.detach(), sock, _watchdogs.current))

    def _read_status(self) -> tuple[str, int, str]:
        for _ in range(_MOST_INTERIM):
            version, status, reason = super()._read_status()  # type: ignore[misc]  # typeshed leaves it out
            if not 100 <= status < 200:
                return version, status, reason
            http.client.parse_headers(self.fp)
        raise EndlessResponseError("the server sends no answer")

    def begin(self) -> None:
        super().begin()
        if 300 <= self.status < 400:
            for name in _BODY_HEADERS:
                del self.headers[name]
            self.chunked, self.length, self.will_close = False, 0, True


class _WatchedConnection:
    """What the connections below add to urllib3's."""

    response_class: type[http.client.HTTPResponse] = _Response
    timeout: Any
    sock: Any
    socket_options: Any
    port: int
    _dns_host: str

    def connect(self) -> None:
        watchdog = _watchdogs.current
        if watchdog:
            # A name may have many addresses, none of which answers.
            self.timeout = watchdog.limit(self.timeout if isinstance(self.timeout, int | float) else None)
        super().connect()  # type: ignore[misc]
        if watchdog:
            watchdog.hold(self.sock)

    def _new_conn(self) -> socket.socket:
        """Connect as urllib3 does, but so that the watchdog has the socket from the start."""
        watchdog = _watchdogs.current
        if watchdog is None:
            new: socket.socket = super()._new_conn()  # type: ignore[misc]
            return new
        try:
            return self._dial(watchdog)
        except TimeoutError as error:
            raise urllib3.exceptions.ConnectTimeoutError(self, "the server does not answer") from error
        except OSError as error:
            raise urllib3.exceptions.NewConnectionError(self, "no connection") from error  # type: ignore[arg-type]

    def _dial(self, watchdog: Watchdog) -> socket.socket:
        # The host is an address.
        family, kind, protocol, _, address = socket.getaddrinfo(self._dns_host, self.port, type=socket.SOCK_STREAM)[0]
        connecting = wait_for_descriptor(lambda: socket.socket(family, kind, protocol), watchdog.cancellation)
        try:
            for option in self.socket_options or ():
                connecting.setsockopt(*option)
            connecting.setblocking(False)
            with suppress(BlockingIOError):
                connecting.connect(address)
            # Not before: a socket that has not begun to connect cannot be shut down.
            watchdog.hold(connecting)
            _wait_for(connecting, self.timeout)
            connecting.settimeout(self.timeout)
        except BaseException:
            connecting.close()
            raise
        return connecting


def _wait_for(connecting: socket.socket, seconds: float) -> None:
    """Wait until a socket is connected."""
    poll = select.poll()
    poll.register(connecting, select.POLLOUT)
    if not poll.poll(seconds * 1000):
        raise TimeoutError
    number = connecting.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if number:
        raise OSError(number, os.strerror(number))


class WatchedHTTPConnection(_WatchedConnection, urllib3.connection.HTTPConnection):
    """An HTTP connection that the watchdog of its thread can cut."""


class WatchedHTTPSConnection(_WatchedConnection, urllib3.connection.HTTPSConnection):
    """An HTTPS connection that the watchdog of its thread can cut, also during the handshake."""

    _handle: socket.socket | None = None

    def connect(self) -> None:
        """Connect, and close the descriptor that the handshake could be cut by."""
        try:
            super().connect()
        finally:
            if self._handle:
                self._handle.close()

    def _new_conn(self) -> socket.socket:
        connected = super()._new_conn()
        watchdog = _watchdogs.current
        if watchdog:
            # The handshake takes the descriptor out of the socket. A second one is there to cut it by.
            self._handle = wait_for_descriptor(connected.dup, watchdog.cancellation)
            watchdog.hold(self._handle)
        return connected
