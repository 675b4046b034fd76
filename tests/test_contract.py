"""The request schema, and the message for each way to break it."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from parakeet_worker import contract
from parakeet_worker.contract import Request
from parakeet_worker.errors import Code, JobError

URL = "https://example.com/a.wav"
FIELDS = "(the fields are action, audio_url and timestamps)"


@pytest.mark.parametrize("name", ["request", "transcribe", "model_info", "error"])
def test_schemas_are_valid_schemas(name):
    Draft202012Validator.check_schema(contract.schema(name))


def test_codes_are_those_of_the_schema():
    listed = [entry["const"] for entry in contract.schema("error")["properties"]["code"]["oneOf"]]
    assert listed == [code.value for code in Code]


@pytest.mark.parametrize(
    ("job_input", "request_"),
    [
        ({"audio_url": URL}, Request("transcribe", URL, timestamps=False)),
        ({"audio_url": URL, "timestamps": True}, Request("transcribe", URL, timestamps=True)),
        ({"action": "transcribe", "audio_url": "HTTP://h/a"}, Request("transcribe", "HTTP://h/a", timestamps=False)),
        ({"audio_url": "data:audio/wav;base64,"}, Request("transcribe", "data:audio/wav;base64,", timestamps=False)),
        ({"action": "model_info"}, Request("model_info", "", timestamps=False)),
    ],
)
def test_valid_requests(job_input, request_):
    assert contract.parse({"id": "1", "input": job_input, "webhook": "https://example.com"}) == request_


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


@pytest.mark.parametrize(("job", "code", "message"), BROKEN)
def test_broken_requests(ask, job, code, message):
    answer = ask(job)
    assert (answer["code"], answer["error"]) == (code, message)


def test_a_long_field_name_is_cut():
    with pytest.raises(JobError) as raised:
        contract.parse({"input": {"audio_url": URL, "x" * 10_000: 1}})
    assert len(raised.value.message) < 200


def test_deep_nesting_is_refused():
    nested: object = []
    for _ in range(100_000):
        nested = [nested]
    with pytest.raises(JobError) as raised:
        contract.parse({"input": {"audio_url": nested}})
    assert raised.value.code is Code.INVALID_TYPE


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
FIELD = st.sampled_from(["action", "audio_url", "timestamps", "language", "Audio_URL"])
# Whatever looks like a URL is malformed in a way that needs no network to see.
URLS = st.sampled_from(
    ["http:", "https://", "data:", "http://[", "http://h:99999/", "http://h:x/", "data:,", "HTTPS:///"]
)


@settings(max_examples=400, deadline=None)
@given(st.one_of(JSON, st.fixed_dictionaries({"input": st.one_of(JSON, st.dictionaries(FIELD, JSON | URLS))})))
def test_whatever_comes_gets_an_envelope(ask, job):
    answer = ask(job)
    assert answer["status"] == "error" or job["input"] == {"action": "model_info"} | job["input"]


def test_the_next_good_request_works(ask):
    for job, _, _ in BROKEN:
        ask(job)
    assert ask({"input": {"action": "model_info"}})["status"] == "success"
    answer = ask(json.loads((contract.SCHEMA_DIR.parent / "test_input.json").read_text()))
    assert answer["text"] == "The children must learn to reason."
