"""The form of every answer: success or failure, with the time at which it was made."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from parakeet_worker.errors import Code, JobError

Envelope = dict[str, Any]


def utc_timestamp() -> str:
    """Return the present UTC time as `2026-02-13T10:30:00.000000`: six digits of microseconds, no offset."""
    return datetime.now(UTC).replace(tzinfo=None).isoformat(timespec="microseconds")


def success(fields: Mapping[str, Any]) -> Envelope:
    """Wrap the fields of an action's result."""
    return {"status": "success", **fields}


def failure(error: JobError, *, refresh_worker: bool = False) -> Envelope:
    """Wrap a failure. RunPod's SDK moves `error` to job level and marks the job FAILED.

    Args:
        error: What went wrong.
        refresh_worker: Whether to ask the platform for a new worker, as is always done when the device has failed. The
            SDK takes that field out.
    """
    envelope: Envelope = {
        "status": "error",
        "error": error.message,
        "code": error.code.value,
        "timestamp": utc_timestamp(),
    }
    if refresh_worker or error.code is Code.DEVICE_FAILED:
        envelope["refresh_worker"] = True
    return envelope


def internal_failure() -> Envelope:
    """Wrap a fault of the worker's own, of which the caller is told no more than that."""
    return failure(JobError(Code.INTERNAL_ERROR, "the worker failed to process the job; try again"))
