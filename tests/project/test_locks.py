"""The locks name what the code imports: the one for serving neither NeMo nor what only the bake needs."""

import re
import sys
from importlib.metadata import packages_distributions
from typing import Any

import pytest

from imports import PACKAGE, all_modules, imported_by
from project import ROOT

DISTRIBUTIONS = packages_distributions()
# The rooms whose packages are in requirements-nemo.in.
NEMO = ("nemo", "bake")


def name(requirement: str) -> str:
    return re.split(r"[^\w.-]", requirement)[0].lower().replace("_", "-")


def lines(file: str) -> set[str]:
    text = (ROOT / file).read_text()
    return {line.partition("  #")[0].strip() for line in text.splitlines() if line and not line.startswith(("#", "-"))}


def named(file: str) -> set[str]:
    return {name(line) for line in lines(file)}


def imported(modules: list[str]) -> dict[str, str]:
    """The distributions that modules import from, each with one of the modules."""
    return {
        name(DISTRIBUTIONS[package][0]): module
        for module in modules
        for package in {found.partition(".")[0] for found in imported_by(module)}
        if package != PACKAGE and package not in sys.stdlib_module_names and package != "_typeshed"
    }


def serving() -> list[str]:
    return [module for module in all_modules() if not module.startswith(tuple(f"{PACKAGE}.{room}" for room in NEMO))]


def test_serving_imports_what_its_requirements_name() -> None:
    found = imported(serving())
    assert {"torch", "runpod"} <= set(found)
    missing = set(found) - named("requirements.in")
    assert not missing, {package: found[package] for package in missing}


def test_the_bake_and_nemo_import_what_the_requirements_name() -> None:
    found = imported(sorted(set(all_modules()) - set(serving())))
    assert "nemo-toolkit" in found
    missing = set(found) - named("requirements.in") - named("requirements-nemo.in")
    assert not missing, {package: found[package] for package in missing}


def test_no_requirement_is_left_that_nothing_imports() -> None:
    assert named("requirements.in") <= set(imported(serving()))
    assert named("requirements-nemo.in") <= set(imported(list(all_modules())))


def test_serving_locks_nothing_of_nemo() -> None:
    serving, nemo = named("requirements.txt"), named("requirements-nemo.txt")
    assert named("requirements.in") <= serving < nemo
    assert named("requirements-nemo.in") <= nemo
    assert not serving & {"nemo-toolkit", "omegaconf", "lightning", "transformers", "librosa", "numba", "pandas"}


def test_the_locks_install_together() -> None:
    nemo = {line.partition(" ;")[0] for line in lines("requirements-nemo.txt")}
    assert {line.partition(" ;")[0] for line in lines("requirements.txt")} <= nemo
    for line in lines("requirements-dev.txt"):
        assert name(line) not in named("requirements-nemo.txt") or line.partition(" ;")[0] in nemo


@pytest.mark.parametrize("lock", ["requirements.txt", "requirements-nemo.txt", "requirements-dev.txt"])
def test_no_lock_names_the_libraries_of_cuda(lock: Any) -> None:
    assert not {package for package in named(lock) if package.startswith(("nvidia-", "cuda-")) or package == "triton"}
