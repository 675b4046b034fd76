"""Building the response of a transcription, within the size limit of the platform."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from parakeet_worker.asr.alignment import Span, align
from parakeet_worker.asr.types import Hypothesis
from parakeet_worker.job.request import Request

Fields = dict[str, Any]

# Upper bound of the bytes of JSON per character of the text: the character itself and its entries in the timestamps.
_MOST_BYTES_A_CHARACTER = 250

_LARGEST_FIRST = {"char": "character", "word": "word", "segment": "segment"}
"""The levels of timestamps, largest in bytes first: the field, and its name in the notice."""


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
    request: Request, hypothesis: Hypothesis, recording: Recording, processing_time: float, max_bytes: int
) -> Fields:
    """Return the fields of a response, without `status` and `timestamp`.

    If they are larger than `max_bytes`, characters are left out of the timestamps, then words, then segments, and a
    `notice` says so.

    Args:
        request: What the caller asked for.
        hypothesis: The transcript.
        recording: The audio.
        processing_time: Seconds since the job was taken.
        max_bytes: Largest response as JSON, in bytes.
    """
    result: Fields = {
        "text": hypothesis.text,
        "duration": _milliseconds(recording.duration) or 0.001,
        "processing_time": _milliseconds(processing_time),
        "sample_rate": recording.sample_rate,
    }
    if request.timestamps:
        aligned = align(hypothesis.text, hypothesis.tokens, recording.duration)
        result["timestamps"] = {
            "word": [_entry("word", span) for span in aligned.words],
            "segment": [_entry("segment", span) for span in aligned.segments],
            "char": [_entry("char", span) for span in aligned.chars],
        }
    return _that_fits(result, max_bytes)


def reductions(fields: Mapping[str, Any]) -> Iterator[Fields]:
    """Yield a response without the timestamps of characters, then without those of words, then without any.

    Each has a `notice` that says so. Nothing is yielded for a response without timestamps.
    """
    levels = dict(fields.get("timestamps", {}))
    for level in _LARGEST_FIRST:
        if levels.pop(level, None) is not None:
            left_out = " and ".join(name for key, name in _LARGEST_FIRST.items() if key not in levels)
            notice = (
                f"the {left_out} timestamps are left out: with them the result would be larger than the platform takes"
            )
            yield {**fields, "timestamps": dict(levels), "notice": notice}


def _that_fits(result: Fields, max_bytes: int) -> Fields:
    """Return a response, or the first of its reductions that has `max_bytes` as JSON at most, or the last of them."""
    if len(result["text"]) * _MOST_BYTES_A_CHARACTER < max_bytes:
        return result
    for smaller in [result, *reductions(result)]:
        if _bytes(smaller) <= max_bytes:
            break
    return smaller


def _bytes(value: Any) -> int:  # noqa: ANN401 - whatever JSON holds
    return len(json.dumps(value, ensure_ascii=False).encode())


def _entry(kind: str, span: Span) -> Fields:
    return {"start": _milliseconds(span.start), "end": _milliseconds(span.end), kind: span.text}


def _milliseconds(seconds: float) -> float:
    """Round to milliseconds. The model's resolution is 80 ms, an encoder frame."""
    return round(seconds, 3)
