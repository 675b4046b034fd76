"""Whether what the worker loads is what NeMo restores, found out once, when a model is baked. Imports NeMo whole."""

import itertools
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from parakeet_worker.model.files import ModelFiles
from parakeet_worker.model.fitness import CLIP
from parakeet_worker.model.loading import load_model


class DifferentModel(Exception):  # noqa: N818 - what is the matter, not a mistake
    """The worker would load something else than NeMo does."""


@dataclass(frozen=True)
class Restored:
    """What NeMo says of a model.

    Attributes:
        parameters: How many trainable numbers it has.
        text: What `transcribe()` makes of the bundled clip.
    """

    parameters: int
    text: str


def compare(nemo_file: Path, directory: Path, checksums: Mapping[str, str], precision: torch.dtype) -> Restored:
    """Restore an archive with NeMo, and compare every tensor with the one that the worker loads from a baked directory.

    Args:
        nemo_file: The archive.
        directory: What was baked from it.
        checksums: SHA-256 of the directory's files.
        precision: Of the baked weights.

    Raises:
        DifferentModel: A tensor is missing or another.
        RuntimeError: The weights do not fit the configuration.
    """
    with _quiet():
        from nemo.collections.asr.models import ASRModel
        from omegaconf import open_dict

        files = ModelFiles(directory, checksums)
        loaded = load_model(directory, torch.device("cpu"), precision, files=files, is_lean=False)
        restored = ASRModel.restore_from(str(nemo_file), map_location="cpu").eval()
        ours, theirs = _tensors(loaded), _tensors(restored)
        if missing := dict(restored.named_parameters()).keys() - ours.keys():
            raise DifferentModel(f"{min(missing)} is not loaded")
        for name, tensor in ours.items():
            if name not in theirs or not torch.equal(theirs[name].to(tensor.dtype), tensor):
                raise DifferentModel(f"{name} is not as NeMo restores it")
        with open_dict(restored.cfg):
            restored.cfg.validation_ds = {"use_start_end_token": False}  # transcribe() reads it
        (hypothesis,) = restored.transcribe([str(CLIP)], verbose=False)
    return Restored(sum(parameter.numel() for parameter in restored.parameters()), hypothesis.text)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep NeMo's advice on training to itself."""
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)


def _tensors(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return dict(itertools.chain(model.named_parameters(), model.named_buffers()))
