"""Parsing RunPod's answer to a poll, so that one malformed job does not lose the others in it."""

import json
from typing import Any

import numpy as np

# Python's parser gives up between 900 and 1,000 levels. Nothing in a request is nested deeper than three.
_MAX_DEPTH = 64

# Longer integers are of no use here, and Python refuses those of over 4,300 digits.
_MAX_DIGITS = 300


def parse_jobs(body: bytes) -> Any:  # noqa: ANN401 - whatever JSON holds
    """Parse an answer. What is nested deeper than 64 levels is read as null where the whole is too deep for Python.

    The request schema has nothing as deep, so that the job is refused for it, and the others of its batch are not.

    Args:
        body: JSON.

    Raises:
        ValueError: It is not JSON.
    """
    try:
        return _parse(body)
    except RecursionError:
        return _parse(prune(body))


def _parse(body: bytes) -> Any:  # noqa: ANN401
    return json.loads(body.decode("utf-8", "replace"), parse_int=_integer)


def _integer(digits: str) -> int | float:
    return int(digits) if len(digits) <= _MAX_DIGITS else float(digits)


def prune(body: bytes, max_depth: int = _MAX_DEPTH) -> bytes:
    """Write null over every array and object that is nested deeper than `max_depth`, without recursion.

    Args:
        body: JSON.
        max_depth: Levels that stay.
    """
    # Escapes can only stand in strings, and are as long as what takes their place.
    symbols = np.frombuffer(body.replace(b"\\\\", b"  ").replace(b'\\"', b"  "), np.uint8)
    in_string = np.bitwise_xor.accumulate(symbols == ord('"'))
    opens = ((symbols == ord("[")) | (symbols == ord("{"))) & ~in_string
    closes = ((symbols == ord("]")) | (symbols == ord("}"))) & ~in_string
    depth = np.cumsum(opens.astype(np.int8) - closes.astype(np.int8), dtype=np.int32)
    is_deep = np.concatenate([[False], depth > max_depth, [False]])
    (edges,) = np.diff(is_deep).nonzero()
    kept, position = [], 0
    for start, end in edges.reshape(-1, 2).tolist():  # the bracket that closes is the byte at `end`
        kept += [body[position:start], b"null"]
        position = end + 1
    return b"".join([*kept, body[position:]])
