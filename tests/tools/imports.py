"""Which modules of the project import which, read from their sources."""

import ast
from functools import cache
from pathlib import Path

SOURCE = Path(__file__).parents[2] / "src"
PACKAGE = "parakeet_worker"


@cache
def path_of(module: str) -> Path:
    """The file of a module."""
    path = SOURCE / Path(*module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


@cache
def all_modules() -> tuple[str, ...]:
    """All modules of the project."""
    paths = sorted((SOURCE / PACKAGE).rglob("*.py"))
    names = [".".join(path.relative_to(SOURCE).with_suffix("").parts) for path in paths]
    return tuple(name.removesuffix(".__init__") for name in names)


@cache
def imported_by(module: str) -> frozenset[str]:
    """What a module imports, anywhere in it: modules of the project, and the names of other packages."""
    found = set()
    for node in ast.walk(ast.parse(path_of(module).read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            submodules = {f"{node.module}.{alias.name}" for alias in node.names} & set(all_modules())
            found |= submodules or {node.module}
        elif isinstance(node, ast.Call) and ast.unparse(node.func) == "importlib.import_module":
            argument = node.args[0]
            if isinstance(argument, ast.Constant):
                found.add(argument.value)  # type: ignore[arg-type]
    return frozenset(found)


def reachable(module: str) -> set[str]:
    """A module, and all of the project that it imports, directly or not."""
    seen: set[str] = set()
    waiting = [module]
    while waiting:
        name = waiting.pop()
        if name in all_modules() and name not in seen:
            seen.add(name)
            waiting += imported_by(name)
    return seen
