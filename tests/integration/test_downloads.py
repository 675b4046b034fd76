"""Downloads from a real server on loopback, and data: URLs."""

import asyncio
import base64
import gzip
import shutil
import socket
import ssl
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from audio_files import encode, tone
from bad_servers import silent, unreachable
from loopback import LoopbackServer
from parakeet_worker.audio.fetch.download import DownloadLimits
from parakeet_worker.audio.fetch.scratch import DiskBudget
from parakeet_worker.audio.fetch.source import open_audio, open_base64
from parakeet_worker.cancellation import CancellationToken, JobCancelledError
from parakeet_worker.errors import Code, JobError
from parakeet_worker.job.threads import Threads

LIMITS = DownloadLimits(max_bytes=100_000, timeout_s=5, backoff_s=0.01)


def fetch(url: str, limits: DownloadLimits = LIMITS, cancellation: CancellationToken | None = None) -> bytes:
    with open_audio(url, limits, cancellation or CancellationToken()) as file:
        return file.read()


def refusal(url: str, limits: DownloadLimits = LIMITS) -> JobError:
    with pytest.raises(JobError) as raised:
        fetch(url, limits)
    return raised.value


def stalls(server: LoopbackServer) -> threading.Event:
    """Have the server stop after the headers of `/stall`, until the event is set."""
    released = threading.Event()

    def stall(handler: Any) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", "100")
        handler.end_headers()
        handler.wfile.flush()
        released.wait(20)

    server.routes["/stall"] = stall
    return released


def drips(handler: Any) -> None:
    """A body that would take ten seconds and more."""
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    for _ in range(100):
        handler.wfile.write(b"x")
        handler.wfile.flush()
        time.sleep(0.1)


@pytest.mark.usefixtures("private_addresses")
class TestDownload:
    def test_the_body_arrives_and_nothing_is_left(self, server: LoopbackServer, scratch: Path) -> None:
        body = bytes(range(256)) * 200
        with open_audio(server.serve("/a.wav", body), LIMITS, CancellationToken()) as file:
            assert file.read() == body
            assert not list(scratch.iterdir())
        assert file.closed

    def test_nothing_is_left_of_a_failure(self, server: LoopbackServer, scratch: Path) -> None:
        refusal(server.serve("/big", b"x" * 200_000))
        assert not list(scratch.iterdir())

    @pytest.mark.parametrize(
        ("status", "said"),
        [(404, "404 Not Found"), (403, "403 Forbidden"), (500, "500 Internal Server Error"), (599, "599")],
    )
    def test_http_errors(self, server: LoopbackServer, status: Any, said: Any) -> None:
        error = refusal(server.serve("/a.wav", b"secret page", status))
        assert (error.code, error.message) == (Code.DOWNLOAD_FAILED, f"Failed to download audio: {said}")

    def test_redirects_are_followed(self, server: LoopbackServer) -> None:
        server.serve("/to", b"there")
        assert fetch(server.serve("/from", b"", 302, Location="/to")) == b"there"

    def test_redirects_in_a_loop(self, server: LoopbackServer) -> None:
        error = refusal(server.serve("/loop", b"", 302, Location="/loop"))
        assert error.message == "Failed to download audio: too many redirects"

    def test_a_redirect_to_a_file(self, server: LoopbackServer) -> None:
        error = refusal(server.serve("/a", b"", 302, Location="file:///etc/passwd"))
        assert "redirected to something other than" in error.message

    def test_declared_too_large(self, server: LoopbackServer) -> None:
        error = refusal(server.serve("/big", b"x" * 100_001))
        assert error.code is Code.AUDIO_TOO_LARGE
        assert "0.1 MB" in error.message

    def test_too_large_without_a_declared_length(self, server: LoopbackServer) -> None:
        def endless(handler: Any) -> None:
            handler.send_response(200)
            handler.end_headers()
            while True:
                handler.wfile.write(b"x" * 10_000)

        server.routes["/endless"] = endless
        assert refusal(server.url + "/endless").code is Code.AUDIO_TOO_LARGE

    def test_a_body_that_ends_too_early(self, server: LoopbackServer) -> None:
        error = refusal(server.serve("/cut", b"x" * 100, Content_Length="1000"))
        assert error.code is Code.DOWNLOAD_FAILED
        assert "before the end" in error.message

    def test_a_server_that_stalls(self, server: LoopbackServer) -> None:
        released = stalls(server)
        started = time.monotonic()
        assert refusal(server.url + "/stall", DownloadLimits(1000, 1)).code is Code.DOWNLOAD_TIMEOUT
        assert time.monotonic() - started < 5
        released.set()

    def test_a_server_that_drips(self, server: LoopbackServer) -> None:
        server.routes["/drip"] = drips
        started = time.monotonic()
        assert refusal(server.url + "/drip", DownloadLimits(10_000, 1)).code is Code.DOWNLOAD_TIMEOUT
        assert time.monotonic() - started < 8

    def test_a_cancelled_job_stops_waiting_for_its_server(self, server: LoopbackServer) -> None:
        released = stalls(server)
        cancellation = CancellationToken()
        threading.Timer(0.3, cancellation.cancel).start()
        started = time.monotonic()
        with pytest.raises((JobCancelledError, JobError)):
            fetch(server.url + "/stall", DownloadLimits(1000, 20), cancellation)
        assert time.monotonic() - started < 10
        released.set()

    def test_a_body_in_chunks(self, server: LoopbackServer) -> None:
        def chunked(handler: Any) -> None:
            handler.protocol_version = "HTTP/1.1"
            handler.send_response(200)
            handler.send_header("Transfer-Encoding", "chunked")
            handler.end_headers()
            handler.wfile.write(b"5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n")

        server.routes["/chunked"] = chunked
        assert fetch(server.url + "/chunked") == b"hello world"

    def test_a_compressed_body(self, server: LoopbackServer) -> None:
        assert fetch(server.serve("/gzip", gzip.compress(b"hello"), Content_Encoding="gzip")) == b"hello"
        error = refusal(server.serve("/bad", b"no gzip", Content_Encoding="gzip"))
        assert error.message == "Failed to download audio: the server's compression of the file is damaged"

    def test_a_large_error_page_is_an_error_page(self, server: LoopbackServer) -> None:
        assert refusal(server.serve("/gone", b"x" * 200_000, 404)).message.endswith("404 Not Found")

    @pytest.mark.parametrize("location", ["http://[bad", "http://127.0.0.1:99999/", "ftp://h/exceeds size cap"])
    def test_redirects_to_nothing_usable(self, server: LoopbackServer, location: Any) -> None:
        error = refusal(server.serve("/a", b"", 302, Location=location))
        assert "redirected" in error.message

    def test_malformed_headers_are_not_logged_with_the_url(self, server: LoopbackServer, capfd: Any) -> None:
        def malformed(handler: Any) -> None:
            handler.wfile.write(b"HTTP/1.1 404 Not Found\r\nbroken header line\r\nContent-Length: 0\r\n\r\n")

        server.routes["/a"] = malformed
        refusal(server.url + "/a?signature=secret")
        assert "secret" not in "".join(capfd.readouterr())

    def test_nobody_listens(self) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        error = refusal(f"http://127.0.0.1:{port}/a.wav")
        assert error.code is Code.DOWNLOAD_FAILED
        assert str(port) not in error.message

    def test_a_name_that_takes_too_long_and_does_not_resolve(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def resolve(*_: Any, **__: Any) -> None:
            time.sleep(0.3)
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

        monkeypatch.setattr(socket, "getaddrinfo", resolve)
        assert "resolved" in refusal("http://slow.example/a.wav", DownloadLimits(1_000, 0.2)).message

    def test_a_name_that_does_not_resolve(self) -> None:
        assert "resolved" in refusal("http://no-such-host.invalid/a.wav").message

    @pytest.mark.parametrize(
        "url",
        ["http:", "http://", "http:///a.wav", "http://[", "http://h:99999/", "http://h:x/", "http://" + "a" * 300 + "/",
         "http://a..b/", "http://\x00/", "http://exa mple.com/", "https:/a"],
    )  # fmt: skip
    def test_malformed_urls(self, url: Any) -> None:
        assert refusal(url).code in (Code.INVALID_URL, Code.DOWNLOAD_FAILED)
        assert "a" * 300 not in refusal(url).message

    @pytest.mark.parametrize(
        "host",
        ["a" * 64 + ".example", "a..b", ".example", "é" * 64 + ".example", ".".join(["a" * 60] * 5), "a\0b",
         "*.example", "a b", "%00"],
    )  # fmt: skip
    def test_a_host_that_cannot_be_is_the_urls_fault_or_the_redirects(self, server: LoopbackServer, host: Any) -> None:
        error = refusal(f"http://{host}/")
        assert (error.code, error.message) == (Code.INVALID_URL, "audio_url is not a valid URL")
        if host.isascii() and host.isprintable():
            error = refusal(server.serve("/a", b"", 302, Location=f"http://{host}/"))
            assert error.code is Code.DOWNLOAD_FAILED

    def test_no_message_shows_the_query(self, server: LoopbackServer) -> None:
        error = refusal(server.url + "/gone?signature=secret")
        assert "secret" not in error.message
        assert "127.0.0.1" not in error.message


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "localhost", "[::1]", "169.254.169.254", "10.0.0.1", "2130706433", "0x7f.1", "0.0.0.0"]
)
def test_addresses_that_are_not_public_are_refused(server: LoopbackServer, host: Any) -> None:
    port = server.url.rpartition(":")[2]
    assert refusal(f"http://{host}:{port}/a.wav").code is Code.URL_NOT_ALLOWED
    assert not server.requests


def test_a_proxy_is_the_operators_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    error = refusal("https://example.com/a.wav")
    assert error.code is Code.INTERNAL_ERROR
    assert "proxy" in error.message


PAYLOAD = bytes(range(256))
BASE64 = base64.b64encode(PAYLOAD).decode()


@pytest.mark.parametrize(
    "url",
    [
        f"data:audio/wav;base64,{BASE64}",
        f"data:;base64,{BASE64}",
        f"DATA:audio/x-wav;codecs=1;BASE64,{BASE64}",
        f"data:audio/wav;base64,{BASE64.rstrip('=')}",
        f"data:audio/wav;base64,{BASE64[:100]}\n{BASE64[100:]} ",
        f"data:audio/wav;base64,{BASE64.replace('+', '%2B').replace('/', '%2F').replace('=', '%3D')}",
    ],
)
def test_data_urls(url: Any) -> None:
    assert fetch(url) == PAYLOAD


@pytest.mark.parametrize(
    "url",
    ["data:", "data:audio/wav", "data:audio/wav,abc", "data:base64,AAAA", "data:;base64,A", "data:;base64,AAA!",
     "data:;base64,AA=A", "data:;base64,é", "data:;base64,\ud800AA", "data:;base64,AAAAA", "data:;base64,AAAA%",
     "data:;base64,AAA%4", "data:;base64,AAAA%4g", "data:;base64,AAA%%341", "data:;base64,AAA%2541",
     "data:;base64,A%C3%A9"],
)  # fmt: skip
def test_data_urls_that_are_none(url: Any) -> None:
    assert refusal(url).code is Code.INVALID_URL


def test_a_data_url_that_is_too_large() -> None:
    big = base64.b64encode(b"x" * 100_001).decode()
    assert refusal(f"data:;base64,{big}").code is Code.AUDIO_TOO_LARGE


def test_escapes_at_the_ends_of_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    for size in range(4, 40):
        monkeypatch.setattr("parakeet_worker.audio.fetch.source.BLOCK_BYTES", size)
        assert fetch("data:;base64," + "".join(f"%{ord(char):02x}" for char in BASE64)) == PAYLOAD
        assert fetch("data:;base64," + BASE64.replace("A", "%41").replace("/", "%2F")) == PAYLOAD


def test_20_mb_of_escapes_are_cheap(private_addresses: Any) -> None:
    """In a process of its own, whose peak of memory is its own."""
    code = """
import base64, os, time
from parakeet_worker.cancellation import CancellationToken
from parakeet_worker.audio.fetch.download import DownloadLimits
from parakeet_worker.audio.fetch.source import open_audio
data = os.urandom(4_990_000)
url = "data:;base64,%" + base64.b64encode(data).hex("%")

def memory(name):
    return int(open("/proc/self/status").read().split(name)[1].split()[0]) / 1000

with open("/proc/self/clear_refs", "w") as file:
    file.write("5")  # the peak is that from now on: proc(5)
before, spent = memory("VmRSS:"), []
for _ in range(3):
    began = time.process_time()
    with open_audio(url, DownloadLimits(1_000_000_000, 5), CancellationToken()) as file:
        assert file.read() == data
    spent.append(time.process_time() - began)
print(min(spent), memory("VmHWM:") - before)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    spent, mb = map(float, done.stdout.split())
    assert spent < 0.5
    assert mb < 150


def test_an_endless_data_url_is_not_read() -> None:
    assert refusal("data:;base64," + " " * 600_000).code is Code.AUDIO_TOO_LARGE


def test_an_empty_data_url_is_an_empty_file() -> None:
    assert fetch("data:;base64,") == b""


@pytest.mark.parametrize(
    "text",
    [
        BASE64,
        BASE64.rstrip("="),
        f"{BASE64[:100]}\r\n{BASE64[100:]} \n",
        f"data:audio/wav;base64,{BASE64}",
        f"DATA:;base64,{BASE64.replace('+', '%2B')}",
    ],
)
def test_base64(text: Any) -> None:
    assert open_base64(text, LIMITS).read() == PAYLOAD


@pytest.mark.parametrize(
    "text", ["A", "AAA!", "AA=A", "é", "\ud800AA", "AAAAA", "AA%41", "a.wav", "https://h/a.wav", "-_-_", "data:,x",
             "data:;base64,A"],
)  # fmt: skip
def test_base64_that_is_none(text: Any) -> None:
    with pytest.raises(JobError) as refused:
        open_base64(text, LIMITS)
    assert refused.value.code is Code.INVALID_AUDIO_BASE64


@pytest.mark.parametrize("text", [base64.b64encode(b"x" * 100_001).decode(), " " * 600_000])
def test_base64_that_is_too_large(text: Any) -> None:
    for given in (text, f"data:;base64,{text}"):
        with pytest.raises(JobError) as refused:
            open_base64(given, LIMITS)
        assert refused.value.code is Code.AUDIO_TOO_LARGE


def in_turn(server: LoopbackServer, path: str, *answers: Any) -> str:
    """Answer the requests for a path one after another, the last answer again and again."""
    left = list(answers)

    def answer(handler: Any) -> None:
        (left.pop(0) if len(left) > 1 else left[0])(handler)

    server.routes[path] = answer
    return server.url + path


def says(status: int, body: bytes = b"", **headers: str) -> Any:
    def answer(handler: Any) -> None:
        handler.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()
        handler.wfile.write(body)

    return answer


def breaks_off(handler: Any) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    handler.wfile.write(b"x" * 100)


def resets(handler: Any) -> None:
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
    handler.connection.close()


@pytest.mark.usefixtures("private_addresses")
class TestRetries:
    @pytest.mark.parametrize("first", [says(429), says(500), says(503), breaks_off, resets])
    def test_what_fails_for_a_moment_is_tried_again(self, server: LoopbackServer, first: Any) -> None:
        url = in_turn(server, "/a", first, first, says(200, b"audio"))
        assert fetch(url) == b"audio"
        assert len(server.requests) == 3

    def test_not_for_ever(self, server: LoopbackServer) -> None:
        error = refusal(in_turn(server, "/a", says(503)))
        assert error.message == "Failed to download audio: 503 Service Unavailable"
        assert len(server.requests) == 4

    @pytest.mark.parametrize("status", [400, 401, 403, 404, 410, 416])
    def test_what_will_not_change_is_not(self, server: LoopbackServer, status: Any) -> None:
        refusal(in_turn(server, "/a", says(status)))
        assert len(server.requests) == 1

    def test_the_server_may_say_when(self, server: LoopbackServer) -> None:
        url = in_turn(server, "/a", says(429, Retry_After="1"), says(200, b"audio"))
        started = time.monotonic()
        assert fetch(url) == b"audio"
        assert 0.9 < time.monotonic() - started < 3

    def test_a_date_that_has_passed_is_at_once(self, server: LoopbackServer) -> None:
        url = in_turn(server, "/a", says(503, Retry_After="Wed, 21 Oct 2015 07:28:00 GMT"), says(200, b"audio"))
        assert fetch(url, DownloadLimits(100, 5, backoff_s=60)) == b"audio"

    def test_later_than_the_deadline_is_never(self, server: LoopbackServer) -> None:
        started = time.monotonic()
        error = refusal(in_turn(server, "/a", says(429, Retry_After="3600")))
        assert error.message == "Failed to download audio: 429 Too Many Requests"
        assert time.monotonic() - started < 4

    def test_a_cancelled_job_does_not_wait_for_the_next_attempt(self, server: LoopbackServer) -> None:
        cancellation = CancellationToken()
        threading.Timer(0.2, cancellation.cancel).start()
        started = time.monotonic()
        with pytest.raises(JobCancelledError):
            fetch(in_turn(server, "/a", says(429, Retry_After="60")), DownloadLimits(100_000, 100), cancellation)
        assert time.monotonic() - started < 20


def seconds_to_cancel(url: str) -> float:
    """Cancel a download that hangs, and return how long it takes to let go."""
    cancellation, cancelled = CancellationToken(), []

    def cancel() -> None:
        cancelled.append(time.monotonic())
        cancellation.cancel()

    threading.Timer(0.3, cancel).start()
    with pytest.raises(JobCancelledError):
        fetch(url, DownloadLimits(1_000, 20), cancellation)
    return time.monotonic() - cancelled[0]


def drips_headers(handler: Any) -> None:
    for _ in range(200):
        handler.wfile.write(b"X: y\r\n" if _ else b"HTTP/1.1 200 OK\r\n")
        handler.wfile.flush()
        time.sleep(0.1)


@pytest.mark.usefixtures("private_addresses")
class TestWaiting:
    def test_headers_that_drip_end_with_the_deadline(self, server: LoopbackServer) -> None:
        server.routes["/drip"] = drips_headers
        started = time.monotonic()
        assert refusal(server.url + "/drip", DownloadLimits(1_000, 1)).code is Code.DOWNLOAD_TIMEOUT
        assert time.monotonic() - started < 10

    def test_a_cancelled_job_does_not_wait_for_headers(self, server: LoopbackServer) -> None:
        server.routes["/drip"] = drips_headers
        cancellation = CancellationToken()
        threading.Timer(0.3, cancellation.cancel).start()
        started = time.monotonic()
        with pytest.raises(JobCancelledError):
            fetch(server.url + "/drip", DownloadLimits(1_000, 100), cancellation)
        assert time.monotonic() - started < 10

    def test_a_cancelled_job_does_not_wait_for_a_connection(self) -> None:
        with unreachable() as address:
            assert seconds_to_cancel(f"http://{address}/") < 10

    def test_nor_one_that_is_cancelled_before_it_connects(self) -> None:
        cancellation = CancellationToken()
        cancellation.cancel()
        with unreachable() as address, pytest.raises(JobCancelledError):
            fetch(f"http://{address}/", LIMITS, cancellation)

    def test_a_server_that_cannot_be_reached(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("parakeet_worker.audio.fetch.download.STALL_TIMEOUT_S", 1)
        with unreachable() as address:
            error = refusal(f"http://{address}/")
        assert error.code is Code.DOWNLOAD_TIMEOUT
        assert error.message == "Failed to download audio: the server could not be reached within 1 seconds"

    @pytest.mark.parametrize("scheme", ["http", "https"])
    def test_a_server_that_says_nothing(self, scheme: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("parakeet_worker.audio.fetch.download.STALL_TIMEOUT_S", 1)
        with silent() as address:
            error = refusal(f"{scheme}://{address}/")
        assert error.code is Code.DOWNLOAD_TIMEOUT
        assert error.message == "Failed to download audio: the server sent nothing for 1 seconds"

    def test_a_server_that_stops_in_the_middle(self, server: LoopbackServer, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("parakeet_worker.audio.fetch.download.STALL_TIMEOUT_S", 1)
        released = stalls(server)
        assert (
            refusal(server.url + "/stall").message == "Failed to download audio: the server sent nothing for 1 seconds"
        )
        released.set()

    @pytest.mark.parametrize("hangs", [unreachable, silent])
    def test_the_whole_time_that_is_allowed(self, hangs: Any) -> None:
        with hangs() as address:
            error = refusal(f"http://{address}/", DownloadLimits(1_000, 1))
        assert error.code is Code.DOWNLOAD_TIMEOUT
        assert error.message == "Failed to download audio: it took longer than the 1 seconds that are allowed"

    def test_a_server_that_is_too_slow_is_given_up(
        self, server: LoopbackServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("parakeet_worker.audio.fetch.download.RATE_INTERVAL_S", 0.3)
        server.routes["/slow"] = drips
        error = refusal(server.url + "/slow", DownloadLimits(1_000_000, 20))
        assert error.code is Code.DOWNLOAD_TIMEOUT
        assert error.message == "Failed to download audio: the server sends less than 1000 bytes a second"

    def test_downloads_share_the_disk(self, server: LoopbackServer, scratch: Path) -> None:
        disk = DiskBudget(100_000)
        limits = DownloadLimits(90_000, 5, disk, backoff_s=0.01)
        url = server.serve("/a", b"x" * 60_000)
        with open_audio(url, limits, CancellationToken()) as file:
            assert len(file.read()) == 60_000
            error = refusal(url, limits)
            assert error.message.endswith("no room for it on its disk at the moment; send it again")
        assert len(fetch(url, limits)) == 60_000
        refusal(in_turn(server, "/b", breaks_off), limits)
        disk.take(100_000)  # raises where not all of it was given back
        assert not list(scratch.iterdir())

    def test_credentials_are_used_and_stay_with_their_host(self, server: LoopbackServer) -> None:
        server.serve("/to", b"audio")
        elsewhere = server.url.replace("127.0.0.1", "localhost")
        server.serve("/from", b"", 302, Location=f"{elsewhere}/to")
        assert fetch(server.url.replace("http://", "http://user:secret@") + "/from") == b"audio"
        (first, second) = [headers for _, headers in server.requests]
        assert first["Authorization"] == "Basic " + base64.b64encode(b"user:secret").decode()
        assert "Authorization" not in second

    def test_a_compressed_bomb_ends_at_the_limit(self, server: LoopbackServer) -> None:
        bomb = gzip.compress(bytes(50_000_000))
        error = refusal(server.serve("/bomb", bomb, Content_Encoding="gzip"))
        assert error.code is Code.AUDIO_TOO_LARGE


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """A certificate of localhost and its key, in one file."""
    path = tmp_path / "localhost.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    command += ["-addext", "subjectAltName=DNS:localhost", "-keyout", "-", "-out", "-"]
    path.write_bytes(subprocess.run(command, capture_output=True, check=True).stdout)
    return path


@pytest.mark.usefixtures("private_addresses")
@pytest.mark.skipif(shutil.which("openssl") is None, reason="certificates are made by openssl")
class TestHttps:
    @pytest.fixture
    def url(self, server: LoopbackServer, certificate: Any) -> str:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        server.http.socket = context.wrap_socket(server.http.socket, server_side=True)
        return server.url.replace("http://127.0.0.1", "https://localhost")

    def test_a_trusted_server_is_read(
        self, server: LoopbackServer, url: Any, certificate: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
        server.serve("/a", b"audio")
        assert fetch(url + "/a") == b"audio"

    def test_another_is_not(self, server: LoopbackServer, url: Any) -> None:
        server.serve("/a", b"audio")
        error = refusal(url + "/a")
        assert error.message == "Failed to download audio: no secure connection to the server could be made"
        assert server.requests == []

    def test_a_cancelled_job_does_not_wait_for_a_handshake(self) -> None:
        with silent() as address:
            assert seconds_to_cancel(f"https://{address}/") < 10

    def test_a_handshake_that_never_comes_ends_with_the_deadline(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as silent:
            started = time.monotonic()
            error = refusal(f"https://127.0.0.1:{silent.getsockname()[1]}/", DownloadLimits(1_000, 1))
        assert error.code is Code.DOWNLOAD_TIMEOUT
        assert time.monotonic() - started < 10


def repeats(*parts: bytes) -> Any:
    """Answer with the first parts once, and with the last one for ever."""

    def answer(handler: Any) -> None:
        for part in parts[:-1]:
            handler.wfile.write(part)
        block = parts[-1] * (65_536 // len(parts[-1]))
        while True:
            handler.wfile.write(block)

    return answer


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
EMPTY_BLOCK = b"\0\0\0\xff\xff"  # of deflate, RFC 1951, 3.2.4


@pytest.mark.usefixtures("private_addresses")
class TestEndlessAnswers:
    """A server that says more and more costs little before it is given up."""

    LIMITS = DownloadLimits(2_000_000, 30, backoff_s=0.01)

    @pytest.mark.parametrize(
        ("parts", "said"),
        [
            ([b"HTTP/1.1 100 Continue\r\n\r\n"], "the server sends no answer"),
            ([b"HTTP/1.1 102 Processing\r\nA: b\r\n\r\n"], "the server sends no answer"),
            ([b"HTTP/1.1 200 OK\r\n", b"A: b\r\n"], "the connection to the server failed"),
            ([b"HTTP/1.1 200 OK\r\nA: ", b"b"], "the connection to the server failed"),
            ([CHUNKED, b"1\r\nx\r\n"], "the server sends its answer in too small pieces"),
            ([CHUNKED, b"1;a=b\r\nx\r\n"], "the server sends its answer in too small pieces"),
            ([CHUNKED + b"1;a=", b"b"], "the connection closed before the end of the file"),
            ([CHUNKED, b"0"], "the connection closed before the end of the file"),
            ([CHUNKED + b"1\r\nx\r\n0\r\n", b"a: b\r\n"], "the server sends its answer in too small pieces"),
            (
                [CHUNKED + b"1\r\nx\r\n0\r\n", b"a: " + b"b" * 1_000 + b"\r\n"],
                "the server sends more than the file",
            ),
            (
                [
                    b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\n" + gzip.compress(b"")[:10],
                    EMPTY_BLOCK,
                ],
                "the server sends more than the file",
            ),
        ],
        ids=["100", "102", "headers", "header", "chunks", "extensions", "extension", "size", "trailers",
             "long-trailers", "empty-blocks"],
    )  # fmt: skip
    def test_is_given_up(self, server: LoopbackServer, parts: Any, said: Any) -> None:
        server.routes["/a"] = repeats(*parts)
        began = time.process_time()
        error = refusal(server.url + "/a", self.LIMITS)
        # The server's part of it is in this process too.
        assert time.process_time() - began < 2
        assert (error.code, error.message) == (Code.DOWNLOAD_FAILED, f"Failed to download audio: {said}")

    def test_the_body_of_a_redirect_is_not_read(self, server: LoopbackServer) -> None:
        server.serve("/to", b"there")
        head = b"HTTP/1.1 302 Found\r\nLocation: /to\r\n"
        for more in (b"", b"Content-Length: 1000000000\r\n", b"Transfer-Encoding: chunked\r\n"):
            server.routes["/from"] = repeats(head + more + b"\r\n", b"8\r\n12345678\r\n")
            began = time.process_time()
            assert fetch(server.url + "/from", self.LIMITS) == b"there"
            assert time.process_time() - began < 1

    def test_early_hints_are_passed_over(self, server: LoopbackServer) -> None:
        def hints(handler: Any) -> None:
            handler.wfile.write(b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n" * 2)
            says(200, b"audio")(handler)

        server.routes["/a"] = hints
        assert fetch(server.url + "/a") == b"audio"

    def test_many_small_chunks_are_a_file(self, server: LoopbackServer) -> None:
        server.routes["/a"] = repeats_once(CHUNKED, b"40\r\n" + b"x" * 64 + b"\r\n", 20_000, b"0\r\n\r\n")
        assert fetch(server.url + "/a", self.LIMITS) == b"x" * 64 * 20_000


def repeats_once(head: bytes, part: bytes, count: int, tail: bytes) -> Any:
    def answer(handler: Any) -> None:
        handler.wfile.write(head + part * count + tail)

    return answer


@pytest.mark.usefixtures("private_addresses")
class TestBesideOthers:
    """What hangs holds nothing that a good job needs."""

    def seconds_beside(self, worker: Any, urls: list[str], server: LoopbackServer) -> float:
        """Return how long a clip takes once jobs for the URLs have been cancelled."""
        good = server.serve("/good.wav", encode(tone(1.0)))

        async def answer(url: str) -> None:
            assert (await worker.answer({"input": {"audio_url": url}})).get("status") == "success"

        async def measure() -> float:
            await answer(good)
            jobs = [asyncio.create_task(worker.answer({"input": {"audio_url": url}})) for url in urls]
            await asyncio.sleep(0.5)
            for job in jobs:
                job.cancel()
            began = time.monotonic()
            await answer(good)
            return time.monotonic() - began

        return asyncio.run(measure())

    def test_cancelled_downloads_that_hang(self, worker: Any, server: LoopbackServer) -> None:
        with unreachable() as full, silent() as quiet:
            urls = [f"http://{full}/", f"http://{quiet}/", f"https://{quiet}/"] * 10
            assert self.seconds_beside(worker, urls, server) < 10

    def test_cancelled_look_ups_that_hang(
        self, worker: Any, server: LoopbackServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        released = threading.Event()
        resolve = socket.getaddrinfo

        def hang(host: Any, *args: Any, **kwargs: Any) -> Any:
            if host == "hangs.example":
                released.wait(20)
            return resolve(host, *args, **kwargs)

        monkeypatch.setattr(socket, "getaddrinfo", hang)
        try:
            assert self.seconds_beside(worker, ["http://hangs.example/"] * 30, server) < 10
        finally:
            released.set()

    def test_there_are_not_any_number_of_threads(self) -> None:
        released = threading.Event()
        threads = Threads("test", 2)
        answers = [threads.run(released.wait, 5) for _ in range(2)]
        with pytest.raises(JobError) as raised:
            threads.run(released.wait)
        assert raised.value.code is Code.WORKER_BUSY
        released.set()
        assert [answer.result(5) for answer in answers] == [True, True]
        assert threads.run(int, "3").result(5) == 3
        with pytest.raises(ValueError, match="invalid literal"):
            threads.run(int, "x").result(5)

    def test_a_system_without_threads(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def start(_: Any) -> None:
            raise RuntimeError("can't start new thread")

        monkeypatch.setattr(threading.Thread, "start", start)
        with pytest.raises(JobError) as raised:
            Threads("test", 1).run(int)
        assert raised.value.code is Code.WORKER_BUSY
