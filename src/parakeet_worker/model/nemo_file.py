"""Reading a `.nemo` file: a tar archive of the configuration, the tokenizer and a checkpoint of torch."""

import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from parakeet_worker.asr.types import SAMPLE_RATE
from parakeet_worker.model.card import CHECKPOINT, CONFIG, MAX_DURATION, WINDOWS, Card, vocabulary_features
from parakeet_worker.model.config import ModelConfig
from parakeet_worker.model.files import DamagedModelError, parse_config
from parakeet_worker.model.network import Parakeet
from parakeet_worker.model.tokenizer import Tokenizer


class NemoFile:
    """The files of a model in a `.nemo` file; see `ModelSource`.

    The checkpoint is read out of the archive into memory. torch could map it only as a file of its own, and to unpack
    gigabytes to the disk first takes longer.

    Args:
        path: The file.

    Raises:
        DamagedModelError: The file is no `.nemo` file, or its configuration is damaged.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._config = parse_config(self._content(CONFIG))

    def config(self) -> Mapping[str, Any]:
        """Return NeMo's configuration; see `ModelSource`."""
        return self._config

    def tokenizer(self) -> bytes:
        """Return the SentencePiece model, which the configuration names; see `ModelSource`."""
        name = self._config.get("tokenizer", {}).get("model_path")
        if not name:
            raise DamagedModelError(f"{self._path.name} has no SentencePiece tokenizer")
        return self._content(name.removeprefix("nemo:"))

    def weights(self) -> Mapping[str, torch.Tensor]:
        """Return the weights by name, as tensors on the CPU; see `ModelSource`."""
        try:
            with tarfile.open(self._path) as archive:
                file = archive.extractfile(_member(archive, CHECKPOINT))
                weights: Mapping[str, torch.Tensor] = torch.load(file, map_location="cpu", weights_only=True)  # type: ignore[arg-type]
        except Exception as error:  # torch raises many types for a damaged file
            raise self._unreadable(CHECKPOINT) from error
        return weights

    def _content(self, name: str) -> bytes:
        try:
            with tarfile.open(self._path) as archive:
                file = archive.extractfile(_member(archive, name))
                assert file is not None  # noqa: S101 - it is a regular file
                return file.read()
        except (OSError, KeyError, tarfile.TarError) as error:
            raise self._unreadable(name) from error

    def _unreadable(self, name: str) -> DamagedModelError:
        return DamagedModelError(f"{name} in {self._path.name} is missing or damaged")


def open_nemo_file(path: Path) -> tuple[Card, NemoFile]:
    """Return what is known of the model in a `.nemo` file as its card, and its files.

    Nothing was compared with NeMo, and the expected text of the bundled clip is not known.

    Raises:
        DamagedModelError: The file is no `.nemo` file, or damaged.
        UnsupportedModelError: The plain engine cannot run the model.
    """
    file = NemoFile(path)
    config = file.config()
    Tokenizer(file.tokenizer())  # here, where a model that cannot be run ends the start with a sentence
    card = Card(
        name=path.stem,
        description="",
        parameters=sum(each.numel() for each in Parakeet(ModelConfig.from_nemo(config)).parameters()),
        architecture="FastConformer-TDT",
        sample_rate=SAMPLE_RATE,
        max_duration=MAX_DURATION,
        features=vocabulary_features(config.get("joint", {}).get("vocabulary") or ()),
        license="unspecified",
        windows=WINDOWS,
        engine="plain",
        engine_reason="The .nemo file was not baked, so nothing was compared with NeMo.",
        check=None,
        source={"name": path.name},
        files={},
    )
    return card, file


def _member(archive: tarfile.TarFile, name: str) -> tarfile.TarInfo:
    """Return the regular file of that name. NeMo writes the names with and without a leading `./`."""
    member = next((each for each in archive if each.name.removeprefix("./") == name and each.isfile()), None)
    if member is None:
        raise KeyError(name)
    return member
