"""Baking a model: from a `.nemo` file, or a pinned file of the hub, to the directory that the worker loads.

python -m parakeet_worker.model.bake nvidia/parakeet-tdt-0.6b-v2 --out models/parakeet-tdt-0.6b-v2
python -m parakeet_worker.model.bake my-finetune.nemo --out models/my-finetune
"""

import argparse
import math
import shutil
import sys
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

from parakeet_worker.audio import SAMPLE_RATE
from parakeet_worker.model.card import CARD, CONFIG, TOKENIZER_FILES, WEIGHTS, Card, sha256
from parakeet_worker.model.hub import PARAKEET_TDT_0_6B_V2, HubError, download, find_pin, is_local

_CLASS = "nemo.collections.asr.models.rnnt_bpe_models.EncDecRNNTBPEModel"
_STEPS = ("unpack", "configuration", "weights", "checksums", "check")

# "Up to 24 minutes of audio per pass", says NVIDIA of the 0.6B v2 (with full attention, on a card of 80 GB).
_DEFAULT_MAX_MINUTES = 24.0

# Half a minute holds several sentences, and three seconds the rest of one that a window ends in.
_WINDOWS = (20.0, 30.0, 3.0)


class BakeError(Exception):
    """The source cannot be baked. The message says why."""


@dataclass(frozen=True)
class About:
    """What a `.nemo` file does not say of itself.

    Attributes:
        name: The model's name.
        description: What it is for.
        license: Licence of the weights.
        max_duration: Longest audio of one pass, in seconds.
        source: Where it came from, for the card.
        can_transcribe: Whether it has learned to, so that the bundled clip's words tell whether it works.
    """

    name: str
    description: str
    license: str
    max_duration: float
    source: Mapping[str, str]
    can_transcribe: bool = True


def bake(nemo_file: Path, out: Path, about: About, precision: torch.dtype = torch.float32) -> Card:
    """Turn a `.nemo` file into a model directory, and compare what the worker loads from it with what NeMo restores.

    `out` appears complete or not at all.

    Args:
        nemo_file: An archive as NeMo's `save_to` writes it.
        out: The directory to make; it must not exist.
        about: What goes on the card beside what the archive says.
        precision: Of the weights. The preprocessor's buffers, and all that is not a floating point number, stay as
            they are.

    Raises:
        BakeError: The file is no Parakeet TDT model, or `out` exists.
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
        # safetensors keeps its file to its owner; a worker may run as another user.
        (directory / WEIGHTS).chmod(0o644)
        files = {
            path.relative_to(directory).as_posix(): sha256(path)
            for path in sorted(directory.rglob("*"))
            if path.is_file()
        }
        step("check")
        # NeMo takes seconds to import, which a wrong source or --help need not wait for.
        from parakeet_worker.model.comparison import DifferentModel, compare

        try:
            restored = compare(nemo_file, directory, files, precision)
        except (DifferentModel, RuntimeError) as error:
            raise BakeError(f"the weights do not fit the configuration: {error}") from error
        card = Card(
            name=about.name,
            description=about.description,
            parameters=restored.parameters,
            architecture=_architecture(config),
            sample_rate=int(config.preprocessor.sample_rate),
            max_duration=about.max_duration,
            features=_features(list(config.joint.vocabulary)),
            license=about.license,
            windows=_WINDOWS,
            check=restored.text if about.can_transcribe else None,
            source=about.source,
            files=files,
        )
        card.write(directory)
        shutil.move(directory, out)
    return card


def copy_baked(source: Path, out: Path) -> Card:
    """Copy a model directory, once its files have the checksums of its card.

    Raises:
        BakeError: A file is missing or damaged, or `out` exists.
    """
    try:
        card = Card.read(source)
    except ValueError as error:
        raise BakeError(f"{source} is damaged: {error}") from error
    for name, expected in card.files.items():
        if not (source / name).is_file() or sha256(source / name) != expected:
            raise BakeError(f"{source} is damaged: {name} is not the file that {CARD} lists")
    try:
        shutil.copytree(source, out)
    except FileExistsError as error:
        raise _exists(out) from error
    return card


def _exists(out: Path) -> BakeError:
    return BakeError(f"{out} exists already; remove it, or name another directory")


@contextmanager
def _progress(name: str) -> Iterator[Any]:
    """Show a bar of the steps; call what it yields with the name of each step as it begins."""
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
    if not (directory / CONFIG).is_file() or not (directory / "model_weights.ckpt").is_file():
        raise BakeError(f"{nemo_file.name} is not a .nemo archive: it lacks {CONFIG} or model_weights.ckpt")


def _bake_config(archive: Path, directory: Path) -> DictConfig:
    """Write NeMo's configuration, without training and with the tokenizer's files under plain names."""
    config = OmegaConf.load(archive / CONFIG)
    assert isinstance(config, DictConfig)  # noqa: S101 - NeMo writes a mapping
    if config.get("target") != _CLASS or not config.get("model_defaults", {}).get("tdt_durations"):
        raise BakeError(f"the model is {config.get('target')}; only TDT models of {_CLASS} are served")
    if config.preprocessor.sample_rate != SAMPLE_RATE:
        raise BakeError(
            f"the model hears {config.preprocessor.sample_rate} Hz; only models of {SAMPLE_RATE} Hz are served"
        )
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
    OmegaConf.save(config, directory / CONFIG)
    return config


def _bake_weights(archive: Path, directory: Path, precision: torch.dtype) -> None:
    try:
        weights = torch.load(archive / "model_weights.ckpt", map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # whatever torch says of a file that is none of its own
        raise BakeError("the archive's model_weights.ckpt is damaged") from error

    def stored(name: str, tensor: torch.Tensor) -> torch.Tensor:
        is_fixed = name.startswith("preprocessor.") or not tensor.is_floating_point()
        # safetensors stores each tensor once and whole: views and shared storage are undone.
        return tensor.to(tensor.dtype if is_fixed else precision, copy=True).contiguous()

    save_file({name: stored(name, tensor) for name, tensor in weights.items()}, directory / WEIGHTS)


def _architecture(config: DictConfig) -> str:
    fast = config.encoder.subsampling == "dw_striding" and config.encoder.subsampling_factor == 8
    return f"{'Fast' if fast else ''}Conformer-TDT"


def _features(vocabulary: list[str]) -> tuple[str, ...]:
    """Say what the model gives beside words, from the pieces that it can write."""
    given = {
        "Automatic punctuation": any(mark in vocabulary for mark in (".", "▁.")),
        "Automatic capitalization": any(piece != piece.lower() for piece in vocabulary),
        "Word-level timestamps": True,
        "Segment-level timestamps": True,
        "Character-level timestamps": True,
    }
    return tuple(feature for feature, is_given in given.items() if is_given)


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; see `--help`."""
    parser = argparse.ArgumentParser(
        prog="python -m parakeet_worker.model.bake", description="Make a model directory that the worker can load."
    )
    parser.add_argument(
        "source",
        help=f"a .nemo file, a baked directory, or a Hugging Face model such as {PARAKEET_TDT_0_6B_V2.name}",
    )
    parser.add_argument("--out", type=Path, required=True, help="the directory to make")
    parser.add_argument("--revision", help="commit of the Hugging Face model (40 digits); known for the default model")
    parser.add_argument("--sha256", help="checksum of the .nemo file; known for the default model")
    parser.add_argument("--file", help="the .nemo file in the Hugging Face model (default: <name>.nemo)")
    parser.add_argument("--downloads", type=Path, help="where to keep what is downloaded, for the next bake")
    parser.add_argument("--name", help="the model's name (default: from the source)")
    parser.add_argument("--description", default="", help="what it is for")
    parser.add_argument("--license", default=None, help="licence of the weights")
    parser.add_argument(
        "--max-minutes", type=float, help="longest audio that the model takes in one pass (default: 24)"
    )
    parser.add_argument(
        "--precision",
        choices=["bfloat16", "float16", "float32"],
        help="of the weights (default: bfloat16, as a GPU uses them; float32 is for a CPU)",
    )
    options = parser.parse_args(arguments)
    try:
        card = _bake_source(options)
    except (BakeError, HubError) as error:
        sys.exit(f"bake: {error}")
    print(f"{options.out}: {card.name}, {card.parameters:,} parameters, {CARD} written")  # noqa: T201 - a command line


def _bake_source(options: argparse.Namespace) -> Card:
    if options.max_minutes is not None and not 0 < options.max_minutes < math.inf:
        raise BakeError("--max-minutes must be a number above zero")
    if (Path(options.source) / CARD).is_file():
        if any((options.name, options.description, options.license, options.max_minutes, options.precision)):
            raise BakeError(f"{options.source} is baked already and has its card; it is copied as it is")
        return copy_baked(Path(options.source), options.out)
    with tempfile.TemporaryDirectory(prefix="hub-") as scratch:
        nemo_file, source = _source(options, Path(scratch))
        is_default = source["name"] == PARAKEET_TDT_0_6B_V2.name
        about = About(
            name=options.name or source["name"].removesuffix(".nemo"),
            description=options.description,
            license=options.license or ("CC-BY-4.0" if is_default else "unspecified"),
            max_duration=(options.max_minutes or _DEFAULT_MAX_MINUTES) * 60,
            source=source,
        )
        return bake(nemo_file, options.out, about, getattr(torch, options.precision or "bfloat16"))


def _source(options: argparse.Namespace, scratch: Path) -> tuple[Path, dict[str, str]]:
    """Return the .nemo file that is meant, and what the card says of where it came from."""
    if is_local(options.source):
        local = Path(options.source)
        if not local.is_file():
            raise BakeError(f"{local} is not a file")
        found = sha256(local)
        if options.sha256 not in (None, found):
            raise BakeError(f"{local.name} has the SHA-256 {found}, not {options.sha256}")
        return local, {"name": local.name, "sha256": found}
    pin = find_pin(options.source, options.revision, options.sha256, options.file)
    file = download(pin, options.downloads or scratch)
    return file, {"name": pin.name, "revision": pin.revision, "sha256": pin.sha256}


if __name__ == "__main__":
    main()
