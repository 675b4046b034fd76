"""The failures that a caller is told about, and their stable codes."""

from enum import StrEnum


class Code(StrEnum):
    """The `code` of a failure. `schemas/error.json` says what each one means."""

    MISSING_FIELD = "missing_field"
    INVALID_TYPE = "invalid_type"
    UNKNOWN_FIELD = "unknown_field"
    UNKNOWN_ACTION = "unknown_action"
    INVALID_URL = "invalid_url"
    URL_NOT_ALLOWED = "url_not_allowed"
    DOWNLOAD_FAILED = "download_failed"
    DOWNLOAD_TIMEOUT = "download_timeout"
    AUDIO_TOO_LARGE = "audio_too_large"
    AUDIO_TOO_LONG = "audio_too_long"
    EMPTY_AUDIO = "empty_audio"
    UNSUPPORTED_FORMAT = "unsupported_format"
    CORRUPT_AUDIO = "corrupt_audio"
    OUT_OF_MEMORY = "out_of_memory"
    MODEL_UNAVAILABLE = "model_unavailable"
    DEVICE_FAILED = "device_failed"
    WORKER_BUSY = "worker_busy"
    RESULT_REFUSED = "result_refused"
    INTERNAL_ERROR = "internal_error"


class JobError(Exception):
    """A job that cannot be answered with a result.

    The message goes to the caller as it is: it says what was wrong and what to send instead, and holds no path, host
    name or query string. What happened inside is the exception's cause.

    Args:
        code: What kind of failure it is.
        message: What the caller reads: no full stop, several faults joined by semicolons.
    """

    def __init__(self, code: Code, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
