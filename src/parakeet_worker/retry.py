"""How long to wait before a request is sent again."""

import math
import random
import time
from email.utils import parsedate_to_datetime


def backoff_s(attempt: int, first_s: float, longest_s: float = math.inf) -> float:
    """Return how many seconds to wait after an attempt that failed, where the server does not say.

    The wait doubles with each attempt, and a random part of up to half is taken off it: requests that failed together
    should not come back together.

    Args:
        attempt: Which attempt failed, counted from 1.
        first_s: Longest wait after the first one, in seconds.
        longest_s: Longest wait after any, in seconds.
    """
    return min(longest_s, first_s * 2.0 ** (attempt - 1)) * random.uniform(0.5, 1.0)  # noqa: S311 - no secret


def retry_after_s(value: str | None) -> float | None:
    """Return how many seconds a `Retry-After` header asks to wait (RFC 9110, 10.2.3): a number, or until a date.

    Args:
        value: The header, or None where there is none.

    Returns:
        Seconds from now on, not below zero, or None where the header is missing or malformed.
    """
    if value is None:
        return None
    if value.strip().isdecimal():
        return float(value)
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except (ValueError, OverflowError):
        return None
