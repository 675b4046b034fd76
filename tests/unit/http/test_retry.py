"""How long a client waits before it asks again."""

import time
from email.utils import formatdate
from typing import Any

import pytest

from parakeet_worker.http.retry import backoff_s, retry_after_s


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("0", 0),
        (" 120 ", 120),
        ("9" * 400, float("inf")),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 0),
        ("-1", None),
        ("1.5", None),
        ("soon", None),
        ("", None),
        ("Wed, 21 Oct 99999 07:28:00 GMT", None),
        (None, None),
    ],
)
def test_what_a_server_asks(value: Any, seconds: Any) -> None:
    assert retry_after_s(value) == seconds


def test_a_date() -> None:
    assert retry_after_s(formatdate(time.time() + 60, usegmt=True)) == pytest.approx(60, abs=2)


def test_waits_grow_and_differ() -> None:
    waits = [[backoff_s(attempt, 5, 60) for _ in range(100)] for attempt in range(1, 8)]
    for longest, sample in zip((5, 10, 20, 40, 60, 60, 60), waits, strict=True):
        assert longest / 2 <= min(sample) < max(sample) <= longest
