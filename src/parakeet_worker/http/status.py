"""Standard names of HTTP statuses. A server's own reason phrase is not shown, since it may be any text."""

from http import HTTPStatus


def describe_status(code: int) -> str:
    """Return a status as `404 Not Found`, or the number alone if the standard has no name for it."""
    try:
        return f"{code} {HTTPStatus(code).phrase}"
    except ValueError:
        return str(code)
