"""The rooms of `src/`: which of them may import which, and what only some of them import."""

from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

from imports import PACKAGE, all_modules, imported_by, path_of, reachable

ROOT = Path(__file__).parents[2]

# What each room may import beside itself and the foundations.
ALLOWED = {
    "__main__": {"startup", "serverless", "audio"},
    "startup": {"serverless", "job", "audio", "asr", "model", "nemo"},
    "serverless": {"job", "asr"},
    "job": {"audio", "asr", "model"},
    "audio": {"asr"},
    "bake": {"nemo", "model", "asr"},
    "nemo": {"model", "asr"},
    "model": {"asr"},
    "asr": set(),
}
# Small modules that any room may import, and what they import of each other.
FOUNDATIONS = {
    "errors": set(),
    "settings": set(),
    "cancellation": set(),
    "stage_timer": set(),
    "http": set(),
    "exhaustion": {"cancellation", "errors"},
}
ROOMS = set(ALLOWED) | set(FOUNDATIONS)

# The only modules that may import these packages; a room stands for all of its modules.
ONLY = {
    "nemo": {"nemo", "bake"},
    "runpod": {"serverless", "audio.fetch.guard"},
    "torch": {"model", "nemo", "bake"},
}


def short(module: str) -> str:
    """The name of a module within the package."""
    return module.removeprefix(PACKAGE).lstrip(".")


def room_of(module: str) -> str:
    return short(module).partition(".")[0]


def arrows() -> dict[str, set[str]]:
    """The rooms that each room imports."""
    found: dict[str, set[str]] = defaultdict(set)
    for module in all_modules():
        for name in imported_by(module):
            if name.startswith(f"{PACKAGE}.") and room_of(name) != room_of(module):
                found[room_of(module)].add(room_of(name))
    return found


def test_every_module_is_in_a_room() -> None:
    assert {room_of(module) for module in all_modules()} - {""} == ROOMS


def test_arrows_go_down() -> None:
    for room, imported in arrows().items():
        allowed = FOUNDATIONS[room] if room in FOUNDATIONS else ALLOWED.get(room, set()) | set(FOUNDATIONS)
        assert imported <= allowed, room


def test_no_two_rooms_need_each_other() -> None:
    found = arrows()
    for room in found:
        seen, waiting = set(), list(found[room])
        while waiting:
            name = waiting.pop()
            assert name != room, f"{room} needs itself through other rooms"
            if name not in seen:
                seen.add(name)
                waiting += found.get(name, ())


def test_the_folders_of_audio_do_not_need_each_other() -> None:
    folders = ("audio.fetch", "audio.formats")
    for one, other in (folders, folders[::-1]):
        for module in all_modules():
            if short(module).startswith(one):
                assert not any(short(name).startswith(other) for name in imported_by(module)), module


@pytest.mark.parametrize(("package", "places"), ONLY.items())
def test_a_package_is_imported_in_its_rooms_alone(package: Any, places: Any) -> None:
    importing = {
        short(module)
        for module in all_modules()
        if any(name == package or name.startswith(f"{package}.") for name in imported_by(module))
    }
    assert importing
    for module in importing:
        assert any(module == place or module.startswith(f"{place}.") for place in places), module


def test_asr_needs_neither_torch_nor_nemo_nor_runpod() -> None:
    modules = {name for module in all_modules() if room_of(module) == "asr" for name in reachable(module)}
    imported = {name.partition(".")[0] for module in modules for name in imported_by(module)}
    assert not imported & {"torch", "nemo", "runpod"}


UNIT = ROOT / "tests" / "unit"
# The programs beside the package are modules of no package.
PROGRAMS = ("evaluation", "training")
TESTS = sorted(UNIT.rglob("test_*.py"))


def mirrored_by(path: Path) -> str:
    """The module that a unit test mirrors, as its name within the package."""
    return ".".join([PACKAGE, *path.relative_to(UNIT).parent.parts, path.stem.removeprefix("test_")])


@pytest.mark.parametrize("path", TESTS, ids=lambda path: str(path.relative_to(UNIT)))
def test_a_unit_test_mirrors_a_module(path: Any) -> None:
    folder = path.relative_to(UNIT).parent
    if folder.name in PROGRAMS:
        assert (ROOT / folder / path.name.removeprefix("test_")).is_file()
    else:
        assert path_of(mirrored_by(path)).is_file()


def test_torch_is_imported_by_no_unit_test_whose_module_does_without() -> None:
    for path in TESTS:
        needs_torch = any("torch" in imported_by(module) for module in reachable(mirrored_by(path)))
        lines = path.read_text().splitlines()
        assert needs_torch or not {"import torch", "from cpu import CPU"} & {line.strip() for line in lines}, path
