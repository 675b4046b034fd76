"""What a job may ask for: the request schema, turned into a typed request or a message for the caller."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError

from parakeet_worker.errors import Code, JobError

SCHEMA_DIR = Path(__file__).resolve().parents[2] / "schemas"

Action = Literal["transcribe", "model_info"]

_TYPES = {"boolean": "a boolean", "object": "an object", "string": "a string"}

# No valid input comes near either. A million fields would take a second of the event loop.
_MAX_VALUES, _MAX_LEVELS = 1_000, 32

# Of several violations at one place, the one that comes first here says it best.
_KEYWORDS = ("type", "minLength", "enum", "pattern", "required", "additionalProperties")


@dataclass(frozen=True)
class Request:
    """A valid request, its defaults filled in.

    Attributes:
        action: What to do.
        audio_url: Where the audio is; empty where the action needs none.
        timestamps: Whether word, segment and character timestamps are wanted.
    """

    action: Action
    audio_url: str
    timestamps: bool


@cache
def schema(name: str) -> dict[str, Any]:
    """Return the JSON Schema `schemas/<name>.json`."""
    loaded: dict[str, Any] = json.loads((SCHEMA_DIR / f"{name}.json").read_text(encoding="utf-8"))
    return loaded


def parse(job: object) -> Request:
    """Check a job against the request schema.

    Args:
        job: What the platform hands to the handler: a mapping with `input` in it, if all is well.

    Raises:
        JobError: The job breaks the schema. The message names every violation, the code is that of the first.
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
        for code, message in _explain(violation):
            messages.setdefault(message, code)
    if messages:
        raise JobError(next(iter(messages.values())), "; ".join(messages))

    assert isinstance(job, Mapping)  # noqa: S101 - the schema has said so
    fields = schema("request")["properties"]["input"]["properties"]
    values = {name: job["input"].get(name, field.get("default", "")) for name, field in fields.items()}
    return Request(**values)


def _check_size(given: object) -> None:
    """Refuse an input so large that checking it against the schema would hold up other jobs.

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
    """Order violations: what is missing, then as the schema lists its fields and by keyword, then what is unknown."""
    place = list(violation.absolute_path)
    fields = list(schema("request")["properties"]["input"]["properties"])
    if len(place) > 1:
        field = fields.index(str(place[1]))
    else:
        field = len(fields) if violation.validator == "additionalProperties" else -1
    return field, _KEYWORDS.index(str(violation.validator))


def _explain(violation: ValidationError) -> Iterator[tuple[Code, str]]:
    """Yield the code and the message of a violation, one for each field that is missing."""
    name = str(violation.absolute_path[-1]) if violation.absolute_path else "the request"
    expected: Any = violation.validator_value
    given: Any = violation.instance
    match violation.validator:
        case "type":
            yield Code.INVALID_TYPE, f"{name} must be {_TYPES[expected]}{', not null' if given is None else ''}"
        case "minLength":
            yield Code.INVALID_URL, f"{name} must not be empty"
        case "enum":
            yield Code.UNKNOWN_ACTION, f"{name} must be {_one_of([json.dumps(value) for value in expected])}"
        case "pattern":
            assert isinstance(violation.schema, Mapping)  # noqa: S101 - a pattern stands in an object
            yield Code.INVALID_URL, f"{name} {violation.schema['errorMessage']['pattern']}"
        case "required":
            for missing in expected:
                if missing not in given:
                    yield Code.MISSING_FIELD, f"{missing} is required"
        case "additionalProperties":
            assert isinstance(violation.schema, Mapping)  # noqa: S101 - so do properties
            known = list(violation.schema["properties"])
            yield Code.UNKNOWN_FIELD, _unknown_fields(given, known)
        case keyword:
            raise NotImplementedError(f"no message for the schema keyword {keyword}")


def _unknown_fields(given: Mapping[object, object], known: list[str]) -> str:
    unknown = [field for field in given if field not in known]
    more = [f"{len(unknown) - 3} more"] if len(unknown) > 3 else []
    names = _one_of([_quote(field) for field in unknown[:3]] + more, "and")
    s = "s" if len(unknown) > 1 else ""
    return f"unknown field{s} {names} (the fields are {_one_of(known, 'and')})"


def _one_of(names: list[str], conjunction: str = "or") -> str:
    return f" {conjunction} ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def _quote(text: object) -> str:
    """Quote the caller's own text, in ASCII and cut short, so that it is safe in any log or response."""
    quoted = json.dumps(str(text)[:60])
    return quoted if len(quoted) <= 60 else f'{quoted[:56]}..."'
