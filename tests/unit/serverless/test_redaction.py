"""URLs in texts that others write to the log."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from parakeet_worker.serverless.redaction import redact
from runpod_platform import Platform, worker_process


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("nothing here: a/b?c=d 12:30", "nothing here: a/b?c=d 12:30"),
        ("on http://localhost:8000 (Press CTRL+C)", "on http://localhost:8000 (Press CTRL+C)"),
        ("refusing to fetch https://h.example/a.wav?sig=x through", "refusing to fetch https://h.example/… through"),
        ("proxy http://user:hunter2@10.0.0.1:3128: IP", "proxy http://10.0.0.1:3128: IP"),
        ("HTTPS://USER:p%40w@H?q=1", "HTTPS://H/…"),
        ("http://a@b@c.example/x", "http://c.example/…"),
        ("{'audio_url': 'https://h/a?b=c', 'x': 1}", "{'audio_url': 'https://h/…', 'x': 1}"),
        ('{"audio_url": "https://h/a?b=c"}', '{"audio_url": "https://h/…"}'),
        ("https://one/a https://two/b", "https://one/… https://two/…"),
        (
            "HTTPConnectionPool(host='h', port=1): Max retries exceeded with url: /v2/ping?key=abc (Caused by X)",
            "HTTPConnectionPool(host='h', port=1): Max retries exceeded with url: … (Caused by X)",
        ),
        ("{'audio_url': 'data:audio/wav;base64,UklGR+/='}", "{'audio_url': 'data:…'}"),
        ("{'audio_base64': 'UklGR+/=', 'x': 1}", "{'audio_base64': '…', 'x': 1}"),
        ("{'audio_base64': 'UklG\\nRR==', 'x': 1}", "{'audio_base64': '…', 'x': 1}"),
        ('{"audio_base64":"UklG\nR+/="}', '{"audio_base64":"…"}'),
        (r'{"message": "{\"audio_base64\": \"Ukl\\nGR\"}"}', r'{"message": "{\"audio_base64\": \"…\"}"}'),
        ("Request(audio_url='', audio_base64='UklGR', x=1)", "Request(audio_url='', audio_base64='…', x=1)"),
        ("{'audio_base64': 'UklGR\n...TRUNCATED 9 CHARACTERS...\nR+/='}", "{'audio_base64': '…'}"),
        ("audio_base64 must be a string", "audio_base64 must be a string"),
        ("the fields are audio_base64: a, 'b'", "the fields are audio_base64: a, 'b'"),
        ("data: 3, 4", "data: 3, 4"),
        ("the metadata: a,b", "the metadata: a,b"),
    ],
)
def test_texts(text: Any, expected: Any) -> None:
    assert redact(text) == expected
    assert redact(expected) == expected


@pytest.mark.parametrize(
    "piece",
    ["http://", "data:", "url: /", "https://a@", "https://a:b", "a" * 10, "audio_base64: '", "audio_base64='a\\"],
)
def test_long_texts_are_no_burden(piece: Any) -> None:
    began = time.process_time()
    redact(piece * 20_000)
    assert time.process_time() - began < 0.5


@pytest.fixture
def platform() -> Iterator[Any]:
    platform = Platform()
    yield platform
    platform.close()


def test_the_test_for_secrets_finds_one(platform: Platform, tmp_path: Path) -> None:
    script = tmp_path / "shows.py"
    script.write_text("import os; print(os.environ['SHOWN'])")
    shown = "http://user:hunter2@host/"
    with (
        pytest.raises(AssertionError, match="hunter2"),
        worker_process(platform, tmp_path / "log", script=script, SHOWN=shown) as process,
    ):
        process.wait(10)
    with worker_process(platform, tmp_path / "log", script=script, shows_secrets="the test", SHOWN=shown) as process:
        process.wait(10)


@pytest.mark.parametrize("arguments", [[], ["--test_input", "{}"], ["--rp_serve_api"]])
def test_a_proxy_ends_the_start(platform: Platform, tmp_path: Path, arguments: Any) -> None:
    proxy = "http://user:hunter2@127.0.0.1:9"
    with worker_process(platform, tmp_path / "log", *arguments, HTTPS_PROXY=proxy) as process:
        assert process.wait(30) == 1
    said = "parakeet-worker: HTTPS_PROXY is set, and nothing is downloaded through a proxy: unset it\n"
    assert (tmp_path / "log").read_text() == said
