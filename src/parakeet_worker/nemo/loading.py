"""Loading a model directory into the NeMo class that its configuration names."""

import logging
from contextlib import nullcontext
from pathlib import Path
from typing import Any, cast

import torch
from omegaconf import DictConfig, OmegaConf, open_dict

from parakeet_worker.model.card import CONFIG, TOKENIZER_FILES, Card
from parakeet_worker.model.config import MAX_SYMBOLS
from parakeet_worker.model.files import ModelFiles, ModelSource
from parakeet_worker.model.prepare import TimeStage

# Without these: noise that is added to the signal, and padding of the features. transcribe() turns both off, too.
# The worker computes the times of words from those of tokens, since NeMo's own way is slow.
_SERVING = {
    "preprocessor.dither": 0.0,
    "preprocessor.pad_to": 0,
    "decoding.strategy": "greedy_batch",
    "decoding.compute_timestamps": False,
    "decoding.tdt_include_token_duration": True,
    "decoding.greedy.use_cuda_graph_decoder": False,
}


def load_model(
    directory: Path,
    device: torch.device,
    precision: torch.dtype = torch.float32,
    *,
    files: ModelSource | None = None,
    stage: TimeStage = lambda _: nullcontext(),
) -> Any:  # noqa: ANN401 - NeMo is not typed
    """Build the NeMo model of a baked directory, in evaluation mode, on `device`.

    Args:
        directory: The baked model.
        device: The device for the weights.
        precision: Precision of the encoder's weights. The others stay float32: a spectrum exceeds the range of 16 bits,
            and which of two labels with equal scores wins would depend on the batch.
        files: The directory's files, if they are being read already.
        stage: Times the stages `imports`, `build`, `read` and `copy`.

    Raises:
        DamagedModelError: A file of the directory is missing or damaged.
        RuntimeError: The weights do not fit the configuration.
    """
    files = files or ModelFiles(directory, Card.read(directory).files).read_ahead()
    with stage("imports"):
        config = serving_config(directory)
        # NeMo's telemetry is off unless configured. It logs a warning about that on every import.
        logging.getLogger("nv_one_logger").setLevel(logging.ERROR)
        # PyTorch warns where there is no Triton. The image does without it, and so does NeMo's decoding.
        logging.getLogger("torch.utils.flop_counter").setLevel(logging.ERROR)
        from nemo.collections.asr import models
        from nemo.utils import logging as nemo_log

        # At INFO NeMo logs each module that it builds. Warnings are still logged.
        nemo_log.setLevel(nemo_log.WARNING)
    with stage("build"):
        model = getattr(models, config.target.rpartition(".")[2])(cfg=config)
    with stage("read"):
        weights = files.weights()
    with stage("copy"):
        model.load_state_dict(weights, strict=True, assign=True)
        for name, module in model.named_children():
            module.to(device, precision if name == "encoder" else torch.float32)
    return model.eval().requires_grad_(requires_grad=False)


def serving_config(directory: Path) -> DictConfig:
    """Return NeMo's configuration with absolute tokenizer paths, no data sets, and greedy decoding in batches."""
    config = cast("DictConfig", OmegaConf.load(directory / CONFIG))
    for key, value in _SERVING.items():
        OmegaConf.update(config, key, value, force_add=True)
    with open_dict(config):
        config.train_ds = config.validation_ds = config.test_ds = None
        config.tokenizer.dir = str(directory / "tokenizer")
        for key, path in TOKENIZER_FILES.items():
            if key in config.tokenizer:
                config.tokenizer[key] = str(directory / path)
        greedy = config.decoding.greedy
        if "joint" in config and not (greedy.get("max_symbols") or greedy.get("max_symbols_per_step")):
            # NeMo's own default, which it sets only for a decoder with CUDA graphs. Without it, one frame of noise can
            # give labels for ever.
            greedy.max_symbols = MAX_SYMBOLS
        if config.encoder.get("self_attention_model") == "rel_pos":
            # Exact attention with less memory, and faster in batches.
            config.encoder.use_pytorch_sdpa = True
    return config
