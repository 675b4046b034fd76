"""The documentation is about the code that is there: tables, examples, links and commands."""

import json
import re
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from audio_files import data_url
from parakeet_worker.job.request import schema
from parakeet_worker.settings import Settings
from project import ROOT, Clip, check_schema

DOCS = ROOT / "docs"
PAGES = sorted([*ROOT.glob("*.md"), *DOCS.glob("*.md"), *(ROOT / "benchmarks").glob("*.md")])
README = (ROOT / "README.md").read_text()
TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


def section(page: Path, title: str) -> str:
    """The text under a heading of the second level."""
    found = page.read_text().partition(f"\n## {title}\n")[2].partition("\n## ")[0]
    assert found, title
    return found


def table(page: Path, title: str) -> dict[str, list[str]]:
    """The rows of a section's tables, by their first cell."""
    lines = section(page, title).splitlines()
    rows = [re.split(r"(?<!\\) *\| *", line)[1:-1] for line in lines if line.startswith("| `")]
    return {row[0].strip("`"): row[1:] for row in rows}


def example(page: Path, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(page.read_text().partition(f"<!-- {name} -->\n```json\n")[2].partition("```")[0])
    return found


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub makes of the headings of a page."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_request_table() -> None:
    known = schema("request")["properties"]["input"]["properties"]
    rows = table(ROOT / "README.md", "Request")
    assert list(rows) == list(known)
    for field, (_, default, meaning) in rows.items():
        assert meaning == known[field]["description"].replace(" Required for `transcribe`.", "")
        if "default" in known[field]:
            assert json.loads(default.strip("`")) == known[field]["default"]


def test_response_table() -> None:
    assert [field for field in table(DOCS / "api.md", "Response") if field != "status"] == [
        field for field in schema("transcribe")["properties"] if field != "status"
    ]


def test_failure_table() -> None:
    codes = schema("error")["properties"]["code"]["oneOf"]
    rows = table(DOCS / "api.md", "Failures")
    assert {code: row[0] for code, row in rows.items()} == {c["const"]: c["description"] for c in codes}


def test_settings_table() -> None:
    settings = {field.metadata["variable"]: field.metadata for field in fields(Settings)}
    rows = table(DOCS / "operate.md", "Settings")
    assert {variable: row[1] for variable, row in rows.items()} == {v: m["meaning"] for v, m in settings.items()}
    for variable, (default, _) in rows.items():
        if default.startswith("`"):
            assert settings[variable]["default"].endswith(default.split("`")[1])


def test_examples_are_real(ask: Callable[[Any], dict[str, Any]], clips: list[Clip]) -> None:
    shown = example(ROOT / "README.md", "transcribe")["output"]
    check_schema(shown, "transcribe")
    given = ask({"input": {"audio_url": data_url(clips[18].path.read_bytes()), "timestamps": True}})
    varying = {"processing_time", "timestamp"}
    assert {k: v for k, v in shown.items() if k not in varying} == {k: v for k, v in given.items() if k not in varying}
    assert example(DOCS / "api.md", "model_info") == ask({"input": {"action": "model_info"}})


def test_every_failure_has_an_advice() -> None:
    rows = [line.split(" | ")[0] for line in section(DOCS / "operate.md", "Operate").splitlines() if line[:3] == "| `"]
    advised = [code for row in rows for code in re.findall("`(.*?)`", row)]
    assert sorted(advised) == sorted(c["const"] for c in schema("error")["properties"]["code"]["oneOf"])


def test_the_readme_is_read_in_five_minutes() -> None:
    assert len(README.split()) < 1_300


def test_the_figures_are_the_benchmarks() -> None:
    measured = json.loads((ROOT / "benchmarks" / "results" / "embedded-cpu.json").read_text())
    table_of_results = (ROOT / "benchmarks" / "results" / "embedded-cpu.txt").read_text()
    assert measured
    for rtfx, ratio in re.findall(r"\| ([\d.]+) \| ([\d.]+x) \|", section(ROOT / "README.md", "Speed and cost")):
        assert re.search(rf"\s{re.escape(rtfx)}\s+{re.escape(ratio)}", table_of_results)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"https?:|mailto:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        if anchor:
            assert anchor in anchors(target), link


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_exist(page: Path) -> None:
    text = page.read_text()
    named = re.findall(r"`make ([a-z][a-z-]*)", text) + re.findall(r"^make ([a-z-]+)", text, re.MULTILINE)
    assert set(named) <= TARGETS
    for module in re.findall(r"python -m (parakeet_worker[\w.]*)", text):
        path = ROOT / "src" / Path(*module.split("."))
        assert path.with_suffix(".py").is_file() or (path / "__main__.py").is_file()
