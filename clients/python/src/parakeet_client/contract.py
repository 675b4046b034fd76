"""What is sent and what comes back: the options of a request, the transcript, and the failure."""

import base64
import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NotRequired, Required, Self, TypedDict

# An `http:`, `https:` or `data:` URL, a file of this machine, or the bytes of a file.
Source = str | os.PathLike[str] | bytes

Level = Literal["word", "segment", "char"]
Format = Literal["srt", "vtt"]

# The largest requests that RunPod documents, in bytes. It does not say whether a MB is a million bytes: this is safe.
MAX_RUN_BYTES = 10_000_000
MAX_RUNSYNC_BYTES = 20_000_000
# Room for what is sent beside the audio.
_OTHER_BYTES = 100_000

# How often a request is sent again, by the code of its failure. What has another code fails again if it is unchanged.
RETRIES: Mapping[str, int] = {
    "worker_busy": 5,
    "device_failed": 3,
    "model_unavailable": 3,
    "download_timeout": 1,
    "out_of_memory": 1,
    "internal_error": 1,
    "timed_out": 1,
    "expired": 1,
}
# What this client could not do for the time being; it has been tried several times already.
_UNREACHED = frozenset({"unreachable", "result_unavailable"})


class CaptionLimits(TypedDict, total=False):
    """The format of captions, and limits other than the usual ones: docs/api.md describes them."""

    format: Required[Format]
    max_line: int
    max_lines: int
    min_duration: float
    max_duration: float
    max_speed: float
    min_gap: float


class BoostedTerm(TypedDict):
    """A term that the recording may contain, with its weight; 1 is the usual one."""

    term: str
    boost: NotRequired[float]


class Options(TypedDict, total=False):
    """What a request may ask for.

    Attributes:
        timestamps: Whether times of words, segments and characters are wanted, or a list of those that are.
        segment_pause: Pause that ends a segment, in seconds.
        captions: Format of captions, or an object with the format and other limits.
        confidence: Whether the model's confidence is wanted.
        keyterms: Names and terms that the recording may contain: up to 100, each of up to 60 characters.
    """

    timestamps: bool | Sequence[Level]
    segment_pause: float
    captions: Format | CaptionLimits
    confidence: bool
    keyterms: Sequence[str | BoostedTerm]


class ModelInfo(TypedDict):
    """What the worker says of its model; schemas/model_info.json describes each field."""

    status: Literal["success"]
    model: str
    parameters: str
    architecture: str
    supported_formats: list[str]
    sample_rate: str
    max_duration: str
    max_pass_seconds: float
    max_request_duration: str
    max_request_seconds: float
    features: list[str]
    license: str
    version: str
    engine: Literal["plain", "nemo"]
    device: str
    precision: Literal["float32", "bfloat16", "float16"]


class TranscriptionError(Exception):
    """A recording that was not transcribed.

    Attributes:
        code: A code of the worker (see docs/api.md, Failures), or one of this client:

            - `failed`: the job failed, and RunPod did not pass the worker's code on.
            - `cancelled`, `timed_out`: RunPod says so of the job.
            - `expired`: RunPod knows no such job, or does not keep its result any longer.
            - `timeout`: the time that the caller set is over. The job is cancelled.
            - `stopped`: the caller stopped waiting.
            - `unreadable_file`, `request_too_large`: the file was not sent.
            - `unauthorized`, `unknown_endpoint`, `request_refused`: RunPod refused the request.
            - `unreachable`: no connection, or RunPod was not able to answer.
            - `result_unavailable`: the job is done, and its result could not be fetched from the bucket.
            - `unexpected_answer`: the answer is none of this worker.
        message: What was wrong, for people.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(code, message)
        self.code = code
        self.message = message

    def __str__(self) -> str:
        return f"{self.code}: {self.message}"

    @property
    def is_retryable(self) -> bool:
        """Whether the same request may succeed later."""
        return self.code in RETRIES or self.code in _UNREACHED


@dataclass(frozen=True)
class Span:
    """A word, a segment or a character: its times in seconds, and the model's confidence (0 to 1) if asked for."""

    text: str
    start: float
    end: float
    confidence: float | None = None


@dataclass(frozen=True)
class Transcript:
    """What the worker made of a recording. What was not asked for is `None`.

    Attributes:
        text: The transcript; empty if there is no speech.
        duration: Length of the audio in seconds.
        processing_time: Seconds that the worker took: download, decoding and recognition.
        sample_rate: Sample rate of the file that was sent, in hertz.
        created_at: When the answer was made, in ISO 8601.
        words: The words of `text`.
        segments: The sentences of `text`, or shorter parts.
        chars: The characters of `text`.
        captions: The text of a caption file.
        confidence: The model's confidence in the whole, 0 to 1.
        notice: What was left out because the result would have been too large.
        answer: The whole answer, as the worker gave it.
    """

    text: str
    duration: float
    processing_time: float
    sample_rate: int
    created_at: str
    words: tuple[Span, ...] | None = None
    segments: tuple[Span, ...] | None = None
    chars: tuple[Span, ...] | None = None
    captions: str | None = None
    confidence: float | None = None
    notice: str | None = None
    answer: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def from_answer(cls, answer: Mapping[str, Any]) -> Self:
        """Return the transcript of a worker's answer.

        Raises:
            TranscriptionError: It is none (`unexpected_answer`).
        """
        times = answer.get("timestamps", {})

        def spans(level: Level) -> tuple[Span, ...] | None:
            if level not in times:
                return None
            return tuple(Span(e[level], e["start"], e["end"], e.get("confidence")) for e in times[level])

        try:
            return cls(
                text=answer["text"],
                duration=answer["duration"],
                processing_time=answer["processing_time"],
                sample_rate=answer["sample_rate"],
                # Older workers give only the documented form, which has no offset and is UTC.
                created_at=answer.get("created_at") or f"{answer['timestamp']}Z",
                words=spans("word"),
                segments=spans("segment"),
                chars=spans("char"),
                captions=answer.get("captions"),
                confidence=answer.get("confidence"),
                notice=answer.get("notice"),
                answer=answer,
            )
        except (KeyError, TypeError, AttributeError):
            raise TranscriptionError("unexpected_answer", "The endpoint's answer is not a transcript.") from None


def is_url(source: Source) -> bool:
    """Return whether a source is sent as it is, because it is a URL."""
    # The worker refuses the schemes that it does not know, with a message.
    return isinstance(source, str) and re.match(r"data:|[a-z][a-z0-9+.-]*://", source, re.IGNORECASE) is not None


def build_request(source: Source, options: Options) -> bytes:
    """Return the body of a request.

    Raises:
        TypeError: An option does not exist.
        TranscriptionError: The file cannot be read (`unreadable_file`), or is too large for RunPod
            (`request_too_large`).
    """
    if unknown := sorted(set(options) - set(Options.__annotations__)):
        raise TypeError(f"unknown option {unknown[0]!r}; the options are {', '.join(Options.__annotations__)}")
    sent: dict[str, object] = {"audio_url": source} if is_url(source) else {"audio_base64": _in_base64(source)}
    body = json.dumps({"input": sent | options}).encode()
    if len(body) > MAX_RUNSYNC_BYTES:
        raise TranscriptionError("request_too_large", _too_large(len(body) * 3 // 4))
    return body


def _in_base64(source: Source) -> str:
    if isinstance(source, bytes):
        content = source
    else:
        path = Path(source)
        try:
            size = path.stat().st_size
            if size > (MAX_RUNSYNC_BYTES - _OTHER_BYTES) * 3 // 4:
                raise TranscriptionError("request_too_large", _too_large(size))
            content = path.read_bytes()
        except OSError as error:
            raise TranscriptionError("unreadable_file", f"{path.name} cannot be read: {error.strerror}.") from None
    return base64.b64encode(content).decode()


def _too_large(size: int) -> str:
    most = (MAX_RUNSYNC_BYTES - _OTHER_BYTES) * 3 // 4
    return (
        f"The audio has {size / 1e6:.1f} MB, and RunPod takes {most / 1e6:.1f} MB in a request: "
        "put it where the worker can download it, and give its URL."
    )
