"""`schemas/openapi.json` is what is built from the other schemas, and takes the requests that they take."""

from collections.abc import Iterator
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from openapi_spec_validator import OpenAPIV31SpecValidator

import build_openapi
from broken_requests import BROKEN
from openapi import check, document
from parakeet_worker.job.request import schema
from project import ROOT

URL = "https://example.com/a.wav"


def test_the_file_is_what_is_built() -> None:
    assert (ROOT / "schemas" / "openapi.json").read_text() == build_openapi.text(), "run make openapi"


def test_it_is_valid() -> None:
    OpenAPIV31SpecValidator(document()).validate()


def schemas_in(held: Any) -> Iterator[dict[str, Any]]:
    """All schemas in a schema, itself among them, as far as this project's schemas nest them."""
    yield held
    for keyword in ("properties", "$defs"):
        for below in held.get(keyword, {}).values():
            yield from schemas_in(below)
    for keyword in ("items", "if", "then", "not", "additionalProperties"):
        if isinstance(held.get(keyword), dict):
            yield from schemas_in(held[keyword])
    for keyword in ("anyOf", "oneOf", "allOf"):
        for below in held.get(keyword, []):
            yield from schemas_in(below)


def test_own_keywords_are_left_out() -> None:
    own = {keyword for held in schemas_in(schema("request")) for keyword in held} - build_openapi.KEYWORDS
    assert own == {"errorCode", "errorMessage"}
    for component in document()["components"]["schemas"].values():
        for held in schemas_in(component):
            assert held.keys() <= build_openapi.KEYWORDS
            assert "$ref" not in held or len(held) == 1


def test_a_field_may_have_the_name_of_a_keyword() -> None:
    held = {"properties": {"errorCode": {"type": "string", "errorCode": "x"}}, "default": {"errorCode": 1}}
    assert build_openapi.to_component(held, "A") == {
        "properties": {"errorCode": {"type": "string"}},
        "default": {"errorCode": 1},
    }


def test_references() -> None:
    held = {"$ref": "#/$defs/b", "required": ["c"], "unevaluatedProperties": False}
    assert build_openapi.to_component(held, "A") == {
        "allOf": [{"$ref": "#/components/schemas/AB"}, {"required": ["c"]}],
        "unevaluatedProperties": False,
    }
    with pytest.raises(ValueError, match=r"other\.json"):
        build_openapi.to_component({"$ref": "other.json"}, "A")


@pytest.mark.parametrize(
    "job_input",
    [
        {"audio_url": URL},
        {"audio_base64": "AAAA", "timestamps": ["word"], "captions": "srt", "confidence": True},
        {"audio_url": URL, "captions": {"format": "vtt", "max_line": 37}, "keyterms": ["a", {"term": "b", "boost": 2}]},
        {"action": "model_info"},
    ],
)
def test_requests(job_input: Any) -> None:
    check("Request", {"input": job_input, "webhook": "https://example.com", "policy": {"ttl": 60_000}})


def test_what_the_schema_refuses_is_refused() -> None:
    """The worker refuses more: what a schema cannot say, such as an invalid URL."""
    own = Draft202012Validator(schema("request"))
    refused = [request for request, *_ in BROKEN if not own.is_valid(request)]
    assert len(refused) > 40
    for request in refused:
        with pytest.raises(AssertionError):
            check("Request", request)


@pytest.mark.parametrize(
    "job",
    [
        {"status": "COMPLETED", "output": {"status": "success"}},
        {"status": "COMPLETED"},
        {"status": "FAILED", "error": 5},
        {"status": "FAILED", "error": "No.", "output": {"status": "error", "code": "other"}},
        {"status": "DONE"},
    ],
)
def test_jobs_that_are_none(job: Any) -> None:
    with pytest.raises(AssertionError):
        check("Job", {"id": "1"} | job)
