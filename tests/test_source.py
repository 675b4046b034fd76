"""Downloads from a real server on loopback, and data: URLs."""

import base64
import gzip
import socket
import threading
import time

import pytest

from parakeet_worker.audio.abort import Abort, Aborted
from parakeet_worker.audio.source import DownloadLimits, open_audio
from parakeet_worker.errors import Code, JobError

LIMITS = DownloadLimits(max_bytes=100_000, timeout_s=5)


def fetch(url: str, limits: DownloadLimits = LIMITS, abort: Abort | None = None) -> bytes:
    with open_audio(url, limits, abort or Abort()) as file:
        return file.read()


def refusal(url: str, limits: DownloadLimits = LIMITS) -> JobError:
    with pytest.raises(JobError) as raised:
        fetch(url, limits)
    return raised.value


def stalls(server) -> threading.Event:
    """Have the server stop after the headers of `/stall`, until the event is set."""
    released = threading.Event()

    def stall(handler):
        handler.send_response(200)
        handler.send_header("Content-Length", "100")
        handler.end_headers()
        handler.wfile.flush()
        released.wait(20)

    server.routes["/stall"] = stall
    return released


@pytest.mark.usefixtures("private_addresses")
class TestDownload:
    def test_the_body_arrives_and_nothing_is_left(self, server, scratch):
        body = bytes(range(256)) * 200
        with open_audio(server.serve("/a.wav", body), LIMITS, Abort()) as file:
            assert file.read() == body
            assert not list(scratch.iterdir())
        assert file.closed

    def test_nothing_is_left_of_a_failure(self, server, scratch):
        refusal(server.serve("/big", b"x" * 200_000))
        assert not list(scratch.iterdir())

    @pytest.mark.parametrize(
        ("status", "said"),
        [(404, "404 Not Found"), (403, "403 Forbidden"), (500, "500 Internal Server Error"), (599, "599")],
    )
    def test_http_errors(self, server, status, said):
        error = refusal(server.serve("/a.wav", b"secret page", status))
        assert (error.code, error.message) == (Code.DOWNLOAD_FAILED, f"Failed to download audio: {said}")

    def test_redirects_are_followed(self, server):
        server.serve("/to", b"there")
        assert fetch(server.serve("/from", b"", 302, Location="/to")) == b"there"

    def test_redirects_in_a_loop(self, server):
        error = refusal(server.serve("/loop", b"", 302, Location="/loop"))
        assert error.message == "Failed to download audio: too many redirects"

    def test_a_redirect_to_a_file(self, server):
        error = refusal(server.serve("/a", b"", 302, Location="file:///etc/passwd"))
        assert "redirected to something other than" in error.message

    def test_declared_too_large(self, server):
        error = refusal(server.serve("/big", b"x" * 100_001))
        assert error.code is Code.AUDIO_TOO_LARGE
        assert "0.1 MB" in error.message

    def test_too_large_without_a_declared_length(self, server):
        def endless(handler):
            handler.send_response(200)
            handler.end_headers()
            while True:
                handler.wfile.write(b"x" * 10_000)

        server.routes["/endless"] = endless
        assert refusal(server.url + "/endless").code is Code.AUDIO_TOO_LARGE

    def test_a_body_that_ends_too_early(self, server):
        error = refusal(server.serve("/cut", b"x" * 100, Content_Length="1000"))
        assert error.code is Code.DOWNLOAD_FAILED
        assert "before the end" in error.message

    def test_a_server_that_stalls(self, server):
        released = stalls(server)
        started = time.monotonic()
        assert refusal(server.url + "/stall", DownloadLimits(1000, 1)).code is Code.DOWNLOAD_TIMEOUT
        assert time.monotonic() - started < 5
        released.set()

    def test_a_server_that_drips(self, server):
        def drip(handler):
            handler.send_response(200)
            handler.send_header("Content-Length", "1000")
            handler.end_headers()
            for _ in range(100):
                handler.wfile.write(b"x")
                handler.wfile.flush()
                time.sleep(0.1)

        server.routes["/drip"] = drip
        started = time.monotonic()
        assert refusal(server.url + "/drip", DownloadLimits(10_000, 1)).code is Code.DOWNLOAD_TIMEOUT
        assert time.monotonic() - started < 3

    def test_a_cancelled_job_stops_waiting_for_its_server(self, server):
        released = stalls(server)
        abort = Abort()
        threading.Timer(0.3, abort.set).start()
        started = time.monotonic()
        with pytest.raises((Aborted, JobError)):
            fetch(server.url + "/stall", DownloadLimits(1000, 20), abort)
        assert time.monotonic() - started < 3
        released.set()

    def test_a_body_in_chunks(self, server):
        def chunked(handler):
            handler.protocol_version = "HTTP/1.1"
            handler.send_response(200)
            handler.send_header("Transfer-Encoding", "chunked")
            handler.end_headers()
            handler.wfile.write(b"5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n")

        server.routes["/chunked"] = chunked
        assert fetch(server.url + "/chunked") == b"hello world"

    def test_a_compressed_body(self, server):
        assert fetch(server.serve("/gzip", gzip.compress(b"hello"), Content_Encoding="gzip")) == b"hello"
        error = refusal(server.serve("/bad", b"no gzip", Content_Encoding="gzip"))
        assert error.message == "Failed to download audio: the server's compression of the file is damaged"

    def test_a_large_error_page_is_an_error_page(self, server):
        assert refusal(server.serve("/gone", b"x" * 200_000, 404)).message.endswith("404 Not Found")

    @pytest.mark.parametrize("location", ["http://[bad", "http://127.0.0.1:99999/", "ftp://h/exceeds size cap"])
    def test_redirects_to_nothing_usable(self, server, location):
        error = refusal(server.serve("/a", b"", 302, Location=location))
        assert "redirected" in error.message

    def test_malformed_headers_are_not_logged_with_the_url(self, server, capfd):
        def malformed(handler):
            handler.wfile.write(b"HTTP/1.1 404 Not Found\r\nbroken header line\r\nContent-Length: 0\r\n\r\n")

        server.routes["/a"] = malformed
        refusal(server.url + "/a?signature=secret")
        assert "secret" not in "".join(capfd.readouterr())

    def test_nobody_listens(self):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        error = refusal(f"http://127.0.0.1:{port}/a.wav")
        assert error.code is Code.DOWNLOAD_FAILED
        assert str(port) not in error.message

    def test_a_name_that_does_not_resolve(self):
        assert "resolved" in refusal("http://no-such-host.invalid/a.wav").message

    @pytest.mark.parametrize(
        "url",
        ["http:", "http://", "http:///a.wav", "http://[", "http://h:99999/", "http://h:x/", "http://" + "a" * 300 + "/",
         "http://a..b/", "http://\x00/", "http://exa mple.com/", "https:/a"],
    )  # fmt: skip
    def test_malformed_urls(self, url):
        assert refusal(url).code in (Code.INVALID_URL, Code.DOWNLOAD_FAILED)
        assert "a" * 300 not in refusal(url).message

    def test_no_message_shows_the_query(self, server):
        error = refusal(server.url + "/gone?signature=secret")
        assert "secret" not in error.message
        assert "127.0.0.1" not in error.message


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "localhost", "[::1]", "169.254.169.254", "10.0.0.1", "2130706433", "0x7f.1", "0.0.0.0"]
)
def test_addresses_that_are_not_public_are_refused(server, host):
    port = server.url.rpartition(":")[2]
    assert refusal(f"http://{host}:{port}/a.wav").code is Code.URL_NOT_ALLOWED
    assert not server.requests


def test_a_proxy_is_the_operators_fault(monkeypatch):
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
def test_data_urls(url):
    assert fetch(url) == PAYLOAD


@pytest.mark.parametrize(
    "url",
    ["data:", "data:audio/wav", "data:audio/wav,abc", "data:base64,AAAA", "data:;base64,A", "data:;base64,AAA!",
     "data:;base64,AA=A", "data:;base64,é", "data:;base64,\ud800AA", "data:;base64,AAAAA"],
)  # fmt: skip
def test_data_urls_that_are_none(url):
    assert refusal(url).code is Code.INVALID_URL


def test_a_data_url_that_is_too_large():
    big = base64.b64encode(b"x" * 100_001).decode()
    assert refusal(f"data:;base64,{big}").code is Code.AUDIO_TOO_LARGE


def test_an_empty_data_url_is_an_empty_file():
    assert fetch("data:;base64,") == b""
