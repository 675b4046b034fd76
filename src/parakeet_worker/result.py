"""The fields of a transcription's result, in a size that the platform takes."""

import json
from dataclasses import dataclass
from typing import Any

from parakeet_worker.model.hypothesis import Hypothesis
from parakeet_worker.model.timestamps import Span, align

Fields = dict[str, Any]

# A character in JSON is 6 bytes at most, as an entry of timestamps less than 80 with its times.
_MOST_BYTES_A_CHARACTER = 250


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
        levels = {
            "word": [_entry("word", span) for span in aligned.words],
            "segment": [_entry("segment", span) for span in aligned.segments],
            "char": [_entry("char", span) for span in aligned.chars],
        }
        result |= _that_fit(result, levels, max_bytes)
    return result


def _that_fit(result: Fields, levels: dict[str, list[Fields]], max_bytes: int) -> Fields:
    if len(result["text"]) * _MOST_BYTES_A_CHARACTER < max_bytes:
        return {"timestamps": levels}
    sizes = {level: _bytes(entries) for level, entries in levels.items()}
    room = max_bytes - _bytes(result)
    left_out = []
    for level, plural in (("char", "character"), ("word", "word"), ("segment", "segment")):
        if sum(sizes.values()) <= room:
            break
        del sizes[level]
        left_out.append(plural)
    if not left_out:
        return {"timestamps": levels}
    said = " and ".join(left_out)
    return {
        "timestamps": {level: levels[level] for level in sizes},
        "notice": f"the {said} timestamps are left out: with them the result would be larger than the platform takes",
    }


def _bytes(value: Any) -> int:  # noqa: ANN401 - whatever JSON holds
    return len(json.dumps(value, ensure_ascii=False).encode())


def _entry(kind: str, span: Span) -> Fields:
    return {"start": _milliseconds(span.start), "end": _milliseconds(span.end), kind: span.text}


def _milliseconds(seconds: float) -> float:
    """Round to milliseconds: the model's own resolution is 80 of them."""
    return round(seconds, 3)
