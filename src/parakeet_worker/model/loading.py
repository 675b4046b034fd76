"""From a baked model directory to NeMo's modules with their weights, ready to transcribe."""

import importlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
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
from parakeet_worker.model.nemo import Classes, import_classes

Lap = Callable[[str], None]


class Model(torch.nn.Module):
    """NeMo's modules of an EncDecRNNTBPEModel, under its names, without what trains them. NeMo is not typed.

    Attributes:
        preprocessor: From samples to features.
        encoder: From features to encoder frames.
        decoder: The prediction network.
        joint: The joint network.
        decoding: The search: greedy, each hypothesis with the encoder frame and the duration of each token.
        tokenizer: From token ids to text.
        frame_seconds: Length of an encoder frame.
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
    lap: Lap = lambda _: None,
) -> Model:
    """Build the model of a baked directory, in evaluation mode, on `device`.

    Args:
        directory: The baked model.
        device: Where to.
        precision: Of the weights. The preprocessor keeps float32: a spectrum has more range than 16 bits.
        files: The directory's files, where they are being read already.
        is_lean: Whether to import of NeMo only what serving needs.
        lap: Called with the name of each stage when it ends: `imports`, `build`, `read` and `copy`.

    Raises:
        DamagedModel: A file of the directory is missing or damaged.
        RuntimeError: The weights do not fit the configuration.
    """
    files = files or ModelFiles(directory, Card.read(directory).files).read_ahead()
    config = serving_config(directory, device)
    classes = import_classes(config, is_lean=is_lean)
    lap("imports")
    model = Model(config, classes)
    lap("build")
    weights = files.weights()
    lap("read")
    model.load_state_dict(weights, strict=True, assign=True)
    with _pinned(weights, device):
        model.preprocessor.to(device)
        for module in (model.encoder, model.decoder, model.joint):
            module.to(device, precision, non_blocking=True)
    lap("copy")
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
        # Words and times are assembled from the tokens; NeMo's own way there is for debugging, and slow.
        config.decoding.compute_timestamps = False
        # On a CPU there are no graphs to capture, and NeMo would warn of that.
        config.decoding.greedy.use_cuda_graph_decoder = device.type == "cuda"
        # Exact attention with less memory, and faster in batches.
        config.encoder.use_pytorch_sdpa = True
    return config


class _Uninitialised(TorchFunctionMode):
    """Leaves new parameters as they are, since the weights take their places.

    Random numbers for 0.6 billion of them take ten seconds. Memory that nobody writes to is never really taken.
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
    """Keep NeMo's preprocessor from computing its mel filterbank, which is among the weights.

    It takes librosa's function for it, which takes a second to import. What stands there meanwhile could not be used by
    mistake.
    """

    def mel(*, n_fft: int, n_mels: int, **_: object) -> NDArray[np.float32]:
        return np.full((n_mels, 1 + n_fft // 2), np.nan, dtype=np.float32)

    features = importlib.import_module("nemo.collections.asr.parts.preprocessing.features")
    with patch.object(features, "librosa", SimpleNamespace(filters=SimpleNamespace(mel=mel))):
        yield


def _arguments(config: DictConfig) -> dict[str, Any]:
    """Return the arguments of a module that a configuration has, with nothing that names its class."""
    resolved = cast("dict[str, Any]", OmegaConf.to_container(config, resolve=True))
    return {name: value for name, value in resolved.items() if name not in ("_target_", "cls")}


@contextmanager
def _pinned(weights: Mapping[str, torch.Tensor], device: torch.device) -> Iterator[None]:
    """Pin the memory that the weights share while they are copied to a GPU, so that the copies need no copies."""
    if device.type != "cuda":
        yield
        return
    start = min(tensor.data_ptr() for tensor in weights.values())
    end = max(tensor.data_ptr() + tensor.nbytes for tensor in weights.values())
    runtime = torch.cuda.cudart()
    # Where it cannot be pinned, the same copies are slower.
    is_pinned = int(runtime.cudaHostRegister(start, end - start, 0)) == 0
    try:
        yield
        torch.cuda.synchronize(device)
    finally:
        if is_pinned:
            runtime.cudaHostUnregister(start)
