"""Importing leanly: what is left out, that all of it can still be had, and that a surprise only costs time."""

import json
import subprocess
import sys
import threading
from types import SimpleNamespace

import pytest

from conftest import MODEL_DIR
from parakeet_worker.lean import Rules, import_leanly

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
def packages(tmp_path, monkeypatch):
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


def lean(importing):
    return import_leanly(importing, RULES, fail)


def test_names_that_a_package_passes_on_are_imported_when_asked_for():
    def importing():
        import shop

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


def test_everything_of_a_package_can_be_asked_for():
    names: dict = {}
    lean(lambda: exec("from shop import *", names))
    assert {"VERSION", "APPLE", "SWEET", "PRICE", "PLUM", "till"} <= names.keys()


def test_a_missing_name_is_an_import_error():
    with pytest.raises(ImportError):
        lean(lambda: exec("from shop import FIG", {}))


def test_an_unused_module_is_imported_when_it_is_used():
    def importing():
        from shop import sale

        assert "heavy" in sys.modules  # for others that import it
        return sale

    sale = lean(importing)
    assert not sale.known(5)
    assert sale.extra is None
    assert not any(name.startswith(("heavy", "extra")) for name in imported())
    assert sale.use() == 42
    assert {"heavy", "heavy.deep"} <= imported()
    import heavy.deep

    assert sale.known(heavy.deep.Thing())
    import extra

    assert extra.__name__ == "extra"


def test_a_class_is_real_before_anything_is_derived_from_it():
    def importing():
        from shop.shelf import Shelf

        return Shelf

    shelf = lean(importing)
    assert shelf().size == 1
    import heavy

    assert issubclass(shelf, heavy.Base)


def test_a_surprise_imports_everything_as_ever():
    told = []

    def importing():
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


def test_a_real_failure_is_told_as_ever():
    told = []
    with pytest.raises(ModuleNotFoundError, match="no_such_module"):
        import_leanly(lambda: exec("import shop.broken", {}), RULES, told.append)
    assert len(told) == 1


def test_other_threads_import_as_ever():
    found = []

    def other():
        import heavy

        found.append(heavy.Base.size)

    def importing():
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()

    lean(importing)
    assert found == [1]


LOAD = """
import json, sys
import parakeet_worker.model.nemo as nemo
{change}
from pathlib import Path
import torch
from parakeet_worker.model.loading import load_model
load_model(Path(sys.argv[1]), torch.device("cpu"))
print(json.dumps(sorted(sys.modules)))
"""


def load(change: str = "") -> SimpleNamespace:
    command = [sys.executable, "-c", LOAD.format(change=change), str(MODEL_DIR)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    return SimpleNamespace(modules=set(json.loads(done.stdout.splitlines()[-1])), stderr=done.stderr)


def test_a_model_is_loaded_without_what_trains_it():
    loaded = load()
    assert loaded.stderr == ""
    for name in ("torch._dynamo", "torch._inductor", "lightning", "torchmetrics", "transformers", "datasets", "wandb"):
        assert name not in loaded.modules
    assert not {"tensorboard", "matplotlib", "numba", "scipy", "librosa.filters", "pandas"} & loaded.modules
    assert len(loaded.modules) < 1_800  # with the SDK, under 2,500


def test_nemo_is_imported_whole_when_its_parts_are_not_as_expected():
    loaded = load("nemo._RULES = nemo.Rules(nemo._RULES.forwarding, nemo._RULES.unused, ['nemo.utils.enum'])")
    assert "could not be imported alone: ModuleNotFoundError" in loaded.stderr
    assert "lightning" in loaded.modules
    assert len(loaded.modules) > 5_000
