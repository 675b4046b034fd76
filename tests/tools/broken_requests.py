"""Requests that break the schema, each with the code and the message that its caller gets."""

import math
from typing import Any

URL = "https://example.com/a.wav"
FIELDS = (
    "(the fields are action, audio_url, audio_base64, timestamps, segment_pause, captions, confidence and keyterms)"
)
VALID: dict[str, Any] = {"audio_url": URL}
VTT: dict[str, Any] = {"format": "vtt"}
VISIBLE = "must have visible characters, and no control characters"
LIMITS = "(the fields are format, max_line, max_lines, min_duration, max_duration, max_speed and min_gap)"

# What is wrong with an option of a request that is valid without it.
OPTIONS: list[tuple[dict[str, Any], str, str]] = [
    ({"audio_base64": "AAAA"}, "conflicting_fields", "input must have audio_url or audio_base64, not both"),
    ({"timestamps": ["words"]}, "invalid_timestamps", 'timestamps[0] must be "word", "segment" or "char"'),
    ({"timestamps": ["word", "word"]}, "invalid_timestamps", "timestamps must not have an entry twice"),
    ({"timestamps": ["word", 5]}, "invalid_timestamps", "timestamps[1] must be a string"),
    ({"segment_pause": "1"}, "invalid_segment_pause", "segment_pause must be a number"),
    ({"segment_pause": True}, "invalid_segment_pause", "segment_pause must be a number"),
    ({"segment_pause": None}, "invalid_segment_pause", "segment_pause must be a number, not null"),
    ({"segment_pause": 0.09}, "invalid_segment_pause", "segment_pause must be at least 0.1"),
    ({"segment_pause": 31}, "invalid_segment_pause", "segment_pause must be at most 30"),
    ({"segment_pause": math.nan}, "invalid_segment_pause", "segment_pause has a number that is not finite"),
    ({"timestamps": ["word"] * 2_000}, "invalid_timestamps", "timestamps has more than 1000 values"),
    ({"captions": VTT | {"min_gap": math.inf}}, "invalid_captions", "captions has a number that is not finite"),
    ({"keyterms": ["a"] * 2_000}, "invalid_keyterms", "keyterms has more than 1000 values"),
    ({"keyterms": [[[]] * 2_000]}, "invalid_keyterms", "keyterms has more than 1000 values"),
    ({"language": ["en"] * 2_000}, "unknown_field", f'unknown field "language" {FIELDS}'),
    ({"language": [math.nan]}, "unknown_field", f'unknown field "language" {FIELDS}'),
    ({"captions": "ass"}, "invalid_captions", 'captions must be "srt" or "vtt"'),
    ({"captions": True}, "invalid_captions", 'captions must be "srt" or "vtt" or an object'),
    ({"captions": None}, "invalid_captions", 'captions must be "srt" or "vtt" or an object, not null'),
    ({"captions": {}}, "invalid_captions", "captions.format is required"),
    ({"captions": {"format": "txt"}}, "invalid_captions", 'captions.format must be "srt" or "vtt"'),
    ({"captions": VTT | {"x": 1}}, "invalid_captions", f'unknown field "x" in captions {LIMITS}'),
    ({"captions": VTT | {"max_line": 9}}, "invalid_captions", "captions.max_line must be at least 10"),
    ({"captions": VTT | {"max_line": 42.5}}, "invalid_captions", "captions.max_line must be a whole number"),
    ({"captions": VTT | {"max_lines": 0}}, "invalid_captions", "captions.max_lines must be at least 1"),
    (
        {"captions": VTT | {"min_duration": 8}},
        "invalid_captions",
        "captions.min_duration must not be more than captions.max_duration",
    ),
    ({"confidence": "yes"}, "invalid_confidence", "confidence must be a boolean"),
    ({"confidence": 1}, "invalid_confidence", "confidence must be a boolean"),
    ({"keyterms": "Parakeet"}, "invalid_keyterms", "keyterms must be a list"),
    ({"keyterms": ["a"] * 101}, "invalid_keyterms", "keyterms must have at most 100 entries"),
    ({"keyterms": ["a", ""]}, "invalid_keyterms", "keyterms[1] must not be empty"),
    ({"keyterms": ["x" * 61]}, "invalid_keyterms", "keyterms[0] must have at most 60 characters"),
    ({"keyterms": [" \u3000"]}, "invalid_keyterms", f"keyterms[0] {VISIBLE}"),
    ({"keyterms": ["a\n"]}, "invalid_keyterms", f"keyterms[0] {VISIBLE}"),
    ({"keyterms": ["a\x7fb"]}, "invalid_keyterms", f"keyterms[0] {VISIBLE}"),
    ({"keyterms": ["a\ud800"]}, "invalid_keyterms", f"keyterms[0] {VISIBLE}"),
    ({"keyterms": [5]}, "invalid_keyterms", "keyterms[0] must be a string or an object"),
    ({"keyterms": [None]}, "invalid_keyterms", "keyterms[0] must be a string or an object, not null"),
    ({"keyterms": [{"boost": 2}]}, "invalid_keyterms", "keyterms[0].term is required"),
    (
        {"keyterms": [{"term": "x" * 61}]},
        "invalid_keyterms",
        "keyterms[0].term must have at most 60 characters",
    ),
    (
        {"keyterms": [{"term": "a", "boost": 0}]},
        "invalid_keyterms",
        "keyterms[0].boost must be more than 0",
    ),
    (
        {"keyterms": [{"term": "a", "weight": 1}]},
        "invalid_keyterms",
        'unknown field "weight" in keyterms[0] (the fields are term and boost)',
    ),
    ({"keyterms": ["a b", " a  b"]}, "invalid_keyterms", 'keyterms has "a b" twice'),
    ({"keyterms": ["Z\u00fcrich", "Zu\u0308rich"]}, "invalid_keyterms", 'keyterms has "Zu\\u0308rich" twice'),
    (
        {"keyterms": ["a", {"term": "a", "boost": 2}]},
        "invalid_keyterms",
        'keyterms has "a" with different boosts',
    ),
    (
        {"keyterms": ["a", *[""] * 6]},
        "invalid_keyterms",
        "; ".join([f"keyterms[{index}] must not be empty" for index in range(1, 6)] + ["and 1 more"]),
    ),
]

BROKEN: list[tuple[Any, str, str]] = [
    ({}, "missing_field", "input is required"),
    ({"input": None}, "invalid_type", "input must be an object, not null"),
    ({"input": []}, "invalid_type", "input must be an object"),
    ({"input": "audio"}, "invalid_type", "input must be an object"),
    ({"input": 7}, "invalid_type", "input must be an object"),
    (None, "invalid_type", "the request must be an object, not null"),
    ([], "invalid_type", "the request must be an object"),
    ([0] * 2_000, "invalid_type", "input has more than 1000 values"),
    ({"input": [0] * 2_000}, "invalid_type", "input has more than 1000 values"),
    ({"input": {}}, "missing_field", "audio_url is required"),
    ({"input": {"action": "transcribe"}}, "missing_field", "audio_url is required"),
    ({"input": {"audio_url": None}}, "invalid_type", "audio_url must be a string, not null"),
    ({"input": {"audio_url": 5}}, "invalid_type", "audio_url must be a string"),
    ({"input": {"audio_url": [URL]}}, "invalid_type", "audio_url must be a string"),
    ({"input": {"audio_url": ""}}, "invalid_url", "audio_url must not be empty"),
    ({"input": {"audio_url": "ftp://h/a.wav"}}, "invalid_url", "audio_url must be an http:, https: or data: URL"),
    ({"input": {"audio_url": "file:///etc/passwd"}}, "invalid_url", "audio_url must be an http:, https: or data: URL"),
    ({"input": {"audio_url": "a.wav"}}, "invalid_url", "audio_url must be an http:, https: or data: URL"),
    ({"input": {"audio_url": " " + URL}}, "invalid_url", "audio_url must be an http:, https: or data: URL"),
    ({"input": {"audio_url": URL, "timestamps": "yes"}}, "invalid_type", "timestamps must be a boolean or a list"),
    ({"input": {"audio_url": URL, "timestamps": 1}}, "invalid_type", "timestamps must be a boolean or a list"),
    (
        {"input": {"audio_url": URL, "timestamps": None}},
        "invalid_type",
        "timestamps must be a boolean or a list, not null",
    ),
    ({"input": {"action": "translate"}}, "unknown_action", 'action must be "transcribe" or "model_info"'),
    ({"input": {"action": ""}}, "unknown_action", 'action must be "transcribe" or "model_info"'),
    ({"input": {"action": None}}, "invalid_type", "action must be a string, not null"),
    ({"input": {"action": {"a": 1}}}, "invalid_type", "action must be a string"),
    ({"input": {"audio_url": URL, "language": "en"}}, "unknown_field", f'unknown field "language" {FIELDS}'),
    ({"input": {"audio_url": URL, "": 1}}, "unknown_field", f'unknown field "" {FIELDS}'),
    ({"input": {"audio_url": URL, "\ud800": 1}}, "unknown_field", f'unknown field "\\ud800" {FIELDS}'),
    (
        {"input": {"audio_url": 1, "timestamps": 2, "x": 3}},
        "invalid_type",
        f'audio_url must be a string; timestamps must be a boolean or a list; unknown field "x" {FIELDS}',
    ),
    (
        {"input": {"audio_url": URL} | dict.fromkeys("abcdefg", 0)},
        "unknown_field",
        f'unknown fields "a", "b", "c" and 4 more {FIELDS}',
    ),
    ({"input": {"timestamps": "no"}}, "missing_field", "audio_url is required; timestamps must be a boolean or a list"),
    *[({"input": VALID | fields}, code, message) for fields, code, message in OPTIONS],
    ({"input": {"audio_base64": ""}}, "invalid_audio_base64", "audio_base64 must not be empty"),
    ({"input": {"audio_base64": 5}}, "invalid_audio_base64", "audio_base64 must be a string"),
]
