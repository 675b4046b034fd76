"""What RunPod's SDK's guarded download lacks: some addresses that are not public, and an end to every wait.

The SDK's `safe_get` resolves a name once, refuses addresses that are not public, connects to one that it has checked,
and does so again for each redirect. `install()` puts our adapter in the place of the one that it dials with.
"""

import ipaddress
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import urllib3
from runpod.serverless.utils import rp_ssrf

from parakeet_worker.audio.abort import Abort

# IPv6 networks that the SDK takes for public and that are not. The addresses of the first carry an IPv4 address, which
# may be any, that a gateway connects to: NAT64 (RFC 6052 and 8215), 6to4 (RFC 3056) and Teredo (RFC 4380). The last
# were private once and may still be in use as such (RFC 3879).
_NOT_PUBLIC = [
    ipaddress.ip_network(name) for name in ("64:ff9b::/96", "64:ff9b:1::/48", "2002::/16", "2001::/32", "fec0::/10")
]


class Expired(TimeoutError):  # noqa: N818 - what happened, not a mistake
    """The deadline has passed."""


class Watch:
    """Ends whatever a download waits for, connections and headers among them, when its time is up or its job is gone.

    Args:
        seconds: How long the download may take.
        abort: Is set when its job is gone.
    """

    def __init__(self, seconds: float, abort: Abort) -> None:
        self._deadline = time.monotonic() + seconds
        self._abort = abort
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self._timer = threading.Timer(seconds, self._cut)
        self._timer.daemon = True

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
        self._abort.check()
        if self.left <= 0:
            raise Expired

    def hold(self, connected: socket.socket) -> None:
        """Have this connection cut in time."""
        with self._lock:
            self._socket = connected
        self.check()

    @contextmanager
    def running(self) -> Iterator[None]:
        """Watch over what is done meanwhile, on this thread."""
        self._timer.start()
        _watches.current = self
        try:
            with self._abort.waking(self._cut):
                yield
        finally:
            _watches.current = None
            self._timer.cancel()

    def _cut(self) -> None:
        with self._lock, suppress(OSError):
            if self._socket:
                # Whoever reads from it reads its end.
                socket.socket.shutdown(self._socket, socket.SHUT_RDWR)


class _Watches(threading.local):
    current: Watch | None = None


_watches = _Watches()


class _Watched:
    """What our connections add to urllib3's."""

    timeout: Any
    sock: Any

    def connect(self) -> None:
        watch = _watches.current
        if watch:
            watch.check()
            # A name may have many addresses, none of which answers.
            self.timeout = min(self.timeout, watch.left) if isinstance(self.timeout, int | float) else watch.left
        super().connect()  # type: ignore[misc]
        if watch:
            watch.hold(self.sock)


class _WatchedHTTPConnection(_Watched, urllib3.connection.HTTPConnection):
    pass


class _WatchedHTTPSConnection(_Watched, urllib3.connection.HTTPSConnection):
    def _new_conn(self) -> socket.socket:
        # The handshake that follows waits for the server too.
        connected = super()._new_conn()
        if _watches.current:
            _watches.current.hold(connected)
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
