"""Write `schemas/openapi.json`: RunPod's operations of an endpoint, with the requests and answers of this worker.

The worker's part is taken from the other files of `schemas/`. RunPod's part, the operations and the states of a job,
stands here, as far as https://docs.runpod.io/serverless/endpoints/operation-reference documents it.
"""

import json
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from jsonschema_specifications import REGISTRY

Schema = dict[str, Any]

ROOT = Path(__file__).parents[1]
TARGET = ROOT / "schemas" / "openapi.json"

COMPONENTS = "#/components/schemas/"

# The vocabularies of JSON Schema 2020-12, which is what OpenAPI 3.1 takes.
_VOCABULARIES = ("core", "applicator", "unevaluated", "validation", "meta-data", "format-annotation", "content")
KEYWORDS = frozenset(
    keyword
    for name in _VOCABULARIES
    for keyword in REGISTRY.contents(f"https://json-schema.org/draft/2020-12/meta/{name}")["properties"]
)
_HOLD_SCHEMAS_BY_NAME = ("properties", "patternProperties", "dependentSchemas")
_HOLD_A_LIST = ("allOf", "anyOf", "oneOf", "prefixItems")
_COUNT_OTHERS = ("unevaluatedProperties", "unevaluatedItems")
_HOLD_DATA = ("const", "enum", "default", "examples")


def component_name(*parts: str) -> str:
    """Return the name of a component, such as `TranscriptSpan` for the definition `span` of `Transcript`."""
    return "".join(part[:1].upper() + part[1:] for part in parts)


def to_component(schema: Schema | bool, owner: str) -> Schema | bool:
    """Return a schema as it may stand below `components/schemas`.

    Keywords that are no JSON Schema, such as `errorCode`, are left out. A reference to a definition becomes one to a
    component. If other keywords stand beside it, both become parts of an `allOf`, as generators of types ignore what is
    beside `$ref`.

    Args:
        schema: A schema.
        owner: The component whose `$defs` the references name.

    Raises:
        ValueError: A reference leads elsewhere than into `$defs`.
    """
    if isinstance(schema, bool):
        return schema
    built: Schema = {}
    for keyword, value in schema.items():
        if keyword not in KEYWORDS or keyword in ("$schema", "$defs", "$ref"):
            continue
        if keyword in _HOLD_DATA:
            built[keyword] = value
        elif keyword in _HOLD_SCHEMAS_BY_NAME:
            built[keyword] = {name: to_component(held, owner) for name, held in value.items()}
        elif keyword in _HOLD_A_LIST:
            built[keyword] = [to_component(held, owner) for held in value]
        else:
            built[keyword] = to_component(value, owner) if isinstance(value, dict) else value
    if "$ref" not in schema:
        return built
    name = schema["$ref"].removeprefix("#/$defs/")
    if name == schema["$ref"] or "/" in name:
        raise ValueError(f"{schema['$ref']} does not lead to a definition of the same file")
    reference = {"$ref": COMPONENTS + component_name(owner, name)}
    if not built:
        return reference
    # They count what all parts of the `allOf` know, so they must stand outside them.
    outside = {keyword: built.pop(keyword) for keyword in _COUNT_OTHERS if keyword in built}
    return {"allOf": [reference, built], **outside}


def components_of(schema: Schema, owner: str) -> dict[str, Schema]:
    """Return the components that a file of `schemas/` becomes: itself as `owner`, and each of its definitions."""
    named = {component_name(owner, name): held for name, held in schema.get("$defs", {}).items()}
    return {name: cast("Schema", to_component(held, owner)) for name, held in ({owner: schema} | named).items()}


def as_platform_shows(failure: Schema) -> Schema:
    """Return the schema of a failed job's `output`: RunPod's SDK takes two fields out of what the handler returns."""
    taken = ("error", "refresh_worker")
    properties = {name: held for name, held in failure["properties"].items() if name not in taken}
    required = [name for name in failure["required"] if name not in taken]
    description = "The `output` of a failed job. RunPod may leave it out: rely on the job's `error`."
    return failure | {"description": description, "properties": properties, "required": required}


# What RunPod takes beside `input`.
PLATFORM_FIELDS: dict[str, Schema] = {
    "webhook": {"type": "string", "format": "uri", "description": "RunPod posts the job here when it has ended."},
    "policy": {
        "type": "object",
        "properties": {
            "executionTimeout": {"type": "integer", "minimum": 5_000, "description": "Longest run, in milliseconds."},
            "ttl": {"type": "integer", "minimum": 10_000, "description": "Longest life of the job, in milliseconds."},
            "lowPriority": {"type": "boolean", "description": "Whether the job starts no further worker."},
        },
    },
}

ID: Schema = {"type": "string", "minLength": 1, "description": "The job's id."}

# What RunPod tells of a job in every state.
JOB_FIELDS: dict[str, Schema] = {
    "delayTime": {"type": "integer", "minimum": 0, "description": "Milliseconds in the queue."},
    "executionTime": {"type": "integer", "minimum": 0, "description": "Milliseconds on the worker."},
    "workerId": {"type": "string", "description": "The worker that did it."},
}

PROGRESS: Schema = {
    "title": "Progress of a long recording",
    "type": "object",
    "required": ["seconds_done", "seconds_total"],
    "properties": {
        "seconds_done": {"type": "number", "minimum": 0, "description": "Seconds of audio that are transcribed."},
        "seconds_total": {
            "type": ["number", "null"],
            "minimum": 0,
            "description": "Length of the audio in seconds, or null if the file does not declare it.",
        },
    },
}


def job(status: str, description: str, **fields: Schema) -> Schema:
    """Return the schema of a job in one of RunPod's states."""
    needed = ["output"] if status == "COMPLETED" else []
    return {
        "description": description,
        "type": "object",
        "required": ["id", "status", *needed],
        "properties": {"id": ID, "status": {"const": status}, **fields, **JOB_FIELDS},
    }


def reference(name: str) -> Schema:
    """Return a reference to a component."""
    return {"$ref": COMPONENTS + name}


JOBS = {
    "JobInQueue": job("IN_QUEUE", "It waits for a worker."),
    "JobInProgress": job(
        "IN_PROGRESS",
        "A worker has it.",
        output={"anyOf": [reference("Progress"), {"type": "null"}], "description": "Of long recordings only."},
    ),
    "JobCompleted": job(
        "COMPLETED", "It is done.", output={"anyOf": [reference("Transcript"), reference("ModelInfo")]}
    ),
    "JobFailed": job(
        "FAILED",
        "It failed.",
        error={"type": "string", "description": "What was wrong and what to send instead."},
        output=reference("Failure"),
    ),
    "JobCancelled": job("CANCELLED", "It was cancelled."),
    "JobTimedOut": job("TIMED_OUT", "RunPod gave it up: it waited or ran for too long."),
}

COUNTS: Schema = {
    "type": "object",
    "additionalProperties": {"type": "integer"},
    "description": "How many are in which state.",
}
HEALTH: Schema = {
    "title": "State of an endpoint",
    "type": "object",
    "required": ["jobs", "workers"],
    "properties": {"jobs": COUNTS, "workers": COUNTS},
}

# RunPod's own, by status. Their bodies are not documented.
REFUSALS = {
    "400": "The body is not the JSON of a request.",
    "401": "The API key is missing or wrong.",
    "404": "There is no such endpoint or job, or the job's result is not kept any longer.",
    "429": "Too many requests, or too many jobs in the queue. Try again later.",
}


def operation(summary: str, answer: str, *, parameters: tuple[Schema, ...] = (), sends: bool = False) -> Schema:
    """Return an operation that answers 200 with a component."""
    content = {"content": {"application/json": {"schema": reference(answer)}}}
    built: Schema = {"summary": summary}
    if parameters:
        built["parameters"] = list(parameters)
    if sends:
        built["requestBody"] = {"required": True, "content": {"application/json": {"schema": reference("Request")}}}
    refused = {status: {"$ref": f"#/components/responses/{status}"} for status in REFUSALS}
    return built | {"responses": {"200": {"description": "OK"} | content, **refused}}


JOB_ID = {
    "name": "job_id",
    "in": "path",
    "required": True,
    "schema": {"type": "string"},
    "description": "The job's id.",
}
WAIT = {
    "name": "wait",
    "in": "query",
    "schema": {"type": "integer", "minimum": 1_000, "maximum": 300_000, "default": 90_000},
    "description": "Milliseconds after which a job that has not ended is answered as it is.",
}
PATHS = {
    "/run": {"post": operation("Queue a job. Its result is kept for 30 minutes.", "Job", sends=True)},
    "/runsync": {
        "post": operation(
            "Queue a job and wait for it. Its result is kept for a minute.", "Job", parameters=(WAIT,), sends=True
        )
    },
    "/status/{job_id}": {"get": operation("Ask for a job.", "Job", parameters=(JOB_ID,))},
    "/cancel/{job_id}": {"post": operation("Cancel a job, in any state.", "Job", parameters=(JOB_ID,))},
    "/health": {"get": operation("Ask for the numbers of jobs and workers.", "Health")},
}


def build(schemas: Mapping[str, Schema], version: str) -> Schema:
    """Return the OpenAPI document.

    Args:
        schemas: `request`, `transcribe`, `model_info` and `error` of `schemas/`.
        version: The worker's version.
    """
    components = components_of(schemas["request"], "Request")
    request = components["Request"]
    components["Input"] = request["properties"].pop("input")
    request["properties"] = {"input": reference("Input")} | PLATFORM_FIELDS
    components |= components_of(schemas["transcribe"], "Transcript")
    components |= components_of(schemas["model_info"], "ModelInfo")
    components |= components_of(as_platform_shows(schemas["error"]), "Failure")
    components |= {"Progress": PROGRESS, "Job": {"oneOf": [reference(name) for name in JOBS]}, **JOBS, "Health": HEALTH}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Parakeet worker on a RunPod endpoint",
            "description": "Speech-to-text with NVIDIA Parakeet: requests, jobs and their results.",
            "license": {"name": "MIT", "identifier": "MIT"},
            "version": version,
        },
        "servers": [
            {
                "url": "https://api.runpod.ai/v2/{endpoint_id}",
                "variables": {
                    "endpoint_id": {
                        "default": "ENDPOINT_ID",
                        "description": "The endpoint's id, from RunPod's console.",
                    }
                },
            }
        ],
        "security": [{"api_key": []}],
        "paths": PATHS,
        "components": {
            "securitySchemes": {"api_key": {"type": "http", "scheme": "bearer", "description": "A RunPod API key."}},
            "responses": {status: {"description": description} for status, description in REFUSALS.items()},
            "schemas": components,
        },
    }


def text() -> str:
    """Return what `schemas/openapi.json` holds for the schemas that are there now."""
    names = ("request", "transcribe", "model_info", "error")
    schemas = {name: json.loads((ROOT / "schemas" / f"{name}.json").read_text()) for name in names}
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    return json.dumps(build(schemas, version), indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    TARGET.write_text(text())
    sys.stdout.write(f"{TARGET.relative_to(ROOT)} is written.\n")
