"""The request schema, and the message for each way to break it."""

from typing import Any

import pytest
from jsonschema import Draft202012Validator

from broken_requests import BROKEN, URL
from parakeet_worker.errors import Code, JobError
from parakeet_worker.job.request import Request, parse_request, schema
from parakeet_worker.serverless.envelope import failure
from project import check_schema


@pytest.mark.parametrize("name", ["request", "transcribe", "model_info", "error"])
def test_schemas_are_valid_schemas(name: Any) -> None:
    Draft202012Validator.check_schema(schema(name))


def test_codes_are_those_of_the_schema() -> None:
    listed = [entry["const"] for entry in schema("error")["properties"]["code"]["oneOf"]]
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
def test_valid_requests(job_input: Any, request_: Any) -> None:
    assert parse_request({"id": "1", "input": job_input, "webhook": "https://example.com"}) == request_


@pytest.mark.parametrize(("job", "code", "message"), BROKEN)
def test_broken_requests(job: Any, code: Any, message: Any) -> None:
    with pytest.raises(JobError) as raised:
        parse_request(job)
    assert (raised.value.code, raised.value.message) == (code, message)
    check_schema(failure(raised.value), "")


def test_a_long_field_name_is_cut() -> None:
    with pytest.raises(JobError) as raised:
        parse_request({"input": {"audio_url": URL, "x" * 10_000: 1}})
    assert len(raised.value.message) < 200


def test_deep_nesting_is_refused() -> None:
    nested: object = []
    for _ in range(100_000):
        nested = [nested]
    with pytest.raises(JobError) as raised:
        parse_request({"input": {"audio_url": nested}})
    assert raised.value.code is Code.INVALID_TYPE


def test_every_keyword_of_the_schema_has_a_code_and_a_message() -> None:
    """A field that is added to the schema cannot be refused with another field's code."""
    request = schema("request")
    fields = request["properties"]["input"]["properties"]
    of_all = {"type", "required", "additionalProperties"}
    assert request["errorCode"].keys() == of_all
    about = {"type", "default", "description", "format", "errorCode", "errorMessage"}
    for name, field in fields.items():
        keywords = field.keys() - about
        assert field.get("errorCode", {}).keys() == keywords, name
        assert field.get("errorMessage", {}).keys() == keywords - {"enum"}, name
        assert set(map(Code, field.get("errorCode", {}).values())) <= set(Code)
