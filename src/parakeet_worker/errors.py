"""The failures that are reported to callers, and their stable codes."""

from enum import StrEnum


class Code(StrEnum):
    """The `code` of a failure. `schemas/error.json` documents each value."""

    MISSING_FIELD = "missing_field"
    INVALID_TYPE = "invalid_type"
    UNKNOWN_FIELD = "unknown_field"
    CONFLICTING_FIELDS = "conflicting_fields"
    UNKNOWN_ACTION = "unknown_action"
    INVALID_URL = "invalid_url"
    INVALID_AUDIO_BASE64 = "invalid_audio_base64"
    INVALID_TIMESTAMPS = "invalid_timestamps"
    INVALID_SEGMENT_PAUSE = "invalid_segment_pause"
    INVALID_CAPTIONS = "invalid_captions"
    INVALID_CONFIDENCE = "invalid_confidence"
    INVALID_KEYTERMS = "invalid_keyterms"
    UNSUPPORTED_OPTION = "unsupported_option"
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
    """A job failed. The worker returns the code and the message to the caller.

    The message is sent unchanged, so it must state what was wrong and what to send instead, and must not contain a
    path, host name or query string. An internal error behind it is set as the exception's `__cause__`.

    Args:
        code: Kind of failure.
        message: Text for the caller, without a full stop. Several faults are joined by semicolons.
    """

    def __init__(self, code: Code, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
