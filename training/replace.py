"""Put a new model in the place of the present one, with a page that says how good both are, if it is better."""

import json
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_PAGE = """# parakeet-tdt-mini

A small model for development and tests. It has only heard synthetic voices: on people's speech it is useless.
[The embedded model](../docs/embedded-model.md) says how it was made. Both models transcribed the same recordings. ✗
marks what exceeds its bar, and in brackets are 95 percent intervals.

| | bar | this model | the one before |
|---|---|---|---|
"""

SHIPPED = Path(__file__).parents[1] / "models" / "parakeet-tdt-mini"


def is_better(new: Mapping[str, Any], old: Mapping[str, Any]) -> bool:
    """Tell whether a model has fewer word errors than another in single clips and in joined ones.

    Args:
        new: What `training.measure` writes of a model.
        old: The same of the other one.
    """
    return all(
        _rate(new, *path) < _rate(old, *path)
        for path in (("clips", "old ones", "rate"), ("clips", "held out", "rate"), ("joined", "joined"))
    )


def _rate(measures: Any, *path: str) -> float:  # noqa: ANN401 - of JSON
    for name in path:
        measures = measures[name]
    return float(measures)


def replace(model: Path, measures: Path, shipped: Path) -> bool:
    """Copy the model to the place of the shipped one if it is better, and tell whether it was.

    The tables of both go into README.md beside it.

    Args:
        model: A baked model.
        measures: The file of `training.measure` about this model and, as the old one, the shipped one.
        shipped: The directory of the shipped model.
    """
    measured = json.loads(measures.read_text(encoding="utf-8"))
    new, old = measured["models"]
    if not is_better(new, old):
        return False
    coming, going = (shipped.with_name(f".{shipped.name}.{which}") for which in ("new", "old"))
    for left in (coming, going):
        shutil.rmtree(left, ignore_errors=True)
    shutil.copytree(model, coming)
    lines = ["| " + " | ".join([row["name"], row["bar"], *row["values"]]) + " |\n" for row in measured["table"]]
    shipped.with_name("README.md").write_text(_PAGE + "".join(lines), encoding="utf-8")
    shipped.rename(going)
    coming.rename(shipped)
    shutil.rmtree(going)
    return True


if __name__ == "__main__":
    if replace(Path(sys.argv[1]), Path(sys.argv[2]), SHIPPED):
        print(f"{SHIPPED.name} is the new model now.")
    else:
        print(f"{SHIPPED.name} stays: the new model is not better in single clips and in joined ones.")
