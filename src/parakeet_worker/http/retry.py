"""How long to wait before a request is sent again."""

import math
import random
import time
from email.utils import parsedate_to_datetime


def backoff_s(attempt: int, first_s: float, longest_s: float = math.inf) -> float:
    """Return the seconds to wait after a failed attempt when the server names no time.

    The wait doubles with each attempt and is shortened at random by up to half, so that requests that failed together
    are not repeated together.

    Args:
        attempt: Number of the failed attempt, from 1.
        first_s: Longest wait after the first attempt, in seconds.
        longest_s: Longest wait after any attempt, in seconds.
    """
    return min(longest_s, first_s * 2.0 ** (attempt - 1)) * random.uniform(0.5, 1.0)  # noqa: S311 - no secret


def retry_after_s(value: str | None) -> float | None:
    """Return the seconds to wait by a `Retry-After` header, which holds seconds or a date (RFC 9110, 10.2.3).

    Args:
        value: The header's value, or None if the response has none.

    Returns:
        Seconds from now, at least 0, or None if the header is missing or malformed.
    """
    if value is None:
        return None
    if value.strip().isdecimal():
        return float(value)
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except (ValueError, OverflowError):
        return None
