"""Requests that break the schema, each with the code and the message that its caller gets."""

URL = "https://example.com/a.wav"
FIELDS = "(the fields are action, audio_url and timestamps)"

BROKEN = [
    ({}, "missing_field", "input is required"),
    ({"input": None}, "invalid_type", "input must be an object, not null"),
    ({"input": []}, "invalid_type", "input must be an object"),
    ({"input": "audio"}, "invalid_type", "input must be an object"),
    ({"input": 7}, "invalid_type", "input must be an object"),
    (None, "invalid_type", "the request must be an object, not null"),
    ([], "invalid_type", "the request must be an object"),
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
    ({"input": {"audio_url": URL, "timestamps": "yes"}}, "invalid_type", "timestamps must be a boolean"),
    ({"input": {"audio_url": URL, "timestamps": 1}}, "invalid_type", "timestamps must be a boolean"),
    ({"input": {"audio_url": URL, "timestamps": None}}, "invalid_type", "timestamps must be a boolean, not null"),
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
        f'audio_url must be a string; timestamps must be a boolean; unknown field "x" {FIELDS}',
    ),
    (
        {"input": {"audio_url": URL} | dict.fromkeys("abcdefg", 0)},
        "unknown_field",
        f'unknown fields "a", "b", "c" and 4 more {FIELDS}',
    ),
    ({"input": {"timestamps": "no"}}, "missing_field", "audio_url is required; timestamps must be a boolean"),
]
