"""Importing only those modules of a large package that serving needs.

`nemo.collections.asr` loads about 5,300 modules beside torch's own, for training, logging and data sets, and takes five
times as long as torch. Serving uses a few hundred of them. Three rules skip the rest:

- The `__init__` of a *forwarding* package imports names mainly to re-export them. A re-exported name is imported when
  it is first accessed. Other statements of the `__init__` are executed at once.
- An *unused* module is imported by some files but never used in serving. A stand-in takes its place in `sys.modules`.
  Names can be imported from the stand-in, appear in annotations and be passed to `isinstance`. Calling a name,
  deriving a class from it, or taking an attribute or an item of it imports the real module.
- Importing an *optional* module fails with ModuleNotFoundError. Code that imports it catches that and does without.

The rules apply until `import_leanly` returns. Modules that are imported later are imported normally. If an import
fails under the rules, everything is imported normally.
"""

import ast
import importlib
import sys
import threading
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from types import ModuleType
from typing import Any, TypeVar, Union

T = TypeVar("T")


@dataclass(frozen=True)
class Rules:
    """The modules that each rule applies to. A name stands for the module and all its submodules.

    Attributes:
        forwarding: Packages whose `__init__` files re-export names.
        unused: Modules that serving never uses.
        optional: Modules whose failing import is caught by the code that imports them.
    """

    forwarding: Collection[str] = ()
    unused: Collection[str] = ()
    optional: Collection[str] = ()


def import_leanly(importing: Callable[[], T], rules: Rules, on_failure: Callable[[Exception], None]) -> T:
    """Import under the rules. If that fails, import again without them.

    Args:
        importing: Imports modules, and returns what is needed of them. Called again without the rules if it raises.
        rules: The rules. They apply to this thread only.
        on_failure: Called with the exception before `importing` is called again.

    Returns:
        What `importing` returns.

    Raises:
        Exception: The second call of `importing` failed.
    """
    before = set(sys.modules)
    finder = _Finder(rules)
    sys.meta_path.insert(0, finder)
    try:
        return importing()
    except Exception as error:  # noqa: BLE001 - an import may raise anything
        sys.meta_path.remove(finder)
        for name in sys.modules.keys() - before:
            if _within(name, rules.forwarding):
                del sys.modules[name]
        on_failure(error)
    finally:
        if finder in sys.meta_path:
            sys.meta_path.remove(finder)
        finder.finish()
    return importing()


def _within(name: str, roots: Collection[str]) -> str | None:
    """Return the one of `roots` that is the module itself or one of its parent packages, or None."""
    return next((root for root in roots if name == root or name.startswith(f"{root}.")), None)


class _Finder(MetaPathFinder):
    """Applies the rules to imports on the thread that made it. Other imports are left to the import system."""

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self._unused = set(rules.unused)
        self._thread = threading.get_ident()
        self.is_done = False

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if threading.get_ident() != self._thread:
            return None
        if _within(name, self._rules.optional):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        is_unused = _within(name, self._unused)
        if not (is_unused or _within(name, self._rules.forwarding)):
            return None
        found = PathFinder.find_spec(name, path, target)
        if found is None or type(found.loader) is not SourceFileLoader:
            return found
        is_package = found.submodule_search_locations is not None
        if is_unused:
            spec = ModuleSpec(name, _StandInLoader(self), origin=found.origin, is_package=is_package)
            if found.submodule_search_locations is not None:
                spec.submodule_search_locations = list(found.submodule_search_locations)
            return spec
        if is_package:
            found.loader = _ForwardingLoader(found.loader.name, found.loader.path)
        return found

    def real(self, name: str) -> ModuleType:
        """Import a module in place of its stand-in. Its whole unused package is real from then on."""
        root = _within(name, self._unused)
        if root:
            self._unused.remove(root)
            self._remove(root)
        return importlib.import_module(name)

    def real_name(self, module: str, name: str) -> Any:
        """Import the object that a name of a stand-in stands for."""
        try:
            return getattr(self.real(module), name)
        except AttributeError:
            return self.real(f"{module}.{name}")

    def finish(self) -> None:
        """Remove the stand-ins, so that later imports find the real modules."""
        self.is_done = True
        for root in self._unused:
            self._remove(root)

    def _remove(self, root: str) -> None:
        for name, module in list(sys.modules.items()):
            if _within(name, [root]) and isinstance(module, _StandIn):
                del sys.modules[name]
                package, _, last = name.rpartition(".")
                vars(sys.modules.get(package, module)).pop(last, None)


class _ForwardingLoader(SourceFileLoader):
    """Executes an `__init__` without the imports of names that it only re-exports."""

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return _Forwarding(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        tree = ast.parse(self.get_data(self.path))
        used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
        forwarded: dict[str, ast.stmt] = {}
        others: list[ast.stmt] = []
        kept: list[ast.stmt] = []
        for statement in tree.body:
            if not isinstance(statement, ast.Import | ast.ImportFrom) or _is_future(statement):
                kept.append(statement)
                continue
            for alias in statement.names:
                single = _with_names(statement, [alias])
                bound = alias.asname or alias.name.partition(".")[0]
                if bound in used:
                    kept.append(single)
                elif isinstance(statement, ast.Import) or alias.name == "*":
                    others.append(single)
                else:
                    forwarded[bound] = single
        vars(module).update({_FORWARDED: forwarded, _OTHERS: others, _FILE: self.path})
        tree.body = kept
        exec(compile(tree, self.path, "exec", dont_inherit=True), vars(module))  # noqa: S102 - as an import does


_FORWARDED, _OTHERS, _FILE = "_forwarded_names", "_other_imports", "_forwarding_file"


class _Forwarding(ModuleType):
    """A package that executes the deferred imports of its `__init__` when their names are accessed."""

    def __getattr__(self, name: str) -> Any:
        state = vars(self)
        forwarded, others = state.get(_FORWARDED, {}), state.get(_OTHERS, [])
        if name in forwarded:
            self._run(forwarded.pop(name), forwarded, name)
            return state[name]
        if name == "__all__":  # read by `import *`, which imports all names if there is none
            for each in list(forwarded):
                getattr(self, each)
        if name == "__all__" or not name.startswith("__"):
            # An `import *` or an `import module` that was deferred may bind it.
            while others:
                self._run(others.pop(0))
                if name in state:
                    return state[name]
        raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")

    def _run(self, statement: ast.stmt, forwarded: dict[str, ast.stmt] | None = None, name: str = "") -> None:
        try:
            tree = ast.Module([statement], [])
            exec(compile(tree, vars(self)[_FILE], "exec", dont_inherit=True), vars(self))  # noqa: S102
        except Exception as error:
            if forwarded is not None:
                forwarded[name] = statement
            if isinstance(error, AttributeError):
                # The import system would treat an AttributeError as a missing name.
                raise ImportError(f"{self.__name__} could not import {name}: {error}") from error  # noqa: TRY004
            raise


def _is_future(statement: ast.Import | ast.ImportFrom) -> bool:
    return isinstance(statement, ast.ImportFrom) and statement.module == "__future__"


def _with_names(statement: ast.Import | ast.ImportFrom, names: list[ast.alias]) -> ast.stmt:
    if isinstance(statement, ast.Import):
        return ast.copy_location(ast.Import(names), statement)
    return ast.copy_location(ast.ImportFrom(statement.module, names, statement.level), statement)


class _StandInLoader(Loader):
    def __init__(self, finder: _Finder) -> None:
        self._finder = finder

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return _StandIn(spec.name, self._finder)

    def exec_module(self, module: ModuleType) -> None:
        pass


class _StandIn(ModuleType):
    """Stands in for an unused module."""

    def __init__(self, name: str, finder: _Finder) -> None:
        super().__init__(name)
        self._finder = finder

    def __getattr__(self, name: str) -> Any:
        if name in ("__all__", "__file__", "__path__", "__wrapped__"):
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        if name.startswith("__"):
            return getattr(self._finder.real(self.__name__), name)
        if self._finder.is_done:
            return self._finder.real_name(self.__name__, name)
        return _StandInName(self._finder, self.__name__, name)


class _StandInName:
    """Stands in for a name of an unused module. Using it imports the module."""

    def __init__(self, finder: _Finder, module: str, name: str) -> None:
        self._stands_for = (finder, module, name)

    def _real(self) -> Any:
        finder, module, name = self._stands_for
        return finder.real_name(module, name)

    def _is_imported(self) -> bool:
        return self._stands_for[1] in sys.modules and not isinstance(sys.modules[self._stands_for[1]], _StandIn)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # `typing` and others probe for such names
            raise AttributeError(name)
        return getattr(self._real(), name)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._real()(*args, **kwargs)

    def __getitem__(self, key: Any) -> Any:
        return self._real()[key]

    def __mro_entries__(self, bases: tuple[Any, ...]) -> tuple[Any, ...]:
        return (self._real(),)

    # Before its module is imported, a class has no instances.
    def __instancecheck__(self, instance: object) -> bool:
        return self._is_imported() and isinstance(instance, self._real())

    def __subclasscheck__(self, subclass: type) -> bool:
        return self._is_imported() and issubclass(subclass, self._real())

    def __or__(self, other: Any) -> Any:
        return Union[self, other]  # noqa: UP007 - the operator is what is being defined

    def __ror__(self, other: Any) -> Any:
        return Union[other, self]  # noqa: UP007
