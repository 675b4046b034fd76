"""Checking during the bake that the worker loads the same weights as NeMo. Imports all of NeMo."""

import itertools
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from parakeet_worker.model.files import ModelFiles
from parakeet_worker.model.self_check import CLIP
from parakeet_worker.nemo.loading import load_model


class DifferentModelError(Exception):
    """The worker would load other weights than NeMo."""


@dataclass(frozen=True)
class NemoReference:
    """Facts about a model that NeMo has restored.

    Attributes:
        parameters: Number of trainable parameters.
        text: Transcript of the bundled clip by NeMo's `transcribe()`.
    """

    parameters: int
    text: str


def prove(nemo_file: Path, directory: Path, checksums: Mapping[str, str], precision: torch.dtype) -> NemoReference:
    """Restore an archive with NeMo, and compare every tensor with the one that the worker loads from a baked directory.

    Args:
        nemo_file: The archive.
        directory: The model directory that was baked from it.
        checksums: SHA-256 of the directory's files.
        precision: Precision of the baked weights.

    Raises:
        DifferentModelError: A tensor is missing or different.
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
            raise DifferentModelError(f"{min(missing)} is not loaded")
        for name, tensor in ours.items():
            if name not in theirs or not torch.equal(theirs[name].to(tensor.dtype), tensor):
                raise DifferentModelError(f"{name} is not as NeMo restores it")
        with open_dict(restored.cfg):
            restored.cfg.validation_ds = {"use_start_end_token": False}  # transcribe() reads it
        (hypothesis,) = restored.transcribe([str(CLIP)], verbose=False)
    return NemoReference(sum(parameter.numel() for parameter in restored.parameters()), hypothesis.text)


@contextmanager
def _quiet() -> Iterator[None]:
    """Turn off warnings, since NeMo logs advice on training as such."""
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)


def _tensors(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return dict(itertools.chain(model.named_parameters(), model.named_buffers()))
