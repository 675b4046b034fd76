"""Answers checked against `schemas/openapi.json`."""

import functools
import json
from typing import Any

from jsonschema import Draft202012Validator
from referencing import Registry
from referencing.jsonschema import DRAFT202012

from project import ROOT


@functools.cache
def document() -> dict[str, Any]:
    """The OpenAPI document."""
    content: dict[str, Any] = json.loads((ROOT / "schemas" / "openapi.json").read_text())
    return content


def check(component: str, value: object) -> None:
    """Check that a value is valid by a schema of the document.

    Raises:
        AssertionError: It is not.
    """
    registry: Registry[Any] = Registry().with_resource("urn:openapi", DRAFT202012.create_resource(document()))
    validator = Draft202012Validator({"$ref": f"urn:openapi#/components/schemas/{component}"}, registry=registry)
    problems = [error.message for error in validator.iter_errors(value)]
    assert not problems, problems
