"""The README says what the code does."""

import json
import re
from dataclasses import fields
from pathlib import Path

from audio_files import data_url
from conftest import check_schema
from parakeet_worker import contract
from parakeet_worker.settings import Settings

README = (Path(__file__).parents[1] / "README.md").read_text()


def table(title: str) -> dict[str, list[str]]:
    """The rows of a section's last table, by their first cell."""
    section = README.partition(f"\n## {title}\n")[2].partition("\n## ")[0]
    rows = [re.split(r"(?<!\\) *\| *", line)[1:-1] for line in section.splitlines() if line.startswith("| `")]
    return {row[0].strip("`"): row[1:] for row in rows}


def example(name: str) -> dict:
    return json.loads(README.partition(f"<!-- {name} -->\n```json\n")[2].partition("```")[0])


def test_request_table():
    schema = contract.schema("request")["properties"]["input"]["properties"]
    rows = table("Request")
    assert list(rows) == list(schema)
    for field, (_, default, meaning) in rows.items():
        assert meaning == schema[field]["description"].replace(" Required for `transcribe`.", "")
        if "default" in schema[field]:
            assert json.loads(default.strip("`")) == schema[field]["default"]


def test_failure_table():
    codes = contract.schema("error")["properties"]["code"]["oneOf"]
    assert {code: row[0] for code, row in table("Failures").items()} == {c["const"]: c["description"] for c in codes}


def test_settings_table():
    settings = {field.metadata["variable"]: field.metadata for field in fields(Settings)}
    rows = table("Settings")
    assert {variable: row[1] for variable, row in rows.items()} == {v: m["meaning"] for v, m in settings.items()}
    for variable, (default, _) in rows.items():
        if default.startswith("`"):
            assert settings[variable]["default"].endswith(default.split("`")[1])


def test_examples_are_real(ask, clips):
    shown = example("transcribe")["output"]
    check_schema(shown, "transcribe")
    given = ask({"input": {"audio_url": data_url(clips[18].path.read_bytes()), "timestamps": True}})
    varying = {"processing_time", "timestamp"}
    assert {k: v for k, v in shown.items() if k not in varying} == {k: v for k, v in given.items() if k not in varying}
    assert example("model_info") == ask({"input": {"action": "model_info"}})


def test_every_failure_has_an_advice():
    operate = README.partition("\n## Operate\n")[2].partition("\n## ")[0]
    rows = [line.split(" | ")[0] for line in operate.splitlines() if line.startswith("| `")]
    advised = [code for row in rows for code in re.findall("`(.*?)`", row)]
    assert sorted(advised) == sorted(c["const"] for c in contract.schema("error")["properties"]["code"]["oneOf"])
