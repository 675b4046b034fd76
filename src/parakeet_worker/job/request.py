"""The request: checked against `schemas/request.json`, which also has the code and the message of each violation."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError

from parakeet_worker.errors import Code, JobError

SCHEMA_DIR = Path(__file__).resolve().parents[3] / "schemas"

Action = Literal["transcribe", "model_info"]

_TYPES = {"boolean": "a boolean", "object": "an object", "string": "a string"}

# Far above any valid input. To check a million fields would block the event loop for a second.
_MAX_VALUES, _MAX_LEVELS = 1_000, 32

# Of several violations of one field, the first of these is reported.
_KEYWORDS = ("type", "minLength", "enum", "pattern", "required", "additionalProperties")


@dataclass(frozen=True)
class Request:
    """A valid request with its defaults filled in.

    Attributes:
        action: What to do.
        audio_url: URL of the audio; empty if the action needs none.
        timestamps: Whether the response has word, segment and character timestamps.
    """

    action: Action
    audio_url: str
    timestamps: bool


@cache
def schema(name: str) -> dict[str, Any]:
    """Return the JSON Schema `schemas/<name>.json`."""
    loaded: dict[str, Any] = json.loads((SCHEMA_DIR / f"{name}.json").read_text(encoding="utf-8"))
    return loaded


def parse_request(job: object) -> Request:
    """Check a job against the request schema.

    Args:
        job: What the platform gives to the handler: a mapping with the request under `input`, if it is valid.

    Raises:
        JobError: The job violates the schema. The message names every violation, the code is that of the first.
    """
    _check_size(job.get("input") if isinstance(job, Mapping) else None)
    violations = sorted(Draft202012Validator(schema("request")).iter_errors(job), key=_precedence)

    messages: dict[str, Code] = {}
    places: set[tuple[str | int, ...]] = set()
    for violation in violations:
        place = tuple(violation.absolute_path)
        if place in places and violation.validator not in ("required", "additionalProperties"):
            continue
        places.add(place)
        for message in _explain(violation):
            messages.setdefault(message, _code(violation))
    if messages:
        raise JobError(next(iter(messages.values())), "; ".join(messages))

    assert isinstance(job, Mapping)  # noqa: S101 - the schema requires it
    fields = schema("request")["properties"]["input"]["properties"]
    values = {name: job["input"].get(name, field.get("default", "")) for name, field in fields.items()}
    return Request(**values)


def _check_size(given: object) -> None:
    """Refuse an input that is so large that to check it against the schema would block other jobs.

    Raises:
        JobError: It has too many fields, too many values, or too many levels.
    """
    known = list(schema("request")["properties"]["input"]["properties"])
    if isinstance(given, Mapping) and len(given) > _MAX_VALUES:
        raise JobError(Code.UNKNOWN_FIELD, _unknown_fields(given, known))
    count, level = 0, [given]
    for _ in range(_MAX_LEVELS):
        parts = [value for value in level if isinstance(value, Mapping | list)]
        count += sum(map(len, parts))
        if count > _MAX_VALUES:
            raise JobError(Code.INVALID_TYPE, f"input has more than {_MAX_VALUES} values")
        level = [value for part in parts for value in (part.values() if isinstance(part, Mapping) else part)]
        if not level:
            return
    raise JobError(Code.INVALID_TYPE, "input is nested too deeply")


def _precedence(violation: ValidationError) -> tuple[int, int]:
    """Return the sort key of a violation: missing fields, then the schema's fields in order, then unknown ones."""
    place = list(violation.absolute_path)
    fields = list(schema("request")["properties"]["input"]["properties"])
    if len(place) > 1:
        field = fields.index(str(place[1]))
    else:
        field = len(fields) if violation.validator == "additionalProperties" else -1
    return field, _KEYWORDS.index(str(violation.validator)) if violation.validator in _KEYWORDS else len(_KEYWORDS)


def _explain(violation: ValidationError) -> Iterator[str]:
    """Yield the messages of a violation: one, or one for each field that is missing."""
    name = str(violation.absolute_path[-1]) if violation.absolute_path else "the request"
    expected: Any = violation.validator_value
    given: Any = violation.instance
    match violation.validator:
        case "type":
            yield f"{name} must be {_TYPES[expected]}{', not null' if given is None else ''}"
        case "enum":
            yield f"{name} must be {_one_of([json.dumps(value) for value in expected])}"
        case "required":
            yield from (f"{missing} is required" for missing in expected if missing not in given)
        case "additionalProperties":
            yield _unknown_fields(given, list(_subschema(violation)["properties"]))
        case keyword:
            yield f"{name} {_subschema(violation)['errorMessage'][keyword]}"


def _code(violation: ValidationError) -> Code:
    """Return the code of a violation: the `errorCode` of the field for the keyword, or that of the whole schema."""
    keyword = str(violation.validator)
    of_field = _subschema(violation).get("errorCode", {})
    return Code(of_field.get(keyword) or schema("request")["errorCode"][keyword])


def _subschema(violation: ValidationError) -> Mapping[str, Any]:
    assert isinstance(violation.schema, Mapping)  # noqa: S101 - a schema of true or false has no keywords
    return violation.schema


def _unknown_fields(given: Mapping[object, object], known: list[str]) -> str:
    unknown = [field for field in given if field not in known]
    more = [f"{len(unknown) - 3} more"] if len(unknown) > 3 else []
    names = _one_of([_quote(field) for field in unknown[:3]] + more, "and")
    s = "s" if len(unknown) > 1 else ""
    return f"unknown field{s} {names} (the fields are {_one_of(known, 'and')})"


def _one_of(names: list[str], conjunction: str = "or") -> str:
    return f" {conjunction} ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def _quote(text: object) -> str:
    """Quote a text of the caller's, in ASCII and 60 characters at most, so that it is safe in any log or response."""
    quoted = json.dumps(str(text)[:60])
    return quoted if len(quoted) <= 60 else f'{quoted[:56]}..."'
