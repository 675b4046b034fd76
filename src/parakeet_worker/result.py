"""The fields of a transcription's result, in a size that the platform takes."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from parakeet_worker.model.hypothesis import Hypothesis
from parakeet_worker.model.timestamps import Span, align

Fields = dict[str, Any]

# A character in JSON is 6 bytes at most, as an entry of timestamps less than 80 with its times.
_MOST_BYTES_A_CHARACTER = 250

_LARGEST_FIRST = {"char": "character", "word": "word", "segment": "segment"}
"""The levels of timestamps, as fields and as callers know them."""


@dataclass(frozen=True)
class Recording:
    """What is said of the audio itself.

    Attributes:
        duration: Its length in seconds.
        sample_rate: The file's, in hertz.
    """

    duration: float
    sample_rate: int


def build_result(
    hypothesis: Hypothesis, recording: Recording, processing_time: float, *, timestamps: bool, max_bytes: int
) -> Fields:
    """Return the fields of a result, without `status` and `timestamp`.

    Where they would be more than `max_bytes` as JSON, characters are left out of the timestamps, then words, then all,
    and a `notice` says so.

    Args:
        hypothesis: What was heard.
        recording: What it was heard in.
        processing_time: Seconds since the job was taken.
        timestamps: Whether they are wanted.
        max_bytes: Largest result.
    """
    result: Fields = {
        "text": hypothesis.text,
        "duration": _milliseconds(recording.duration) or 0.001,
        "processing_time": _milliseconds(processing_time),
        "sample_rate": recording.sample_rate,
    }
    if timestamps:
        aligned = align(hypothesis.text, hypothesis.tokens, recording.duration)
        result["timestamps"] = {
            "word": [_entry("word", span) for span in aligned.words],
            "segment": [_entry("segment", span) for span in aligned.segments],
            "char": [_entry("char", span) for span in aligned.chars],
        }
    return _that_fits(result, max_bytes)


def reductions(fields: Mapping[str, Any]) -> Iterator[Fields]:
    """Yield a result without the timestamps of characters, then without those of words, then without any.

    Each has a `notice` that says so. Of a result without timestamps there are none.
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
    """Return a result, or the first of its reductions that has `max_bytes` at most as JSON, or the last."""
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
    """Round to milliseconds: the model's own resolution is 80 of them."""
    return round(seconds, 3)
