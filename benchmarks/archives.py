"""NeMo's own form of a baked model."""

from pathlib import Path

from nemo.collections.asr.models import EncDecRNNTBPEModel
from safetensors.torch import load_file

from parakeet_worker.model.card import WEIGHTS
from parakeet_worker.nemo.loading import serving_config


def write_archive(directory: Path, archive: Path) -> None:
    """Write the model of a baked directory to a `.nemo` file, by NeMo's means alone."""
    model = EncDecRNNTBPEModel(cfg=serving_config(directory))
    model.load_state_dict(load_file(directory / WEIGHTS), strict=True)
    model.save_to(str(archive))
