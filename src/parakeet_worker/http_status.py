"""The name of an HTTP status, by the standard: what a server calls it might be anything."""

from http import HTTPStatus


def describe_status(code: int) -> str:
    """Return a status as `404 Not Found`, or its number alone where the standard has no name for it."""
    try:
        return f"{code} {HTTPStatus(code).phrase}"
    except ValueError:
        return str(code)
