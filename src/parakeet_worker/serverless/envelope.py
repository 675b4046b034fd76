"""The envelope of every answer, and the form in which RunPod's SDK and the platform take it."""

import json
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from parakeet_worker.errors import Code, JobError
from parakeet_worker.job.request import Action, schema

Envelope = dict[str, Any]

StoreEnvelope = Callable[[object, Envelope], Awaitable[str | None]]
"""Puts an answer, by its job's id, where its caller can download it. Returns the address, or None if that failed."""


def success(action: Action, fields: Mapping[str, Any]) -> Envelope:
    """Return the envelope of a result, with the time if the action's schema has a `timestamp`.

    Args:
        action: What was carried out.
        fields: The fields of its response.
    """
    envelope: Envelope = {"status": "success", **fields}
    if "timestamp" in schema(action)["properties"]:
        envelope |= _time_fields()
    return envelope


def failure(error: JobError, *, refresh_worker: bool = False) -> Envelope:
    """Return the envelope of a failure, in the SDK's form.

    The SDK moves `error` to job level, marks the job FAILED, and takes `refresh_worker` out. `message`, the same text,
    stays in `output`, which is all that some clients show.

    Args:
        error: What went wrong.
        refresh_worker: Whether to ask the platform for a new worker. A failed device always asks for one.
    """
    envelope: Envelope = {
        "status": "error",
        "error": error.message,
        "message": error.message,
        "code": error.code.value,
        **_time_fields(),
    }
    if refresh_worker or error.code is Code.DEVICE_FAILED:
        envelope["refresh_worker"] = True
    return envelope


def internal_failure() -> Envelope:
    """Return the envelope of a fault of the worker's own, whose details the caller is not told."""
    return failure(JobError(Code.INTERNAL_ERROR, "the worker failed to process the job; try again"))


def is_last(envelope: Envelope) -> bool:
    """Return whether the worker is to be replaced after this answer."""
    return bool(envelope.get("refresh_worker"))


def as_result(envelope: Envelope) -> bytes:
    """Return the JSON that the platform takes: `error` and `stopPod` stand beside `output`, as the SDK puts them.

    Raises:
        TypeError: The envelope holds a value that JSON does not have.
        ValueError: It holds a number that JSON does not have, or is circular.
        RecursionError: It is nested too deeply.
    """
    output = {name: value for name, value in envelope.items() if name not in ("error", "refresh_worker")}
    result: dict[str, Any] = {"output": output}
    if error := envelope.get("error"):
        result["error"] = error
    if is_last(envelope):
        result["stopPod"] = True
    return json.dumps(result, ensure_ascii=False, allow_nan=False).encode()


def _time_fields() -> Envelope:
    """Return the present UTC time with six digits of microseconds, in two forms.

    `timestamp` is `2026-02-13T10:30:00.000000`, which other programs may take for local time. `created_at` ends in `Z`.
    """
    now = datetime.now(UTC).replace(tzinfo=None).isoformat(timespec="microseconds")
    return {"timestamp": now, "created_at": f"{now}Z"}
