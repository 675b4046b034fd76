"""The request: checked against `schemas/request.json`, which also has the code and the message of each violation."""

import json
import math
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, lru_cache
from itertools import islice
from pathlib import Path
from typing import Any, Literal, get_args

from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError

from parakeet_worker.asr.types import KeyTerm
from parakeet_worker.errors import Code, JobError
from parakeet_worker.job.captions import CaptionOptions

SCHEMA_DIR = Path(__file__).resolve().parents[3] / "schemas"

Action = Literal["transcribe", "model_info"]

Level = Literal["word", "segment", "char"]
"""A level of timestamps."""

LEVELS: tuple[Level, ...] = get_args(Level)

_TYPES = {
    "array": "a list",
    "boolean": "a boolean",
    "integer": "a whole number",
    "number": "a number",
    "object": "an object",
    "string": "a string",
}

# Far above any valid input. To check a million fields would block the event loop for a second.
_MAX_VALUES, _MAX_LEVELS = 1_000, 32

# Longest JSON of key terms that is remembered: a hundred of sixty characters that are escaped, with their boosts.
_MAX_KNOWN_TERMS = 50_000

# Of several violations of one field, the first of these is reported.
_KEYWORDS = ("type", "minLength", "enum", "pattern", "required", "additionalProperties")

# What is said of keywords that have no message of their own in the schema.
_MESSAGES = {
    "exclusiveMinimum": "must be more than {}",
    "maxItems": "must have at most {} entries",
    "maxLength": "must have at most {} characters",
    "maximum": "must be at most {}",
    "minLength": "must not be empty",
    "minimum": "must be at least {}",
    "uniqueItems": "must not have an entry twice",
}

# A hundred key terms may have a mistake each.
_MOST_MESSAGES = 5


@dataclass(frozen=True)
class Request:
    """A valid request with its defaults filled in.

    Attributes:
        action: What to do.
        audio_url: URL of the audio; empty if there is `audio_base64`, or the action needs none.
        audio_base64: The audio file itself, in base64, or empty.
        timestamps: Levels of timestamps that the response has.
        segment_pause: Pause between words that ends a segment, in seconds, or None for the worker's setting.
        captions: Captions that the response has, or None.
        has_confidence: Whether the response has the model's confidence.
        key_terms: Terms to raise.
    """

    action: Action
    audio_url: str = ""
    audio_base64: str = ""
    timestamps: tuple[Level, ...] = ()
    segment_pause: float | None = None
    captions: CaptionOptions | None = None
    has_confidence: bool = False
    key_terms: tuple[KeyTerm, ...] = ()


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
    _check_size(job.get("input") if isinstance(job, Mapping) else job)
    found = Draft202012Validator(schema("request")).iter_errors(_without_known_terms(job))
    violations = sorted((part for violation in found for part in _parts(violation)), key=_precedence)

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
        more = len(messages) - _MOST_MESSAGES
        shown = [*islice(messages, _MOST_MESSAGES), *([f"and {more} more"] if more > 0 else [])]
        raise JobError(next(iter(messages.values())), "; ".join(shown))

    assert isinstance(job, Mapping)  # noqa: S101 - the schema requires it
    fields = schema("request")["properties"]["input"]["properties"]
    return _request({name: job["input"].get(name, field.get("default")) for name, field in fields.items()})


def _without_known_terms(job: object) -> object:
    """Return a job without its key terms, if they are known to be valid.

    A hundred terms take 4 ms to check, which costs a fifth of the throughput of short clips on two cores. Most jobs
    have the terms of another one.
    """
    given = job.get("input") if isinstance(job, Mapping) else None
    terms = given.get("keyterms") if isinstance(given, Mapping) else None
    if isinstance(job, Mapping) and isinstance(given, Mapping) and isinstance(terms, list):
        with suppress(TypeError):  # a value that JSON does not have
            text = json.dumps(terms)
            if len(text) <= _MAX_KNOWN_TERMS and _are_terms_valid(text):
                return {**job, "input": {**given, "keyterms": []}}
    return job


@lru_cache(maxsize=256)
def _are_terms_valid(text: str) -> bool:
    """Return whether the JSON text of key terms matches the schema."""
    field = schema("request")["properties"]["input"]["properties"]["keyterms"]
    return Draft202012Validator(schema("request")).evolve(schema=field).is_valid(json.loads(text))


def _request(values: Mapping[str, Any]) -> Request:
    """Return the request of valid fields with their defaults.

    Raises:
        JobError: Fields contradict each other.
    """
    levels, captions = values["timestamps"], values["captions"]
    if isinstance(levels, bool):
        levels = LEVELS if levels else ()
    return Request(
        action=values["action"],
        audio_url=values["audio_url"] or "",
        audio_base64=values["audio_base64"] or "",
        timestamps=tuple(level for level in LEVELS if level in levels),
        segment_pause=values["segment_pause"],
        captions=captions and _caption_options({"format": captions} if isinstance(captions, str) else captions),
        has_confidence=values["confidence"],
        key_terms=_key_terms(values["keyterms"]),
    )


def _caption_options(given: Mapping[str, Any]) -> CaptionOptions:
    branch = schema("request")["properties"]["input"]["properties"]["captions"]["anyOf"][1]["properties"]
    options = {name: given.get(name, field.get("default")) for name, field in branch.items()}
    if options["min_duration"] > options["max_duration"]:
        raise JobError(Code.INVALID_CAPTIONS, "captions.min_duration must not be more than captions.max_duration")
    # JSON Schema takes 42.0 for a whole number, too.
    whole = {name: int(options[name]) for name in ("max_line", "max_lines")}
    return CaptionOptions(**options | whole)


def _key_terms(given: Iterable[str | Mapping[str, Any]]) -> tuple[KeyTerm, ...]:
    terms: dict[str, KeyTerm] = {}
    for entry in given:
        term, boost = (entry, 1.0) if isinstance(entry, str) else (entry["term"], float(entry.get("boost", 1)))
        text = " ".join(term.split())
        # The tokenizer writes characters that Unicode counts as compatible alike.
        same = unicodedata.normalize("NFKC", text)
        if same in terms:
            twice = "twice" if terms[same].boost == boost else "with different boosts"
            raise JobError(Code.INVALID_KEYTERMS, f"keyterms has {quote(text)} {twice}")
        terms[same] = KeyTerm(text, boost)
    return tuple(terms.values())


def _check_size(given: object) -> None:
    """Refuse an input that is so large that to check it against the schema would block other jobs.

    Raises:
        JobError: It has too many fields, too many values, too many levels, or a number that JSON does not have. The
            code is that of the field where this was found.
    """
    fields = given if isinstance(given, Mapping) else {"input": given}
    count = len(fields)
    for name, value in fields.items():
        level = [value]
        for _ in range(_MAX_LEVELS):
            parts = [value for value in level if isinstance(value, Mapping | list)]
            count += sum(map(len, parts))
            if count > _MAX_VALUES:
                raise _refusal(fields, name, f"{name} has more than {_MAX_VALUES} values")
            if any(isinstance(value, float) and not math.isfinite(value) for value in level):
                raise _refusal(fields, name, f"{name} has a number that is not finite")
            level = [value for part in parts for value in (part.values() if isinstance(part, Mapping) else part)]
            if not level:
                break
        else:
            raise _refusal(fields, name, "input is nested too deeply")


def _refusal(fields: Mapping[object, object], name: object, message: str) -> JobError:
    """Return the failure for a field whose value the schema cannot be asked about."""
    known = list(schema("request")["properties"]["input"]["properties"])
    if name in (*known, "input"):
        return JobError(_code_of_field(str(name), "type"), message)
    return JobError(Code.UNKNOWN_FIELD, _unknown_fields(fields, known))


def _precedence(violation: ValidationError) -> tuple[int, list[int], int]:
    """Return the sort key of a violation: missing fields, then the schema's fields in order, then unknown ones.

    Those of one field are sorted by the entries of its list.
    """
    place = list(violation.absolute_path)
    fields = list(schema("request")["properties"]["input"]["properties"])
    if len(place) > 1:
        field = fields.index(str(place[1]))
    else:
        field = len(fields) if violation.validator == "additionalProperties" else -1
    keyword = _KEYWORDS.index(str(violation.validator)) if violation.validator in _KEYWORDS else len(_KEYWORDS)
    return field, [part for part in place[2:] if isinstance(part, int)], keyword


def _parts(violation: ValidationError) -> Iterator[ValidationError]:
    """Yield what a violation consists of: those of the form that is meant, where a field has several forms."""
    forms: dict[object, list[ValidationError]] = {}
    if violation.validator == "anyOf":
        for part in violation.context or ():
            forms.setdefault(part.relative_schema_path[0], []).append(part)
    for parts in forms.values():
        if not any(part.validator == "type" and not part.relative_path for part in parts):
            for part in parts:
                yield from _parts(part)
            return
    yield violation


def _explain(violation: ValidationError) -> Iterator[str]:
    """Yield the messages of a violation: one, or one for each field that is missing."""
    name = _name(list(violation.absolute_path))
    expected: Any = violation.validator_value
    given: Any = violation.instance
    not_null = ", not null" if given is None else ""
    own = _subschema(violation).get("errorMessage", {})
    match violation.validator:
        case "type":
            yield f"{name} must be {_TYPES[expected]}{not_null}"
        case "anyOf":
            yield f"{name} must be {_one_of([_form(form) for form in expected])}{not_null}"
        case "enum":
            yield f"{name} must be {_one_of([json.dumps(value) for value in expected])}"
        case "required":
            prefix = "" if name == "input" else f"{name}."
            yield from (
                f"{prefix if violation.absolute_path else ''}{missing} is required"
                for missing in expected
                if missing not in given
            )
        case "additionalProperties":
            yield _unknown_fields(given, list(_subschema(violation)["properties"]), name)
        case keyword if keyword in own:
            yield f"{name} {own[keyword]}"
        case keyword:
            yield f"{name} {_MESSAGES[str(keyword)].format(expected)}"


def _name(path: list[str | int]) -> str:
    """Return the name of a place in the request: `keyterms[2].term`."""
    if len(path) < 2:
        return str(path[0]) if path else "the request"
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path[1:])[1:]


def _form(form: Mapping[str, Any]) -> str:
    """Return what a form of a field is called in a message."""
    if "$ref" in form:
        form = schema("request")["$defs"][form["$ref"].rpartition("/")[2]]
    return " or ".join(map(json.dumps, form["enum"])) if "enum" in form else _TYPES[form["type"]]


def _code(violation: ValidationError) -> Code:
    """Return the code of a violation: that of the field it is in, for its keyword."""
    path = list(violation.absolute_path)
    return _code_of_field(str(path[1]) if len(path) > 1 else "".join(map(str, path)), str(violation.validator))


def _code_of_field(name: str, keyword: str) -> Code:
    """Return the code of a violation of a keyword in a field.

    It is the `errorCode` of the field, or that of the field for the keyword, or that of the whole schema for it.

    Args:
        name: The field, `input` for what holds them all, or empty for the request.
        keyword: The keyword of the schema.
    """
    request = schema("request")
    of_input = request["properties"]["input"]
    subschema = {**of_input["properties"], "input": of_input, "": request}[name]
    own = subschema.get("errorCode", {})
    if isinstance(own, str):
        return Code(own)
    return Code(own.get(keyword) or request["errorCode"]["type" if keyword == "anyOf" else keyword])


def _subschema(violation: ValidationError) -> Mapping[str, Any]:
    assert isinstance(violation.schema, Mapping)  # noqa: S101 - a schema of true or false has no keywords
    return violation.schema


def _unknown_fields(given: Mapping[object, object], known: list[str], place: str = "input") -> str:
    unknown = [field for field in given if field not in known]
    more = [f"{len(unknown) - 3} more"] if len(unknown) > 3 else []
    names = _one_of([quote(field) for field in unknown[:3]] + more, "and")
    s, where = "s" if len(unknown) > 1 else "", "" if place == "input" else f" in {place}"
    return f"unknown field{s} {names}{where} (the fields are {_one_of(known, 'and')})"


def _one_of(names: list[str], conjunction: str = "or") -> str:
    return f" {conjunction} ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def quote(text: object) -> str:
    """Quote a text of the caller's, in ASCII and 60 characters at most, so that it is safe in any log or response."""
    quoted = json.dumps(str(text)[:60])
    return quoted if len(quoted) <= 60 else f'{quoted[:56]}..."'
