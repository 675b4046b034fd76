"""What the README and docs/ say is what the code does."""

import ast
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import torch

from audio_files import data_url
from imports import PACKAGE, SOURCE, all_modules, imported_by
from parakeet_worker.errors import JobError
from parakeet_worker.job.request import parse_request, schema
from parakeet_worker.model.device import make_plan
from parakeet_worker.settings import Settings
from project import ROOT, check_schema

FOREIGN = {".venv", "node_modules", ".pytest_cache", ".mypy_cache", ".hypothesis"}
PATHS = sorted(path for path in ROOT.rglob("*.md") if not FOREIGN & set(path.relative_to(ROOT).parts))
TEXTS = {str(path.relative_to(ROOT)): path.read_text() for path in PATHS}
README, API, OPERATE = TEXTS["README.md"], TEXTS["docs/api.md"], TEXTS["docs/operate.md"]
DEPLOY = TEXTS["docs/deploy.md"]
CONTRIBUTING, ARCHITECTURE = TEXTS["CONTRIBUTING.md"], TEXTS["docs/architecture.md"]
TARGETS = set(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))

MOST_README_WORDS = 1_300


def section(text: str, title: str) -> str:
    """The part of a document below a heading, with the smaller headings in it."""
    level, rest = re.split(rf"^(#+) {re.escape(title)}\n", text, maxsplit=1, flags=re.MULTILINE)[1:]
    return re.split(rf"^#{{1,{len(level)}}} ", rest, maxsplit=1, flags=re.MULTILINE)[0]


def table(text: str) -> dict[str, list[str]]:
    """The rows of the tables in a text, by their first cell. Tables' heads and rows without code in it are left out."""
    rows = [re.split(r"(?<!\\) *\| *", line)[1:-1] for line in text.splitlines() if line.startswith("| `")]
    assert rows
    return {row[0].strip("`"): row[1:] for row in rows}


def block(text: str, marker: str, language: str) -> str:
    found = text.partition(f"<!-- {marker} -->\n```{language}\n")[2].partition("```\n")[0]
    assert found
    return found


def code(text: str) -> Iterator[str]:
    """The lines of code in a document: those of its blocks, and what stands between backticks."""
    for lines in re.findall(r"^ *```\w*\n(.*?)^ *```$", text, re.MULTILINE | re.DOTALL):
        yield from lines.splitlines()
    yield from re.findall(r"`([^`\n]+)`", re.sub(r"^ *```.*?^ *```$", "", text, flags=re.MULTILINE | re.DOTALL))


def test_the_readme_is_short() -> None:
    assert len(README.split()) < MOST_README_WORDS


def test_request_table() -> None:
    known = schema("request")["properties"]["input"]["properties"]
    rows = table(section(README, "Request"))
    assert list(rows) == list(known)
    for field, (_, default, meaning) in rows.items():
        assert meaning == re.sub(r" Required for `transcribe`.*", "", known[field]["description"])
        if "default" in known[field]:
            assert json.loads(default.strip("`")) == known[field]["default"]


def test_response_table() -> None:
    """Fields that only a request for them adds may stand in the table of request fields alone."""
    known = schema("transcribe")
    rows = table(section(API, "transcribe"))
    assert set(known["required"]) | {"notice", "timestamps"} <= rows.keys()
    assert list(rows) == [field for field in known["properties"] if field in rows]


def test_caption_limits() -> None:
    limits = schema("request")["properties"]["input"]["properties"]["captions"]["anyOf"][1]["properties"]
    rows = table(section(API, "Captions"))
    assert rows.keys() == limits.keys() - {"format"}
    for name, (default, meaning) in rows.items():
        assert float(default) == limits[name]["default"]
        assert f" {limits[name]['minimum']} to {limits[name]['maximum']}." in meaning


def test_failure_table() -> None:
    codes = schema("error")["properties"]["code"]["oneOf"]
    rows = table(section(API, "Failures"))
    assert {code: row[0] for code, row in rows.items()} == {c["const"]: c["description"] for c in codes}


@pytest.mark.parametrize(
    ("code", "job_input"),
    [
        ("missing_field", {}),
        ("invalid_type", {"audio_url": "https://h/a", "timestamps": "yes"}),
        ("unknown_field", {"audio_url": "https://h/a", "language": "en"}),
        ("unknown_action", {"action": "translate"}),
        ("conflicting_fields", {"audio_url": "https://h/a", "audio_base64": "AAAA"}),
        ("invalid_url", {"audio_url": "a.wav"}),
        ("invalid_timestamps", {"audio_url": "https://h/a", "timestamps": ["words"]}),
        ("invalid_segment_pause", {"audio_url": "https://h/a", "segment_pause": 0}),
        ("invalid_captions", {"audio_url": "https://h/a", "captions": True}),
        ("invalid_confidence", {"audio_url": "https://h/a", "confidence": 1}),
        ("invalid_keyterms", {"audio_url": "https://h/a", "keyterms": ["Jo", "Jo"]}),
    ],
)
def test_examples_of_refused_requests_are_real(code: str, job_input: dict[str, Any]) -> None:
    with pytest.raises(JobError) as refused:
        parse_request({"input": job_input})
    shown = table(section(API, "Failures"))[code][1].strip("`")
    assert refused.value.code == code
    assert re.fullmatch(re.escape(shown).replace("…", ".*"), refused.value.message)


def test_every_failure_has_advice() -> None:
    advised = [code for row in table(section(OPERATE, "Failures")) for code in re.findall(r"\w+", row)]
    assert sorted(advised) == sorted(c["const"] for c in schema("error")["properties"]["code"]["oneOf"])


def test_settings_table() -> None:
    settings = {field.metadata["variable"]: field.metadata for field in fields(Settings)}
    rows = table(section(OPERATE, "Settings"))
    assert {variable: row[1] for variable, row in rows.items()} == {v: m["meaning"] for v, m in settings.items()}
    for variable, (default, _) in rows.items():
        if default.startswith("`"):
            assert settings[variable]["default"].endswith(default.split("`")[1])


@pytest.mark.parametrize("name", TEXTS)
def test_settings_that_are_mentioned_exist(name: str) -> None:
    known = {field.metadata["variable"] for field in fields(Settings)}
    assert set(re.findall(r"\bPARAKEET_[A-Z_]*[A-Z]\b", TEXTS[name])) <= known


@pytest.mark.parametrize("size_gb", [8, 16, 24, 48])
def test_the_longest_batches(monkeypatch: pytest.MonkeyPatch, size_gb: int) -> None:
    [shown] = re.findall(rf"^\| {size_gb} GB[^|]*\| ([\d,]+) s[^|]*\| ([\d,]+) s \|$", DEPLOY, re.MULTILINE)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (8, 0))
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (int((size_gb - 0.8) * 1e9), size_gb * 10**9))
    for engine, seconds in zip(("plain", "nemo"), shown, strict=True):
        plan = make_plan("cuda", "auto", None, 617_800_000, engine=engine, uses_graphs=engine == "plain")
        assert f"{round(plan.batch_seconds, -1):,.0f}" == seconds, engine


def test_the_options_of_the_bake() -> None:
    options = re.findall(r'"(--[\w-]+)"', (SOURCE / PACKAGE / "bake/command.py").read_text())
    named = set(re.findall(r"`(--[\w-]+)", section(DEPLOY, "Models")))
    assert options
    assert named | {"--out"} == set(options)


def test_examples_are_real(ask: Any) -> None:
    request = block(README, "request", "bash")
    sent = json.loads(re.sub(r"\$\(.*?\)", "", request.splitlines()[1]))["input"]
    clip = ROOT / re.findall(r"base64 < (\S+)", request)[0]
    shown = json.loads(block(README, "transcribe", "json"))["output"]
    check_schema(shown, "transcribe")
    given = ask({"input": sent | {"audio_url": data_url(clip.read_bytes())}})
    varying = {"processing_time", "timestamp", "created_at"}
    assert {k: v for k, v in shown.items() if k not in varying} == {k: v for k, v in given.items() if k not in varying}


def test_the_bundled_clip_gives_what_the_readme_shows(ask: Any) -> None:
    shown = section(README, "Try it").partition("```text\n")[2].partition("```")[0]
    given = ask(json.loads((ROOT / "test_input.json").read_text()))
    text, start = shown.split("\n\n")
    assert text == given["text"]
    lines = [line.strip().rstrip(",") for line in start.splitlines() if line.startswith('  "')]
    assert lines
    assert [json.loads(f"{{{line}}}") for line in lines] == [{key: given[key]} for key in list(given)[: len(lines)]]


def test_the_example_of_model_info_is_real(ask: Any) -> None:
    assert json.loads(block(API, "model_info", "json")) == ask({"input": {"action": "model_info"}})


def anchors(text: str) -> set[str]:
    """The anchors of a document's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL), re.MULTILINE)
    slugs = [re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings]
    assert len(set(slugs)) == len(slugs)
    return set(slugs)


@pytest.mark.parametrize("name", TEXTS)
def test_links_lead_somewhere(name: str) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", TEXTS[name]):
        if re.match("https?:", link):
            continue
        path, _, anchor = link.partition("#")
        target = ((ROOT / name).parent / path).resolve() if path else ROOT / name
        assert target.exists(), link
        if anchor:
            assert anchor in anchors(target.read_text()), link


def test_the_readme_leads_to_every_document() -> None:
    for path in (ROOT / "docs").glob("*.md"):
        assert f"](docs/{path.name})" in section(README, "Documentation")


@pytest.mark.parametrize("name", TEXTS)
def test_targets_that_are_mentioned_exist(name: str) -> None:
    for line in code(TEXTS[name]):
        for arguments in re.findall(r"(?:^|[;&|] *| )make((?: +[^\s;&|#]+)*)", line):
            assert {word for word in arguments.split() if "=" not in word and not word.startswith("-")} <= TARGETS, line


@pytest.mark.parametrize("name", TEXTS)
def test_modules_that_are_run_exist(name: str) -> None:
    for module in re.findall(rf"python -m ({PACKAGE}[\w.]*)", TEXTS[name]):
        path = SOURCE / Path(*module.split("."))
        assert path.with_suffix(".py").is_file() or (path / "__main__.py").is_file()


def test_figures_are_the_benchmarks() -> None:
    measured = set(re.findall(r"\d+\.\d+", TEXTS["benchmarks/README.md"]))
    speed = section(README, "Speed and cost").partition("An hour of audio costs")[0]
    for figures in (speed, TEXTS["docs/performance.md"]):
        assert set(re.findall(r"\d+\.\d+", re.sub(r"TDT-0\.6B|4\.8 M parameters", "", figures))) <= measured


@pytest.mark.parametrize("name", ["CONTRIBUTING.md", "docs/architecture.md"])
def test_files_that_are_mentioned_exist(name: str) -> None:
    known = {"card.json", "job/paragraphs.py", "tests/unit/job/test_paragraphs.py"}  # of a model; of the worked example
    outside_blocks = re.sub(r"^```.*?^```$", "", TEXTS[name], flags=re.MULTILINE | re.DOTALL)
    mentioned = re.findall(r"`([\w./-]+\.(?:py|json|md|toml|yml))`", outside_blocks)
    assert mentioned
    for path in mentioned:
        assert path in known or any((folder / path).is_file() for folder in (ROOT, SOURCE / PACKAGE)), path


def test_rooms() -> None:
    """The table has all rooms in it, and every import between them; no two rooms need each other."""
    rows = {room: set(re.findall(r"\w+", row[-1])) for room, row in table(section(ARCHITECTURE, "Rooms")).items()}
    everywhere = {room for room, imports in rows.items() if not imports} - {"asr"}

    def room_of(module: str) -> str:
        return module.removeprefix(PACKAGE).lstrip(".").partition(".")[0]

    assert rows.keys() == {room_of(module) for module in all_modules()} - {""}
    for module in all_modules():
        imported = {room_of(name) for name in imported_by(module) if name.startswith(f"{PACKAGE}.")}
        assert imported <= rows.get(room_of(module), set()) | everywhere | {room_of(module)}, module
    order = list(rows)
    assert all(order.index(room) < order.index(name) for room, imports in rows.items() for name in imports)


def patched(text: str, change: str) -> str:
    """Apply a diff without line numbers: what it keeps and removes occurs once."""
    lines = change.splitlines(keepends=True)
    before, after = ("".join(line[1:] for line in lines if line[0] in signs) for signs in (" -", " +"))
    assert text.count(before) == 1 or not before
    return text.replace(before, after) if before else after


USE = """
from parakeet_worker.asr.types import Hypothesis, Token
from parakeet_worker.job.request import parse_request, schema
from parakeet_worker.job.response import Recording, build_response
from jsonschema import Draft202012Validator
import json

request = parse_request({"input": {"audio_url": "https://h/a", "paragraphs": True}})
hypothesis = Hypothesis("One. Two. Three.", (
    Token("▁One.", 0.0, 0.4), Token("▁Two.", 2.3, 2.8), Token("▁Three.", 4.8, 5.04)
))
fields = build_response(request, hypothesis, Recording(4000.0, 16000), 0.1)
Draft202012Validator(schema("transcribe")["properties"]["paragraphs"]).validate(fields["paragraphs"])
assert "paragraphs" not in build_response(
    parse_request({"input": {"audio_url": "https://h/a"}}), hypothesis, Recording(4000.0, 16000), 0.1
)
try:
    parse_request({"input": {"audio_url": "https://h/a", "paragraphs": "yes"}})
except Exception as error:
    listed = [code["const"] for code in schema("error")["properties"]["code"]["oneOf"]]
    assert error.code in listed
    print(json.dumps([fields["paragraphs"], error.code, error.message]))
"""


def test_the_worked_example_works(tmp_path: Path) -> None:
    for folder in ("src", "schemas"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    shutil.copy(ROOT / "README.md", tmp_path)
    changes = re.findall(r"<!-- patch (\S+) -->\n```diff\n(.*?)```\n", CONTRIBUTING, re.DOTALL)
    assert len({path for path, _ in changes}) == 8
    for path, change in changes:
        file = tmp_path / path
        text = patched(file.read_text() if file.exists() else "", change)
        file.write_text(text)
        if file.suffix == ".py":
            ast.parse(text)
            assert f"`{path.removeprefix(f'src/{PACKAGE}/')}`" in CONTRIBUTING
    done = subprocess.run(
        [sys.executable, "-c", USE],
        env={"PYTHONPATH": str(tmp_path / "src")},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    paragraphs, violation, message = json.loads(done.stdout)
    assert paragraphs == ["One. Two.", "Three."]
    assert violation == "invalid_paragraphs"
    assert f"`{message}`" in CONTRIBUTING
