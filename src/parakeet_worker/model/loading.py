"""From a baked model directory to a NeMo model that is ready to transcribe."""

from pathlib import Path

import torch
from omegaconf import DictConfig, OmegaConf, open_dict
from safetensors.torch import load_file

from parakeet_worker.model.card import CONFIG, TOKENIZER_FILES, WEIGHTS
from parakeet_worker.model.nemo import EncDecRNNTBPEModel


def load_model(directory: Path, device: torch.device) -> EncDecRNNTBPEModel:
    """Build the model of a baked directory, in evaluation mode, on `device`.

    Greedy TDT decoding is set up so that every hypothesis carries the encoder frame and the duration of each token.

    Raises:
        OSError: A file of the directory cannot be read.
        RuntimeError: The weights do not fit the configuration.
    """
    model = EncDecRNNTBPEModel(cfg=serving_config(directory, device))
    model.load_state_dict(load_file(directory / WEIGHTS), strict=True)
    model.eval()
    return model.to(device)


def serving_config(directory: Path, device: torch.device) -> DictConfig:
    """Return NeMo's configuration with absolute tokenizer paths, no data sets, and decoding as the worker needs it."""
    config = OmegaConf.load(directory / CONFIG)
    with open_dict(config):
        config.train_ds = config.validation_ds = config.test_ds = None
        config.tokenizer.dir = str(directory / "tokenizer")
        for key, path in TOKENIZER_FILES.items():
            if key in config.tokenizer:
                config.tokenizer[key] = str(directory / path)
        # As transcribe() sets them: no noise is added to the signal, no padding to the features.
        config.preprocessor.dither = 0.0
        config.preprocessor.pad_to = 0
        config.decoding.strategy = "greedy_batch"
        config.decoding.tdt_include_token_duration = True
        # Words and times are assembled from the tokens; NeMo's own way there is for debugging, and slow.
        config.decoding.compute_timestamps = False
        # On a CPU there are no graphs to capture, and NeMo would warn of that.
        config.decoding.greedy.use_cuda_graph_decoder = device.type == "cuda"
        # Exact attention with less memory, and faster in batches.
        config.encoder.use_pytorch_sdpa = True
    return config
