import json
from pathlib import Path
from typing import Any

import pytest

from training.replace import replace


def measures(old_clips: float, held_out: float, joined: float) -> dict[str, Any]:
    return {
        "clips": {"old ones": {"rate": old_clips}, "held out": {"rate": held_out}},
        "joined": {"joined": joined},
    }


def place(folder: Path, new: dict[str, Any]) -> tuple[bool, str, list[str]]:
    """Offer a new model, and return the answer, what is shipped then, and which folders there are."""
    shipped, model, file = folder / "models" / "mini", folder / "new", folder / "measures.json"
    for directory in (shipped, model):
        directory.mkdir(parents=True)
        (directory / "card.json").write_text(directory.name)
    (shipped / "only-in-the-old-one").touch()
    table = [{"name": "words wrong, %", "bar": "≤ 6", "values": ["4 (3 to 5)", "8 (7 to 9) ✗"]}]
    file.write_text(json.dumps({"table": table, "models": [new, measures(0.05, 0.10, 0.20)]}))
    found = replace(model, file, shipped)
    names = sorted(path.name for path in (folder / "models").iterdir())
    return found, " ".join(sorted(path.name for path in shipped.iterdir())), names


def test_a_better_model_takes_the_place(tmp_path: Path) -> None:
    assert place(tmp_path, measures(0.04, 0.09, 0.19)) == (True, "card.json", ["README.md", "mini"])
    assert (tmp_path / "models" / "mini" / "card.json").read_text() == "new"
    page = (tmp_path / "models" / "README.md").read_text()
    assert page.endswith("|---|---|---|---|\n| words wrong, % | ≤ 6 | 4 (3 to 5) | 8 (7 to 9) ✗ |\n")


@pytest.mark.parametrize("new", [(0.05, 0.09, 0.19), (0.04, 0.11, 0.19), (0.04, 0.09, 0.2)])
def test_a_model_that_is_not_better_in_everything_does_not(tmp_path: Path, new: tuple[float, float, float]) -> None:
    assert place(tmp_path, measures(*new)) == (False, "card.json only-in-the-old-one", ["mini"])
    assert (tmp_path / "models" / "mini" / "card.json").read_text() == "mini"
