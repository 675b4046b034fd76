"""Reading a model directory: every tensor as it was stored, or a word on what is damaged."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from parakeet_worker.model.card import WEIGHTS, Card, sha256
from parakeet_worker.model.files import DamagedModelError, ModelFiles
from project import MODEL_DIR


@pytest.fixture
def directory(tmp_path: Path) -> Any:
    return shutil.copytree(MODEL_DIR, tmp_path / "model")


def test_tensors_are_as_stored() -> None:
    files = ModelFiles(MODEL_DIR, Card.read(MODEL_DIR).files).read_ahead()
    expected = load_file(MODEL_DIR / WEIGHTS)
    for _ in range(2):  # another call checks again
        found = files.weights()
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[name], expected[name]) for name in expected)


@pytest.mark.parametrize(
    ("source", "shown"),
    [
        ({"name": "a", "revision": "0123456789abcdef", "sha256": "ff"}, "revision 0123456789ab"),
        ({"name": "a.nemo", "sha256": "fedcba9876543210"}, "sha256 fedcba987654"),
        ({"name": "a.nemo"}, ""),
    ],
)
def test_a_bake_is_told_from_another(source: Any, shown: Any) -> None:
    assert replace(Card.read(MODEL_DIR), source=source).revision == shown


def test_every_type_and_shape(tmp_path: Path) -> None:
    expected = {
        "half": torch.arange(6, dtype=torch.bfloat16).reshape(2, 3),
        "short": torch.tensor(1.5, dtype=torch.float16),
        "count": torch.tensor(7),
        "mask": torch.tensor([True, False, True]),
        "none": torch.zeros(0, 4),
        "whole": torch.arange(5, dtype=torch.int32),
    }
    save_file(expected, tmp_path / WEIGHTS, metadata={"format": "pt"})
    found = ModelFiles(tmp_path, {WEIGHTS: sha256(tmp_path / WEIGHTS)}).weights()
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert (found[name].dtype, found[name].shape) == (tensor.dtype, tensor.shape)
        assert torch.equal(found[name], tensor)


@pytest.mark.parametrize("name", [WEIGHTS, "model_config.yaml", "tokenizer/tokenizer.model"])
def test_a_damaged_file_is_named(directory: Any, name: Any) -> None:
    path = directory / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(
        DamagedModelError, match=f"{name} of the model is damaged: its SHA-256 is [0-9a-f]+, card.json says"
    ):
        ModelFiles(directory, Card.read(directory).files).weights()


def test_a_missing_or_empty_file_is_named(directory: Any) -> None:
    files = ModelFiles(directory, Card.read(directory).files)
    (directory / WEIGHTS).write_bytes(b"")
    with pytest.raises(
        DamagedModelError, match=r"model\.safetensors of the model cannot be read: cannot mmap an empty"
    ):
        files.weights()
    (directory / WEIGHTS).unlink()
    with pytest.raises(DamagedModelError, match=r"model\.safetensors of the model cannot be read: No such file"):
        files.weights()
    (directory / "tokenizer" / "vocab.txt").unlink()
    with pytest.raises(DamagedModelError, match=r"vocab\.txt of the model cannot be read: No such file"):
        files.weights()
