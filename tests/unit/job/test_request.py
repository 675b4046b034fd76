"""The request schema, and the message for each way to break it."""

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from broken_requests import BROKEN, URL
from parakeet_worker.asr.types import KeyTerm
from parakeet_worker.errors import Code, JobError
from parakeet_worker.job.captions import CaptionOptions
from parakeet_worker.job.request import _MESSAGES, Request, parse_request, schema
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
        ({"audio_url": URL}, Request("transcribe", URL)),
        ({"audio_url": URL, "timestamps": True}, Request("transcribe", URL, timestamps=("word", "segment", "char"))),
        ({"action": "transcribe", "audio_url": "HTTP://h/a"}, Request("transcribe", "HTTP://h/a")),
        ({"audio_url": "data:audio/wav;base64,"}, Request("transcribe", "data:audio/wav;base64,")),
        ({"audio_base64": "AAAA"}, Request("transcribe", audio_base64="AAAA")),
        ({"action": "model_info"}, Request("model_info")),
        ({"audio_url": URL, "timestamps": []}, Request("transcribe", URL)),
        ({"audio_url": URL, "timestamps": ["char", "word"]}, Request("transcribe", URL, timestamps=("word", "char"))),
        ({"audio_url": URL, "segment_pause": 1}, Request("transcribe", URL, segment_pause=1)),
        ({"audio_url": URL, "captions": "srt"}, Request("transcribe", URL, captions=CaptionOptions(format="srt"))),
        (
            {"audio_url": URL, "captions": {"format": "vtt", "max_line": 37.0, "min_gap": 0}},
            Request("transcribe", URL, captions=CaptionOptions(format="vtt", max_line=37, min_gap=0)),
        ),
        ({"audio_url": URL, "confidence": True}, Request("transcribe", URL, has_confidence=True)),
        (
            {"audio_url": URL, "keyterms": ["New  York ", {"term": "RTFx", "boost": 2}, {"term": "rtfx"}]},
            Request("transcribe", URL, key_terms=(KeyTerm("New York"), KeyTerm("RTFx", 2.0), KeyTerm("rtfx"))),
        ),
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


def parts(subschema: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """A field's schema and those within it."""
    yield subschema
    within = [*subschema.get("anyOf", ()), *subschema.get("properties", {}).values()]
    for part in [*within, *([subschema["items"]] if "items" in subschema else [])]:
        yield from parts(schema("request")["$defs"][part["$ref"].rpartition("/")[2]] if "$ref" in part else part)


def test_every_keyword_of_the_schema_has_a_code_and_a_message() -> None:
    """A field that is added to the schema cannot be refused with another field's code."""
    request = schema("request")
    fields = request["properties"]["input"]["properties"]
    assert request["errorCode"].keys() == {"type", "required", "additionalProperties"}
    about = {"default", "description", "format", "contentEncoding", "errorCode", "errorMessage"}
    structure = {"anyOf", "items", "properties"}
    explained = {"type", "enum", "required", "additionalProperties"} | _MESSAGES.keys()
    for name, field in fields.items():
        used = set()
        for part in parts(field):
            keywords = part.keys() - about - structure
            assert keywords - explained <= part.get("errorMessage", {}).keys() <= keywords, name
            used |= keywords
        code = field.get("errorCode", {})
        if isinstance(code, str):
            assert code == f"invalid_{name}"
        else:
            assert used - {"type"} <= code.keys() <= used, name
        assert set(map(Code, [code] if isinstance(code, str) else code.values())) <= set(Code)


def test_defaults_of_the_captions_are_those_of_the_schema() -> None:
    limits = schema("request")["properties"]["input"]["properties"]["captions"]["anyOf"][1]["properties"]
    defaults = {name: limit["default"] for name, limit in limits.items() if "default" in limit}
    assert defaults | {"format": "srt"} == asdict(CaptionOptions(format="srt"))
