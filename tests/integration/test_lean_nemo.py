"""NeMo itself, imported leanly and whole."""

import json
import subprocess
import sys
from types import SimpleNamespace

from project import MODEL_DIR


def imported() -> set[str]:
    return {name for name in sys.modules if name.partition(".")[0] in ("shop", "heavy", "extra")}


LOAD = """
import json, sys
import parakeet_worker.nemo.classes as nemo
{change}
from pathlib import Path
import torch
from parakeet_worker.nemo.loading import load_model
load_model(Path(sys.argv[1]), torch.device("cpu"))
print(json.dumps(sorted(sys.modules)))
"""


def load(change: str = "") -> SimpleNamespace:
    command = [sys.executable, "-c", LOAD.format(change=change), str(MODEL_DIR)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    return SimpleNamespace(modules=set(json.loads(done.stdout.splitlines()[-1])), stderr=done.stderr)


def test_a_model_is_loaded_without_what_trains_it() -> None:
    loaded = load()
    assert loaded.stderr == ""
    for name in ("torch._dynamo", "torch._inductor", "lightning", "torchmetrics", "transformers", "datasets", "wandb"):
        assert name not in loaded.modules
    assert not {"tensorboard", "matplotlib", "numba", "scipy", "librosa.filters", "pandas"} & loaded.modules
    assert len(loaded.modules) < 1_800  # with the SDK, under 2,500


def test_nemo_is_imported_whole_when_its_parts_are_not_as_expected() -> None:
    loaded = load("nemo._RULES = nemo.Rules(nemo._RULES.forwarding, nemo._RULES.unused, ['nemo.utils.enum'])")
    assert "could not be imported alone: ModuleNotFoundError" in loaded.stderr
    assert "lightning" in loaded.modules
    assert len(loaded.modules) > 5_000
