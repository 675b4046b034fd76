"""RunPod's guarded download, with checks for the addresses that its SDK misses.

No other module outside `serverless/` uses the SDK.

The SDK's `safe_get` resolves a name once, refuses addresses that are not public, connects to one that it has checked,
and does the same again for each redirect. `install()` makes it connect through our adapter.
"""

import ipaddress
import sys
from collections.abc import Mapping
from contextlib import AbstractContextManager, suppress
from typing import Any, cast

import requests
import urllib3
from runpod.serverless.utils import rp_ssrf

from parakeet_worker.audio.fetch.watchdog import WatchedHTTPConnection, WatchedHTTPSConnection

# IPv6 networks that are not public, but that the SDK allows. NAT64 (RFC 6052 and 8215), 6to4 (RFC 3056) and Teredo (RFC
# 4380) addresses contain an IPv4 address, which may be private, and gateways connect to that. The last network is that
# of the deprecated site-local addresses, which may still be in use (RFC 3879).
_NOT_PUBLIC = [
    ipaddress.ip_network(name) for name in ("64:ff9b::/96", "64:ff9b:1::/48", "2002::/16", "2001::/32", "fec0::/10")
]


RefusedAddressError: type[Exception] = rp_ssrf.SSRFError
"""Raised for an address that is not public. Its text has the reason."""


class _Adapter(rp_ssrf.PinnedIPAdapter):  # type: ignore[misc]  # the SDK is not typed
    """Checks an address that the SDK has allowed once more, and connects to it."""

    def __init__(self, pinned_ip: str, **kwargs: Any) -> None:  # noqa: ANN401 - as the SDK's
        if is_public_by_sdk_only(pinned_ip) and rp_ssrf._ssrf_protection_enabled():  # noqa: SLF001 - the operator's switch
            raise rp_ssrf.SSRFError(f"host resolves to non-public address {pinned_ip}")
        super().__init__(pinned_ip, **kwargs)

    def _pin(self, pool: Any, url: str) -> Any:  # noqa: ANN401
        pool = super()._pin(pool, url)
        is_https = isinstance(pool, urllib3.HTTPSConnectionPool)
        pool.ConnectionCls = WatchedHTTPSConnection if is_https else WatchedHTTPConnection
        return pool


def is_public_by_sdk_only(address: str) -> bool:
    """Return whether the SDK takes an address for public although it may lead to a private one."""
    with suppress(ValueError):
        parsed = ipaddress.ip_address(address.partition("%")[0])
        return any(parsed in network for network in _NOT_PUBLIC)
    return False


def install() -> None:
    """Make the SDK's `safe_get` connect through our adapter, in the whole process."""
    rp_ssrf.PinnedIPAdapter = _Adapter


def guarded_get(url: str, timeout_s: float, headers: Mapping[str, str]) -> AbstractContextManager[requests.Response]:
    """Send a GET request through the guard, and return the response, whose body is not read yet.

    Args:
        url: An `http:` or `https:` URL.
        timeout_s: Longest wait for a connection or for the next byte, in seconds.
        headers: Request headers.

    Raises:
        RefusedAddressError: The URL, or one that it redirects to, leads to an address that is not public.
        requests.RequestException: The request failed.
    """
    # The guard's own limit on the size would apply before the status is known.
    response = rp_ssrf.safe_get(url, timeout=timeout_s, headers=dict(headers), max_bytes=sys.maxsize)
    return cast("AbstractContextManager[requests.Response]", response)
