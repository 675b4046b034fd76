"""What RunPod's SDK's guarded download lacks: some addresses that are not public, and an end to every wait and answer.

The SDK's `safe_get` resolves a name once, refuses addresses that are not public, connects to one that it has checked,
and does so again for each redirect. `install()` puts our adapter in the place of the one that it dials with.
"""

import http.client
import io
import ipaddress
import os
import select
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import urllib3
from runpod.serverless.utils import rp_ssrf

from parakeet_worker.audio.abort import Abort
from parakeet_worker.audio.scratch import patiently

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

# IPv6 networks that the SDK takes for public and that are not. The addresses of the first carry an IPv4 address, which
# may be any, that a gateway connects to: NAT64 (RFC 6052 and 8215), 6to4 (RFC 3056) and Teredo (RFC 4380). The last
# were private once and may still be in use as such (RFC 3879).
_NOT_PUBLIC = [
    ipaddress.ip_network(name) for name in ("64:ff9b::/96", "64:ff9b:1::/48", "2002::/16", "2001::/32", "fec0::/10")
]


# Interim answers (RFC 9110, 15.2) before the one that counts. Servers send one or two.
_MOST_INTERIM = 20

# Lines of headers, of chunks' sizes and of what follows the chunks. Beyond so many, each must come with some bytes: an
# answer of nothing else keeps a core busy. Servers send thousands of bytes in a chunk.
_FREE_LINES, _LEAST_PER_LINE = 1_000, 32

# What comes over the wire may be longer than the file that comes out of it, by its headers and the sizes of its chunks.
_OVERHEAD, _FREE_BYTES = 1.25, 10_000_000

# What the body of a redirect is, which requests would read into memory before it follows.
_BODY_HEADERS = ("Content-Length", "Transfer-Encoding", "Content-Encoding")


class Expired(TimeoutError):  # noqa: N818 - what happened, not a mistake
    """The deadline has passed."""


class Endless(Exception):  # noqa: N818 - what the server is, not a mistake
    """A server says more and more without the file coming any nearer. Its argument is what the caller is told."""


class Watch:
    """Ends whatever a download waits for when its time is up or its job is gone: connects, handshakes and headers too.

    Args:
        seconds: How long the download may take.
        abort: Is set when its job is gone.
        max_bytes: Largest file, in bytes.
    """

    def __init__(self, seconds: float, abort: Abort, max_bytes: int) -> None:
        self.abort = abort
        self.most_on_wire = max_bytes * _OVERHEAD + _FREE_BYTES
        self._deadline = time.monotonic() + seconds
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None

    @property
    def left(self) -> float:
        """Seconds that are left; below zero when none are."""
        return self._deadline - time.monotonic()

    def check(self) -> None:
        """Stop here if the job is gone or the time is up.

        Raises:
            Aborted: The job is gone.
            Expired: The time is up.
        """
        self.abort.check()
        if self.left <= 0:
            raise Expired

    def limit(self, seconds: float | None) -> float:
        """Return how long a wait may take, in seconds, that should take no longer than `seconds`.

        Raises:
            Aborted: The job is gone.
            Expired: The time is up.
        """
        self.check()
        # Zero would be no limit.
        left = max(self.left, 0.001)
        return left if seconds is None else min(seconds, left)

    def hold(self, connected: socket.socket) -> None:
        """Have this connection cut when the job is gone. It may still be on its way to be one."""
        with self._lock:
            self._socket = connected
        self.check()

    @contextmanager
    def running(self) -> Iterator[None]:
        """Watch over what is done meanwhile, on this thread."""
        _watches.current = self
        try:
            with self.abort.waking(self._cut):
                yield
        finally:
            _watches.current = None

    def _cut(self) -> None:
        with self._lock, suppress(OSError):
            if self._socket:
                # Whoever reads from it reads its end; whoever waits for it to connect is told that it will not.
                socket.socket.shutdown(self._socket, socket.SHUT_RDWR)


class _Watches(threading.local):
    current: Watch | None = None


_watches = _Watches()


class _Wire(io.RawIOBase):
    """What a server sends, as long as the watch lets it."""

    def __init__(self, raw: io.RawIOBase, connected: socket.socket, watch: Watch) -> None:
        self.count = 0
        self._raw = raw
        self._connected = connected
        self._watch = watch
        self._seconds = connected.gettimeout()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: "WriteableBuffer") -> int | None:
        self._connected.settimeout(self._watch.limit(self._seconds))
        count: int | None = self._raw.readinto(buffer)
        self._watch.check()
        self.count += count or 0
        if self.count > self._watch.most_on_wire:
            raise Endless("the server sends more than the file")
        return count

    def close(self) -> None:
        self._raw.close()
        super().close()


class _Reader(io.BufferedReader):
    """Reads lines from the wire, but not for ever."""

    def __init__(self, wire: _Wire) -> None:
        super().__init__(wire)
        self._wire = wire
        self._lines = 0

    def readline(self, size: int | None = -1, /) -> bytes:
        self._lines += 1
        if self._lines > _FREE_LINES + self._wire.count / _LEAST_PER_LINE:
            raise Endless("the server sends its answer in too small pieces")
        return super().readline(size)


class _Response(http.client.HTTPResponse):
    """An answer that has an end."""

    def __init__(self, sock: socket.socket, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - as http.client's
        super().__init__(sock, *args, **kwargs)
        if _watches.current:
            self.fp: Any = _Reader(_Wire(self.fp.detach(), sock, _watches.current))

    def _read_status(self) -> tuple[str, int, str]:
        for _ in range(_MOST_INTERIM):
            version, status, reason = super()._read_status()  # type: ignore[misc]  # typeshed leaves it out
            if not 100 <= status < 200:
                return version, status, reason
            http.client.parse_headers(self.fp)
        raise Endless("the server sends no answer")

    def begin(self) -> None:
        super().begin()
        if 300 <= self.status < 400:
            for name in _BODY_HEADERS:
                del self.headers[name]
            self.chunked, self.length, self.will_close = False, 0, True


class _Watched:
    """What our connections add to urllib3's."""

    response_class: type[http.client.HTTPResponse] = _Response
    timeout: Any
    sock: Any
    socket_options: Any
    port: int
    _dns_host: str

    def connect(self) -> None:
        watch = _watches.current
        if watch:
            # A name may have many addresses, none of which answers.
            self.timeout = watch.limit(self.timeout if isinstance(self.timeout, int | float) else None)
        super().connect()  # type: ignore[misc]
        if watch:
            watch.hold(self.sock)

    def _new_conn(self) -> socket.socket:
        """Connect as urllib3 does, but so that the watch has the socket from the start."""
        watch = _watches.current
        if watch is None:
            new: socket.socket = super()._new_conn()  # type: ignore[misc]
            return new
        try:
            return self._dial(watch)
        except TimeoutError as error:
            raise urllib3.exceptions.ConnectTimeoutError(self, "the server does not answer") from error
        except OSError as error:
            raise urllib3.exceptions.NewConnectionError(self, "no connection") from error  # type: ignore[arg-type]

    def _dial(self, watch: Watch) -> socket.socket:
        # The host is an address.
        family, kind, protocol, _, address = socket.getaddrinfo(self._dns_host, self.port, type=socket.SOCK_STREAM)[0]
        connecting = patiently(lambda: socket.socket(family, kind, protocol), watch.abort)
        try:
            for option in self.socket_options or ():
                connecting.setsockopt(*option)
            connecting.setblocking(False)
            with suppress(BlockingIOError):
                connecting.connect(address)
            # Not before: a socket that has not begun to connect cannot be shut down.
            watch.hold(connecting)
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


class _WatchedHTTPConnection(_Watched, urllib3.connection.HTTPConnection):
    pass


class _WatchedHTTPSConnection(_Watched, urllib3.connection.HTTPSConnection):
    _handle: socket.socket | None = None

    def connect(self) -> None:
        try:
            super().connect()
        finally:
            if self._handle:
                self._handle.close()

    def _new_conn(self) -> socket.socket:
        connected = super()._new_conn()
        watch = _watches.current
        if watch:
            # The handshake takes the descriptor out of the socket. A second one is there to cut it by.
            self._handle = patiently(connected.dup, watch.abort)
            watch.hold(self._handle)
        return connected


class _Adapter(rp_ssrf.PinnedIPAdapter):  # type: ignore[misc]  # the SDK is not typed
    """Dials one address that the SDK has checked, where it is public in truth."""

    def __init__(self, pinned_ip: str, **kwargs: Any) -> None:  # noqa: ANN401 - as the SDK's
        if is_public_by_name_only(pinned_ip) and rp_ssrf._ssrf_protection_enabled():  # noqa: SLF001 - the operator's switch
            raise rp_ssrf.SSRFError(f"host resolves to non-public address {pinned_ip}")
        super().__init__(pinned_ip, **kwargs)

    def _pin(self, pool: Any, url: str) -> Any:  # noqa: ANN401
        pool = super()._pin(pool, url)
        is_https = isinstance(pool, urllib3.HTTPSConnectionPool)
        pool.ConnectionCls = _WatchedHTTPSConnection if is_https else _WatchedHTTPConnection
        return pool


def is_public_by_name_only(address: str) -> bool:
    """Say whether an address that looks public leads to one that need not be."""
    with suppress(ValueError):
        parsed = ipaddress.ip_address(address.partition("%")[0])
        return any(parsed in network for network in _NOT_PUBLIC)
    return False


def install() -> None:
    """Have the SDK's `safe_get` dial through our adapter."""
    rp_ssrf.PinnedIPAdapter = _Adapter
