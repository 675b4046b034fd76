"""The Makefile's help, the workflows, Dependabot and pre-commit agree with each other and with the project."""

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = next(folder for folder in Path(__file__).parents if (folder / "Makefile").is_file())
MAKEFILE = (ROOT / "Makefile").read_text()
TARGETS = set(re.search(r"^\.PHONY: (.+)$", MAKEFILE, re.MULTILINE)[1].split())  # type: ignore[index]

WORKFLOWS = {path.stem: yaml.safe_load(path.read_text()) for path in (ROOT / ".github" / "workflows").glob("*.yml")}
JOBS = [job for workflow in WORKFLOWS.values() for job in workflow["jobs"].values()]
STEPS = [step for job in JOBS for step in job["steps"]]
DOCKERFILE = (ROOT / "Dockerfile").read_text()


def make(*arguments: str) -> str:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    command = [shutil.which("make"), "--no-print-directory", *arguments]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True).stdout  # type: ignore[arg-type, no-any-return]


def recipe(target: str) -> list[str]:
    block = re.search(rf"^{target}:.*\n((?:\t.*\n)+)", MAKEFILE, re.MULTILINE)[1]  # type: ignore[index]
    return block.replace("$(BIN)", ".venv/bin").split("\n")


def tools(commands: list[str]) -> set[str]:
    """The programs of `.venv` that commands run, with the subcommand of ruff."""
    return {tool for command in commands for tool in re.findall(r"\.venv/bin/(ruff \w+|\w+)", command)}


def make_targets(command: str) -> list[str]:
    return [target for line in re.findall(r"^make (.+)$", command, re.MULTILINE) for target in line.split()]


def test_help_lists_every_target_with_its_text() -> None:
    lines = make("help").splitlines()
    listed = [re.fullmatch(r"make ([a-z0-9-]+) +(\S.*)", line).groups() for line in lines]  # type: ignore[union-attr]
    assert {name for name, _ in listed} == TARGETS
    assert len(listed) == len(TARGETS)
    for name, text in listed:
        assert re.search(rf"^{name}:.* ## {re.escape(text)}$", MAKEFILE, re.MULTILINE)
    assert len({line.index(text) for line, (_, text) in zip(lines, listed, strict=True)}) == 1  # one column


def test_make_alone_prints_the_help() -> None:
    assert make() == make("help")


def test_ci_runs_for_main_and_pull_requests() -> None:
    triggers = WORKFLOWS["ci"][True]  # YAML 1.1 reads `on` as true
    assert triggers == {"push": {"branches": ["main"]}, "pull_request": None}
    assert WORKFLOWS["ci"]["concurrency"]["cancel-in-progress"] is True
    local = (ROOT / ".ci" / "run").read_text()
    assert [step["run"] for step in WORKFLOWS["ci"]["jobs"]["test"]["steps"] if "run" in step] == ["make lint test"]
    assert local.endswith("exec make lint test\n")


def test_the_image_is_published_for_a_version_or_by_hand() -> None:
    triggers = WORKFLOWS["image"][True]
    assert triggers["push"] == {"tags": ["v*"]}
    assert set(triggers["workflow_dispatch"]["inputs"]) == {"tag", "model", "revision", "sha256", "engine"}
    assert "cancel-in-progress" not in WORKFLOWS["image"]["concurrency"]


def test_an_image_is_checked_before_it_is_published() -> None:
    check, publish = (WORKFLOWS["image"]["jobs"][name] for name in ("check", "publish"))
    assert publish["needs"] == "check"
    assert "release-check" in make_targets(check["steps"][-1]["run"])


def test_the_build_gives_the_dockerfile_what_it_takes() -> None:
    build = next(step for step in STEPS if step.get("uses", "").startswith("docker/build-push-action@"))
    for name in re.findall(r"\b([A-Z][A-Z0-9_]+)=", build["with"]["build-args"]):
        assert re.search(rf"^ARG {name}=", DOCKERFILE, re.MULTILINE)
    secret, _, variable = build["with"]["secret-envs"].partition("=")
    assert f"--mount=type=secret,id={secret},required=false" in DOCKERFILE
    assert build["env"] == {variable: "${{ secrets.HF_TOKEN }}"}


def test_workflows_run_targets_that_exist() -> None:
    run = {target for step in STEPS for target in make_targets(step.get("run", ""))}
    assert {"lint", "test", "release-check"} <= run <= TARGETS


@pytest.mark.parametrize("name", WORKFLOWS)
def test_workflows_may_do_little(name: Any) -> None:
    assert WORKFLOWS[name]["permissions"] == {"contents": "read"}
    for job in WORKFLOWS[name]["jobs"].values():
        assert job["timeout-minutes"] <= 120
        may = job.get("permissions", {})
        assert may in ({}, {"contents": "read", "packages": "write"})
        assert ("packages" in may) == any(step.get("with", {}).get("push") for step in job["steps"])


@pytest.mark.parametrize("name", WORKFLOWS)
def test_actions_are_pinned_by_commit(name: Any) -> None:
    text = (ROOT / ".github" / "workflows" / f"{name}.yml").read_text()
    uses = re.findall(r"uses: (.+)$", text, re.MULTILINE)
    assert uses
    for action in uses:
        assert re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", action)


def test_one_commit_for_each_action() -> None:
    used = {step["uses"] for step in STEPS if "uses" in step}
    assert len({action.partition("@")[0] for action in used}) == len(used)


def test_ci_runs_on_the_oldest_python() -> None:
    pythons = WORKFLOWS["ci"]["jobs"]["test"]["strategy"]["matrix"]["python"]
    oldest = re.search(r'requires-python = ">=(\d+\.\d+)', (ROOT / "pyproject.toml").read_text())[1]  # type: ignore[index]
    assert pythons[0] == oldest


def test_dependabot_follows_packages_image_and_actions() -> None:
    config = yaml.safe_load((ROOT / ".github" / "dependabot.yml").read_text())
    assert config["version"] == 2
    updates = {update["package-ecosystem"]: update for update in config["updates"]}
    assert updates.keys() == {"pip", "docker", "github-actions"}
    for update in updates.values():
        assert update["schedule"] == {"interval": "weekly"}
        assert list(update["groups"].values())[-1] == {"patterns": ["*"]}  # nothing is left out of the groups


def test_pre_commit_runs_the_linters() -> None:
    config = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())
    hooks = [hook for repo in config["repos"] for hook in repo["hooks"]]
    assert {repo["repo"] for repo in config["repos"]} == {"local"}
    assert tools([hook["entry"] for hook in hooks]) == tools(recipe("lint"))
    assert tools(recipe("lint")) == {"ruff check", "ruff format", "mypy", "hadolint"}
