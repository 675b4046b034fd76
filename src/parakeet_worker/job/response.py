"""Building the response of a transcription, and fitting it into the size limit of the platform."""

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from parakeet_worker.asr.alignment import Span, align, mean_confidence
from parakeet_worker.asr.types import Hypothesis
from parakeet_worker.job.captions import captions
from parakeet_worker.job.request import Request

Fields = dict[str, Any]

# Upper bound of the bytes of JSON per character of the text: the character itself and its entries in the timestamps.
_MOST_BYTES_A_CHARACTER = 250

# Entries of a list whose JSON is written at a time: ten milliseconds.
_MOST_ENTRIES = 5_000

_LARGEST_FIRST = {"char": "character", "word": "word", "segment": "segment"}
"""The levels of timestamps, largest in bytes first: the field, and its name in the notice."""


_NOTICE = "the {} are left out: with them the result would be larger than the platform takes"
_NOTICE_OF_URL = "; the whole result is at result_url"


@dataclass(frozen=True)
class Recording:
    """The fields of the response that describe the audio.

    Attributes:
        duration: Length in seconds.
        sample_rate: Sample rate of the file, in hertz.
    """

    duration: float
    sample_rate: int


def build_response(
    request: Request,
    hypothesis: Hypothesis,
    recording: Recording,
    processing_time: float,
    segment_pause: float = math.inf,
) -> Fields:
    """Return the fields of a response, without `status` and the time.

    Args:
        request: What the caller asked for.
        hypothesis: The transcript.
        recording: The audio.
        processing_time: Seconds since the job was taken.
        segment_pause: A pause of more seconds ends a segment.
    """
    result: Fields = {
        "text": hypothesis.text,
        "duration": _rounded(recording.duration) or 0.001,
        "processing_time": _rounded(processing_time),
        "sample_rate": recording.sample_rate,
    }
    if request.timestamps or request.captions or request.has_confidence:
        aligned = align(hypothesis.text, hypothesis.tokens, recording.duration, segment_pause)
        if request.timestamps:
            spans = {"word": aligned.words, "segment": aligned.segments, "char": aligned.chars}
            result["timestamps"] = {
                level: [_entry(level, span) for span in spans[level]] for level in request.timestamps
            }
        if request.captions:
            result["captions"] = captions(aligned.words, recording.duration, request.captions)
        if request.has_confidence:
            # Nothing was said of which the model could have been uncertain.
            confidence = mean_confidence(aligned.words)
            result["confidence"] = 1.0 if confidence is None else _rounded(confidence)
    return result


def with_address(fields: Mapping[str, Any], url: str | None) -> Fields:
    """Return a response with the address of the whole of it, which the notices of its reductions mention.

    Args:
        fields: The response.
        url: The address; without one the response stays as it is.
    """
    return {**fields, "result_url": url} if url else dict(fields)


def fit(response: Fields, max_bytes: int) -> Fields:
    """Return a response, or the first of its `reductions` that has `max_bytes` as JSON at most, or the last of them."""
    if len(response["text"]) * _MOST_BYTES_A_CHARACTER < max_bytes:
        return response
    for smaller in [response, *reductions(response)]:
        if _bytes(smaller) <= max_bytes:
            break
    return smaller


def reductions(fields: Mapping[str, Any]) -> Iterator[Fields]:
    """Yield a response without the timestamps of characters, then without those of words, and so on.

    Each has a `notice` that says what it lacks, and where that is, if there is a `result_url`. The last one has neither
    timestamps nor captions. Nothing is yielded for a response that has neither.
    """
    smaller, left_out = dict(fields), []
    notice = _NOTICE + (_NOTICE_OF_URL if "result_url" in fields else "")
    for level, name in _LARGEST_FIRST.items():
        if level in smaller.get("timestamps", {}):
            smaller["timestamps"] = {key: spans for key, spans in smaller["timestamps"].items() if key != level}
            left_out.append(name)
            yield smaller | {"notice": notice.format(f"{' and '.join(left_out)} timestamps")}
    if smaller.pop("captions", None) is not None:
        named = f"{' and '.join(left_out)} timestamps and the captions" if left_out else "captions"
        yield smaller | {"notice": notice.format(named)}


def json_pieces(value: Any) -> Iterator[bytes]:  # noqa: ANN401 - whatever JSON holds
    """Yield the JSON of a response in pieces.

    `json.dumps()` takes a second for the timestamps of hours, in which it lets no other thread of the process run.
    """
    if isinstance(value, Mapping) and value:
        before = "{"
        for name, part in value.items():
            yield f"{before}{json.dumps(name, ensure_ascii=False)}: ".encode()
            yield from json_pieces(part)
            before = ", "
        yield b"}"
    elif isinstance(value, list) and len(value) > _MOST_ENTRIES:
        yield b"["
        for start in range(0, len(value), _MOST_ENTRIES):
            part = json.dumps(value[start : start + _MOST_ENTRIES], ensure_ascii=False, allow_nan=False)
            yield f"{', ' if start else ''}{part[1:-1]}".encode()
        yield b"]"
    else:
        yield json.dumps(value, ensure_ascii=False, allow_nan=False).encode()


def _bytes(value: Any) -> int:  # noqa: ANN401
    return sum(map(len, json_pieces(value)))


def _entry(kind: str, span: Span) -> Fields:
    entry: Fields = {"start": _rounded(span.start), "end": _rounded(span.end), kind: span.text}
    if span.confidence is not None:
        entry["confidence"] = _rounded(span.confidence)
    return entry


def _rounded(value: float) -> float:
    """Round seconds to milliseconds, or a confidence to as many digits. The model times to 80 ms, an encoder frame."""
    return round(value, 3)
