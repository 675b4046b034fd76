"""Building NeMo's modules from a model directory and loading their weights."""

import importlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from unittest.mock import patch

import numpy as np
import torch
from numpy.typing import NDArray
from omegaconf import DictConfig, OmegaConf, open_dict
from torch.overrides import TorchFunctionMode

from parakeet_worker.model.card import CONFIG, TOKENIZER_FILES, Card
from parakeet_worker.model.files import ModelFiles
from parakeet_worker.nemo.classes import Classes, import_classes

TimeStage = Callable[[str], AbstractContextManager[None]]
"""Returns a context whose duration is added to the stage of that name; see `StageTimer.stage`."""


class Model(torch.nn.Module):
    """NeMo's modules of an EncDecRNNTBPEModel, under its names. They are `Any`: NeMo is not typed.

    Attributes:
        preprocessor: Samples to mel features.
        encoder: Mel features to encoder frames.
        decoder: The prediction network.
        joint: The joint network.
        decoding: The search: greedy, each hypothesis with the encoder frame and the duration of each token.
        tokenizer: Token ids to text.
        frame_seconds: Length of an encoder frame, in seconds.
    """

    preprocessor: Any
    encoder: Any
    decoder: Any
    joint: Any

    def __init__(self, config: DictConfig, classes: Classes) -> None:
        super().__init__()
        with _Uninitialised():
            with _without_filterbank():
                self.preprocessor = classes.preprocessor(**_arguments(config.preprocessor))
            self.encoder = classes.encoder(**_arguments(config.encoder))
            self.decoder = classes.decoder(**_arguments(config.decoder))
            self.joint = classes.joint(**_arguments(config.joint))
        self.tokenizer: Any = classes.tokenizer(config.tokenizer.model_path)
        # Where NeMo's decoding looks for it; NeMo's own model sets it there too.
        self.tokenizer.tokenizer.vocab_size = self.tokenizer.vocab_size
        self.decoding: Any = classes.decoding(config.decoding, self.decoder, self.joint, self.tokenizer)
        self.frame_seconds: float = config.preprocessor.window_stride * config.encoder.subsampling_factor


def load_model(
    directory: Path,
    device: torch.device,
    precision: torch.dtype = torch.float32,
    *,
    files: ModelFiles | None = None,
    is_lean: bool = True,
    stage: TimeStage = lambda _: nullcontext(),
) -> Model:
    """Build the model of a baked directory, in evaluation mode, on `device`.

    Args:
        directory: The baked model.
        device: The device for the weights.
        precision: Precision of the weights. The preprocessor stays float32: a spectrum exceeds the range of 16 bits.
        files: The directory's files, if they are being read already.
        is_lean: Whether to skip NeMo's modules that serving does not need.
        stage: Times the stages `imports`, `build`, `read` and `copy`.

    Raises:
        DamagedModelError: A file of the directory is missing or damaged.
        RuntimeError: The weights do not fit the configuration.
    """
    files = files or ModelFiles(directory, Card.read(directory).files).read_ahead()
    with stage("imports"):
        config = serving_config(directory, device)
        classes = import_classes(config, is_lean=is_lean)
    with stage("build"):
        model = Model(config, classes)
    with stage("read"):
        weights = files.weights()
    with stage("copy"):
        model.load_state_dict(weights, strict=True, assign=True)
        with _pinned(weights, device):
            model.preprocessor.to(device)
            for module in (model.encoder, model.decoder, model.joint):
                module.to(device, precision, non_blocking=True)
    return model.eval().requires_grad_(requires_grad=False)


def serving_config(directory: Path, device: torch.device) -> DictConfig:
    """Return NeMo's configuration with absolute tokenizer paths, no data sets, and decoding as the worker needs it."""
    config = cast("DictConfig", OmegaConf.load(directory / CONFIG))
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
        # The worker computes the times of words from those of the tokens. NeMo's own way is slow.
        config.decoding.compute_timestamps = False
        # There are no CUDA graphs on a CPU, and NeMo would log a warning.
        config.decoding.greedy.use_cuda_graph_decoder = device.type == "cuda"
        # Exact attention with less memory, and faster in batches.
        config.encoder.use_pytorch_sdpa = True
    return config


class _Uninitialised(TorchFunctionMode):
    """Skips the initialisation of new parameters, which the loaded weights replace.

    Random numbers for 0.6 billion parameters take ten seconds, and memory is allocated only when it is written to.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: object,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401 - torch's own signature
        given = kwargs or {}
        if getattr(func, "__module__", None) == "torch.nn.init":
            return given["tensor"] if "tensor" in given else args[0]
        return func(*args, **given)


@contextmanager
def _without_filterbank() -> Iterator[None]:
    """Keep NeMo's preprocessor from computing its mel filterbank, which is loaded with the weights.

    It would be computed with librosa, which takes a second to import. A filterbank of NaN takes its place until the
    weights are loaded, so that using it by mistake would be noticed.
    """

    def mel(*, n_fft: int, n_mels: int, **_: object) -> NDArray[np.float32]:
        return np.full((n_mels, 1 + n_fft // 2), np.nan, dtype=np.float32)

    features = importlib.import_module("nemo.collections.asr.parts.preprocessing.features")
    with patch.object(features, "librosa", SimpleNamespace(filters=SimpleNamespace(mel=mel))):
        yield


def _arguments(config: DictConfig) -> dict[str, Any]:
    """Return a module's constructor arguments from its configuration: all but the keys that name its class."""
    resolved = cast("dict[str, Any]", OmegaConf.to_container(config, resolve=True))
    return {name: value for name, value in resolved.items() if name not in ("_target_", "cls")}


@contextmanager
def _pinned(weights: Mapping[str, torch.Tensor], device: torch.device) -> Iterator[None]:
    """Pin the memory of the weights while they are copied to a GPU, so that CUDA needs no staging copies."""
    if device.type != "cuda":
        yield
        return
    start = min(tensor.data_ptr() for tensor in weights.values())
    end = max(tensor.data_ptr() + tensor.nbytes for tensor in weights.values())
    runtime = torch.cuda.cudart()
    # If it cannot be pinned, the copies are only slower.
    is_pinned = int(runtime.cudaHostRegister(start, end - start, 0)) == 0
    try:
        yield
        torch.cuda.synchronize(device)
    finally:
        if is_pinned:
            runtime.cudaHostUnregister(start)
