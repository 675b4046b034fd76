"""No spelling of an address that is not public is ever contacted."""

import contextlib
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from loopback import LoopbackServer
from parakeet_worker.audio.fetch.download import DownloadLimits
from parakeet_worker.audio.fetch.guard import is_public_by_sdk_only
from parakeet_worker.audio.fetch.source import open_audio
from parakeet_worker.cancellation import CancellationToken
from parakeet_worker.errors import Code, JobError

LIMITS = DownloadLimits(max_bytes=1_000, timeout_s=5, backoff_s=0.001)

HOSTS = [
    # Loopback, by every way to write it that some parser knows.
    "127.0.0.1",
    "127.1",
    "127.0.1",
    "127.0.0.2",
    "127.255.255.254",
    "2130706433",
    "0x7f000001",
    "0x7f.0.0.1",
    "0x7f.1",
    "0177.0.0.1",
    "0177.1",
    "017700000001",
    "00000177.0.0.1",
    "127.0.0.1.",
    "localhost",
    "localhost.",
    "LOCALHOST",
    "LocalHost.localdomain",
    "localhost.localdomain",
    "%6c%6f%63%61%6c%68%6f%73%74",
    "127%2e0%2e0%2e1",
    "①②⑦.⓪.⓪.①",
    "127。0。0。1",
    "１２７.0.0.1",
    "ⓛⓞⓒⓐⓛⓗⓞⓢⓣ",
    "0",
    "0.0.0.0",
    "0x0",
    "[::]",
    "[::1]",
    "[0:0:0:0:0:0:0:1]",
    "[0000::0001]",
    "[::ffff:127.0.0.1]",
    "[::ffff:7f00:1]",
    "[0:0:0:0:0:ffff:127.0.0.1]",
    "[::127.0.0.1]",
    "[::1%25lo]",
    "[fe80::1%25lo]",
    # Gateways to IPv4.
    "[64:ff9b::127.0.0.1]",
    "[64:ff9b::7f00:1]",
    "[64:ff9b:1::127.0.0.1]",
    "[2002:7f00:1::]",
    "[2002:a9fe:a9fe::]",
    "[2001:0:7f00:1::]",
    # Private and special networks.
    "10.0.0.1",
    "10.1",
    "172.16.0.1",
    "172.31.255.255",
    "192.168.0.1",
    "192.168.1",
    "100.64.0.1",
    "192.0.0.1",
    "198.18.0.1",
    "192.0.2.1",
    "224.0.0.1",
    "240.0.0.1",
    "255.255.255.255",
    "[fc00::1]",
    "[fd00:ec2::254]",
    "[fec0::1]",
    "[ff02::1]",
    "[2001:db8::1]",
    # Metadata services.
    "169.254.169.254",
    "169.254.170.2",
    "100.100.100.200",
    "0xa9fea9fe",
    "2852039166",
    "0251.0376.0251.0376",
    "[::ffff:169.254.169.254]",
    "metadata.google.internal",
    "metadata",
    "instance-data",
]

FORMS = [
    "http://example.com@127.0.0.1:{port}/",
    "http://127.0.0.1:{port}\\@example.com/",
    "http://example.com\\@127.0.0.1:{port}/",
    "http://127.0.0.1:{port}#@example.com/",
    "http://127.0.0.1:{port}?@example.com/",
    "http://user:password@localhost:{port}/",
    "HTTP://127.0.0.1:{port}/",
    "http:\\\\127.0.0.1:{port}/",
    "http:127.0.0.1:{port}/",
    "http:/127.0.0.1:{port}/",
    "http:///127.0.0.1:{port}/",
    "http://\t127.0.0.1:{port}/",
    "http://127.0.0.1\t:{port}/",
    "http://127.0.0.1:{port}\n/",
    "http://[127.0.0.1]:{port}/",
    "http://127.0.0.1%00.example.com:{port}/",
    "http://127.0.0.1 .example.com:{port}/",
]


@pytest.fixture(scope="module")
def listener() -> Iterator[Any]:
    """Listens on loopback, in both families where there are, and keeps who came."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        came: list[Any] = []
        port = listening.getsockname()[1]
        sockets = [listening]
        if socket.has_ipv6:
            with contextlib.suppress(OSError):
                sockets.append(socket.create_server(("::1", port), family=socket.AF_INET6))

        def listen(each: socket.socket) -> None:
            while True:
                try:
                    connected, peer = each.accept()
                except OSError:
                    return
                came.append(peer)
                connected.close()

        for each in sockets:
            threading.Thread(target=listen, args=(each,), daemon=True).start()
        yield port, came
        for each in sockets[1:]:
            each.close()


def refused(url: str) -> JobError:
    with pytest.raises(JobError) as raised, open_audio(url, LIMITS, CancellationToken()):
        pass
    return raised.value


def test_there_are_enough() -> None:
    assert len(set(HOSTS + FORMS)) >= 60


@pytest.mark.parametrize("host", HOSTS)
def test_an_address_that_is_not_public_is_refused(host: Any, listener: Any) -> None:
    port, came = listener
    error = refused(f"http://{host}:{port}/latest/meta-data/")
    # A name that this machine cannot resolve could not have been contacted either.
    is_unknown = "could not be resolved" in error.message
    assert error.code in (Code.URL_NOT_ALLOWED, Code.INVALID_URL) or is_unknown, error.message
    assert host not in error.message
    assert came == []


@pytest.mark.parametrize("form", FORMS)
def test_a_url_that_parsers_read_differently_is_refused(form: Any, listener: Any) -> None:
    port, came = listener
    error = refused(form.format(port=port))
    assert error.code in (Code.URL_NOT_ALLOWED, Code.INVALID_URL, Code.DOWNLOAD_FAILED)
    assert came == []


@pytest.mark.parametrize(
    "target", ["http://127.0.0.1:{port}/", "http://[::1]:{port}/", "//127.0.0.1:{port}/", "http://2130706433:{port}/"]
)
def test_a_redirect_to_one_is_refused(
    target: Any, listener: Any, server: LoopbackServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first hop plays a public server: its name resolves to an address that counts as public here."""
    port, came = listener
    url = server.serve("/", b"", 302, Location=target.format(port=port)).replace("127.0.0.1", "public.example")
    resolve = socket.getaddrinfo

    def public(host: Any, *args: Any, **kwargs: Any) -> Any:
        return resolve("127.0.0.1" if host == "public.example" else host, *args, **kwargs)

    checked: list[str] = []

    def is_safe(address: Any) -> Any:
        checked.append(address)
        return len(checked) == 1

    monkeypatch.setattr(socket, "getaddrinfo", public)
    monkeypatch.setattr("runpod.serverless.utils.rp_ssrf.is_safe_address", is_safe)
    assert refused(url).code is Code.URL_NOT_ALLOWED
    assert len(server.requests) == 1
    assert came == []


def test_a_name_that_resolves_twice_differently_is_asked_once(listener: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    port, came = listener
    answers = iter(["203.0.113.77", "127.0.0.1", "127.0.0.1"])
    dialled = []

    def resolve(host: Any, port: Any, *_: Any, **__: Any) -> Any:
        if host == "rebind.example":
            host = next(answers)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (host, port))]

    def dial(self, address: Any) -> None:  # type: ignore[no-untyped-def]
        dialled.append(address[0])
        raise ConnectionRefusedError

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    monkeypatch.setattr(socket.socket, "connect", dial)
    monkeypatch.setattr("runpod.serverless.utils.rp_ssrf.is_safe_address", lambda address: address != "127.0.0.1")
    refused(f"http://rebind.example:{port}/")
    assert "127.0.0.1" not in dialled
    assert came == []


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("64:ff9b::1.2.3.4", True),
        ("2002:102:304::", True),
        ("2001::1", True),
        ("fec0::1", True),
        ("2606:4700::1", False),
        ("1.1.1.1", False),
        ("x", False),
    ],
)
def test_addresses_that_are_public_by_name_only(address: Any, expected: Any) -> None:
    assert is_public_by_sdk_only(address) is expected
