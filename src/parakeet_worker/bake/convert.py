"""Converting a `.nemo` file to a model directory."""

import shutil
import tarfile
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf, open_dict
from safetensors.torch import save_file
from tqdm import tqdm

from parakeet_worker.asr.types import SAMPLE_RATE
from parakeet_worker.bake.prove import DifferentModelError, prove, stored_precision
from parakeet_worker.model.card import (
    CARD,
    CHECKPOINT,
    CONFIG,
    TOKENIZER_FILES,
    WEIGHTS,
    WINDOWS,
    Card,
    sha256,
    vocabulary_features,
)
from parakeet_worker.model.config import UnsupportedModelError
from parakeet_worker.model.tokenizer import Tokenizer

# What a configuration may say of a model that is served.
_SERVED = {
    "target": ("EncDecRNNTBPEModel", "EncDecHybridRNNTCTCBPEModel", "EncDecCTCModelBPE"),
    "preprocessor.sample_rate": (str(SAMPLE_RATE),),
    "encoder._target_": ("ConformerEncoder",),
    "tokenizer.type": ("bpe",),
    "loss.loss_name": ("None", "default", "tdt", "warprnnt", "warprnnt_numba", "pytorch", "graph_rnnt"),
}
_STEPS = ("unpack", "configuration", "weights", "checksums", "check")


class BakeError(Exception):
    """The source cannot be baked. The message gives the reason."""


@dataclass(frozen=True)
class ModelDescription:
    """What goes on the card and is not in the `.nemo` file.

    Attributes:
        name: The model's name.
        description: Purpose of the model.
        license: Licence of the weights.
        max_duration: Longest audio of one pass, in seconds.
        source: Source of the bake, as in `Card.source`.
        can_transcribe: Whether the weights are trained. If so, the card gets NeMo's transcript of the bundled clip.
    """

    name: str
    description: str
    license: str
    max_duration: float
    source: Mapping[str, str]
    can_transcribe: bool = True


def bake(
    nemo_file: Path,
    out: Path,
    about: ModelDescription,
    precision: torch.dtype = torch.float32,
    *,
    image_engine: str | None = None,
) -> Card:
    """Turn a `.nemo` file into a model directory, and compare what the worker runs from it with NeMo.

    `out` appears complete or not at all.

    Args:
        nemo_file: An archive as NeMo's `save_to` writes it.
        out: The directory to make; it must not exist.
        about: What goes on the card and is not in the archive.
        precision: Precision of the stored weights. The preprocessor's buffers and integer tensors are not converted.
        image_engine: The engine of the image that the model is for, `plain` or `nemo`, or None if that is not known.

    Raises:
        BakeError: The file is no model that is served, `out` exists, or the image has not the model's engine.
    """
    if out.exists():
        raise _exists(out)
    if not hasattr(tarfile, "data_filter"):
        raise BakeError("unpacking a .nemo archive safely, as NeMo does, needs Python 3.11.4 or later")
    out.parent.mkdir(parents=True, exist_ok=True)
    with (
        _progress(about.name) as step,
        tempfile.TemporaryDirectory(prefix="unpacked-", dir=out.parent) as unpacked,
        tempfile.TemporaryDirectory(prefix="baking-", dir=out.parent) as baking,
    ):
        archive, directory = Path(unpacked), Path(baking) / "model"
        directory.mkdir()
        step("unpack")
        _unpack(nemo_file, archive)
        step("configuration")
        config = _bake_config(archive, directory)
        step("weights")
        _bake_weights(archive, directory, precision)
        step("checksums")
        # safetensors makes the file readable for its owner only; the worker may run as another user.
        (directory / WEIGHTS).chmod(0o644)
        files = {
            path.relative_to(directory).as_posix(): sha256(path)
            for path in sorted(directory.rglob("*"))
            if path.is_file()
        }
        step("check")
        try:
            proof = prove(nemo_file, directory, files, precision)
        except (DifferentModelError, RuntimeError) as error:
            raise BakeError(f"the weights do not fit the configuration: {error}") from error
        card = Card(
            name=about.name,
            description=about.description,
            parameters=proof.parameters,
            architecture=_architecture(config),
            sample_rate=int(config.preprocessor.sample_rate),
            max_duration=about.max_duration,
            features=vocabulary_features(list(config.get("joint", config.decoder).vocabulary)),
            license=about.license,
            windows=WINDOWS,
            engine=proof.engine,
            engine_reason=proof.engine_reason,
            check=proof.text if about.can_transcribe else None,
            source=about.source,
            files=files,
        )
        _check_engine(card, image_engine)
        card.write(directory)
        shutil.move(directory, out)
    return card


def copy_baked(source: Path, out: Path, image_engine: str | None = None) -> Card:
    """Check the files of a model directory against its card, and copy it.

    Args:
        source: The model directory.
        out: The directory to make; it must not exist.
        image_engine: The engine of the image that the model is for, `plain` or `nemo`, or None if that is not known.

    Raises:
        BakeError: A file is missing or damaged, `out` exists, or the image has not the model's engine.
    """
    try:
        card = Card.read(source)
    except ValueError as error:
        raise BakeError(f"{source} is damaged: {error}") from error
    for name, expected in card.files.items():
        if not (source / name).is_file() or sha256(source / name) != expected:
            raise BakeError(f"{source} is damaged: {name} is not the file that {CARD} lists")
    _check_engine(card, image_engine)
    try:
        shutil.copytree(source, out)
    except FileExistsError as error:
        raise _exists(out) from error
    return card


def _check_engine(card: Card, image_engine: str | None) -> None:
    # An image with NeMo has the plain engine, too.
    if card.engine == "nemo" and image_engine == "plain":
        raise BakeError(f"{card.name} is served by NeMo; build with --build-arg ENGINE=nemo. {card.engine_reason}")


def _exists(out: Path) -> BakeError:
    return BakeError(f"{out} exists already; remove it, or name another directory")


@contextmanager
def _progress(name: str) -> Iterator[Any]:
    """Show a progress bar. Yield a function to call with the name of each step as it begins."""
    with tqdm(
        total=len(_STEPS), desc=f"bake {name}", bar_format="{desc}: {bar:20} {n_fmt}/{total_fmt} {postfix}"
    ) as bar:

        def step(name: str) -> None:
            bar.n = _STEPS.index(name)
            bar.set_postfix_str(name)

        yield step
        bar.n = len(_STEPS)
        bar.set_postfix_str("done")


def _unpack(nemo_file: Path, directory: Path) -> None:
    try:
        with tarfile.open(nemo_file) as archive:
            # `data` refuses links and paths that lead out of the directory.
            archive.extractall(directory, filter="data")
    except (tarfile.TarError, OSError) as error:
        raise BakeError(f"{nemo_file.name} is not a .nemo archive: {error}") from error
    if not (directory / CONFIG).is_file() or not (directory / CHECKPOINT).is_file():
        raise BakeError(f"{nemo_file.name} is not a .nemo archive: it lacks {CONFIG} or {CHECKPOINT}")


def _bake_config(archive: Path, directory: Path) -> DictConfig:
    """Write NeMo's configuration, without training and with the tokenizer's files under plain names."""
    config = OmegaConf.load(archive / CONFIG)
    assert isinstance(config, DictConfig)  # noqa: S101 - NeMo writes a mapping
    _check_config(config)
    with open_dict(config):
        for key in ("train_ds", "validation_ds", "test_ds", "optim"):
            config[key] = None
        config.tokenizer.dir = "tokenizer"
        for key, path in TOKENIZER_FILES.items():
            artifact = config.tokenizer.get(key)
            if artifact is None:
                continue
            unpacked = archive / artifact.removeprefix("nemo:")
            if not unpacked.is_file():
                raise BakeError(f"the archive lacks {unpacked.name}, a file of its tokenizer")
            (directory / path).parent.mkdir(exist_ok=True)
            shutil.copyfile(unpacked, directory / path)
            config.tokenizer[key] = path
    try:
        Tokenizer((directory / TOKENIZER_FILES["model_path"]).read_bytes())
    except UnsupportedModelError as error:
        raise BakeError(f"the model cannot be served: {error}") from error
    except (OSError, RuntimeError) as error:
        raise BakeError("the archive has no SentencePiece tokenizer, or a damaged one") from error
    OmegaConf.save(config, directory / CONFIG)
    return config


def _check_config(config: DictConfig) -> None:
    """Raise BakeError unless NeMo can run the model for the worker."""
    for key, served in _SERVED.items():
        # Of a class, the name without its module.
        found = str(OmegaConf.select(config, key)).rpartition(".")[2]
        if found not in served:
            raise BakeError(f"the model's {key} is {found}; only {' or '.join(served)} can be served")


def _bake_weights(archive: Path, directory: Path, precision: torch.dtype) -> None:
    try:
        weights = torch.load(archive / CHECKPOINT, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # torch raises many types for a damaged file
        raise BakeError(f"the archive's {CHECKPOINT} is damaged") from error

    def stored(name: str, tensor: torch.Tensor) -> torch.Tensor:
        # safetensors stores each tensor once and whole: views and shared storage are undone.
        return tensor.to(stored_precision(name, tensor, precision), copy=True).contiguous()

    save_file({name: stored(name, tensor) for name, tensor in weights.items()}, directory / WEIGHTS)


def _architecture(config: DictConfig) -> str:
    fast = config.encoder.subsampling == "dw_striding" and config.encoder.subsampling_factor == 8
    is_tdt = OmegaConf.select(config, "loss.loss_name") == "tdt"
    heads = ["TDT" if is_tdt else "RNNT"] * ("joint" in config) + ["CTC"] * ("CTC" in config.target)
    return "-".join([f"{'Fast' if fast else ''}Conformer", *heads])
