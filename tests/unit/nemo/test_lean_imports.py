"""Importing leanly: what is left out, that all of it can still be had, and that a surprise only costs time."""

import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from parakeet_worker.nemo.lean_imports import Rules, import_leanly

FILES = {
    "shop/__init__.py": """
import shop.till
from shop.goods import APPLE, PEAR as SWEET
from shop.goods import PRICE
from .goods import *
VERSION = f"1.{PRICE}"
""",
    "shop/goods.py": "APPLE, PEAR, PRICE, PLUM = 'apple', 'pear', 3, 'plum'",
    "shop/till.py": "OPEN = True",
    "shop/broken.py": "import no_such_module",
    "shop/sale.py": """
import heavy
from heavy import Base, call
from heavy.deep import Thing
try:
    import extra
except ModuleNotFoundError:
    extra = None
def known(value: Thing | None) -> "int | Base":
    return isinstance(value, Thing)
def use():
    return call() + heavy.deep.NUMBER
""",
    "shop/shelf.py": "from heavy import Base\nclass Shelf(Base): pass",
    "heavy/__init__.py": "class Base: size = 1\ndef call(): return 40",
    "heavy/deep.py": "NUMBER = 2\nclass Thing: pass",
    "extra.py": "",
}
RULES = Rules(forwarding=["shop"], unused=["heavy"], optional=["extra"])


@pytest.fixture(autouse=True)
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    for name, text in FILES.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    yield
    for name in list(sys.modules):
        if name.partition(".")[0] in ("shop", "heavy", "extra"):
            del sys.modules[name]


def fail(error: Exception) -> None:
    raise error


def imported() -> set[str]:
    return {name for name in sys.modules if name.partition(".")[0] in ("shop", "heavy", "extra")}


def lean(importing: Any) -> Any:
    return import_leanly(importing, RULES, fail)


def test_names_that_a_package_passes_on_are_imported_when_asked_for() -> None:
    def importing() -> Any:
        import shop  # type: ignore[import-not-found]

        return shop

    shop = lean(importing)
    assert shop.VERSION == "1.3"  # what the file uses itself is there at once
    assert imported() == {"shop", "shop.goods"}
    assert shop.SWEET == "pear"
    assert shop.APPLE == "apple"
    assert imported() == {"shop", "shop.goods"}
    assert shop.till.OPEN
    assert shop.PLUM == "plum"  # by `import *`
    with pytest.raises(AttributeError, match="no attribute 'FIG'"):
        _ = shop.FIG


def test_everything_of_a_package_can_be_asked_for() -> None:
    names: dict[str, Any] = {}
    lean(lambda: exec("from shop import *", names))
    assert {"VERSION", "APPLE", "SWEET", "PRICE", "PLUM", "till"} <= names.keys()


def test_a_missing_name_is_an_import_error() -> None:
    with pytest.raises(ImportError):
        lean(lambda: exec("from shop import FIG", {}))


def test_an_unused_module_is_imported_when_it_is_used() -> None:
    def importing() -> Any:
        from shop import sale

        assert "heavy" in sys.modules  # for others that import it
        return sale

    sale = lean(importing)
    assert not sale.known(5)
    assert sale.extra is None
    assert not any(name.startswith(("heavy", "extra")) for name in imported())
    assert sale.use() == 42
    assert {"heavy", "heavy.deep"} <= imported()
    import heavy.deep  # type: ignore[import-not-found]

    assert sale.known(heavy.deep.Thing())
    import extra  # type: ignore[import-not-found]

    assert extra.__name__ == "extra"


def test_a_class_is_real_before_anything_is_derived_from_it() -> None:
    def importing() -> Any:
        from shop.shelf import Shelf  # type: ignore[import-not-found]

        return Shelf

    shelf = lean(importing)
    assert shelf().size == 1
    import heavy

    assert issubclass(shelf, heavy.Base)


def test_a_surprise_imports_everything_as_ever() -> None:
    told: list[Any] = []

    def importing() -> Any:
        from shop import sale

        if type(sale.call).__name__ == "_StandInName":
            raise RuntimeError("what is this?")
        return sale

    sale = import_leanly(importing, RULES, told.append)
    assert [str(error) for error in told] == ["what is this?"]
    assert sale.extra is not None
    assert sale.use() == 42
    assert "heavy" in sys.modules
    assert type(sys.modules["shop"]).__name__ == "module"


def test_a_real_failure_is_told_as_ever() -> None:
    told: list[Any] = []
    with pytest.raises(ModuleNotFoundError, match="no_such_module"):
        import_leanly(lambda: exec("import shop.broken", {}), RULES, told.append)
    assert len(told) == 1


def test_other_threads_import_as_ever() -> None:
    found = []

    def other() -> None:
        import heavy

        found.append(heavy.Base.size)

    def importing() -> None:
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()

    lean(importing)
    assert found == [1]
