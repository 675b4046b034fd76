"""Reading and checking a model directory on a background thread, while the main thread imports torch."""

import hashlib
import json
import mmap
import threading
from collections.abc import Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, Self

from parakeet_worker.model.card import CONFIG, TOKENIZER_FILES, WEIGHTS, sha256

if TYPE_CHECKING:
    import torch

# The dtypes of safetensors that weights and buffers have, and their names in torch.
_DTYPES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16", "I64": "int64", "I32": "int32", "BOOL": "bool"}


class DamagedModelError(Exception):
    """A file of the model directory cannot be read, or does not have the checksum in `card.json`."""


class ModelSource(Protocol):
    """The files of a model, wherever they are.

    All methods raise DamagedModelError if a file is missing, cannot be read, or is not what it should be.
    """

    def config(self) -> Mapping[str, Any]:
        """Return NeMo's configuration of the model."""
        ...

    def tokenizer(self) -> bytes:
        """Return the SentencePiece model."""
        ...

    def weights(self) -> Mapping[str, "torch.Tensor"]:
        """Return the weights by name, as tensors on the CPU."""
        ...


class ModelFiles:
    """The files of a model directory; see `ModelSource`.

    The weights are mapped into memory. Their tensors use the map, so nothing is copied.

    Args:
        directory: The baked model.
        checksums: SHA-256 of its files by relative path, from its card.
    """

    def __init__(self, directory: Path, checksums: Mapping[str, str]) -> None:
        self._directory = directory
        self._checksums = checksums
        self._reading: Future[mmap.mmap] | None = None

    def read_ahead(self) -> Self:
        """Start to read and check the files on a background thread."""
        self._reading = Future()
        threading.Thread(target=self._read, args=(self._reading,), name="model files", daemon=True).start()
        return self

    def config(self) -> Mapping[str, Any]:
        """Return NeMo's configuration, before it is checked; see `ModelSource`."""
        return parse_config(self._content(CONFIG))

    def tokenizer(self) -> bytes:
        """Return the SentencePiece model, before it is checked; see `ModelSource`."""
        return self._content(TOKENIZER_FILES["model_path"])

    def _content(self, name: str) -> bytes:
        try:
            return (self._directory / name).read_bytes()
        except OSError as error:
            raise _unreadable(name, error) from error

    def weights(self) -> Mapping[str, "torch.Tensor"]:
        """Wait until all files are read and checked, and return the weights by name, as tensors on the CPU.

        The tensors share one map of the file, which is closed with the last of them. Another call reads and checks all
        files again.

        Raises:
            DamagedModelError: A file is missing, cannot be read, or does not have its checksum.
        """
        if self._reading is None:
            self.read_ahead()
        reading, self._reading = self._reading, None
        assert reading  # noqa: S101 - read_ahead() has set it
        return _tensors(reading.result())

    def _read(self, reading: "Future[mmap.mmap]") -> None:
        try:
            for name, expected in self._checksums.items():
                if name != WEIGHTS:
                    _compare(name, sha256(self._directory / name), expected)
            block, found = _map_and_hash(self._directory / WEIGHTS)
            _compare(WEIGHTS, found, self._checksums[WEIGHTS])
            reading.set_result(block)
        except (OSError, ValueError) as error:  # an empty file cannot be mapped
            damage = _unreadable(Path(getattr(error, "filename", None) or WEIGHTS).name, error)
            damage.__cause__ = error
            reading.set_exception(damage)
        except Exception as error:  # noqa: BLE001 - raised again by weights()
            reading.set_exception(error)


def parse_config(content: bytes) -> Mapping[str, Any]:
    """Parse NeMo's configuration of a model. NeMo stores it with all references resolved.

    Raises:
        DamagedModelError: It is not YAML, or no mapping.
    """
    import yaml

    try:
        config = yaml.load(content, yaml.CSafeLoader)
    except yaml.YAMLError as error:
        raise DamagedModelError(f"{CONFIG} of the model is not YAML") from error
    if not isinstance(config, dict):
        raise DamagedModelError(f"{CONFIG} of the model is no mapping")
    return config


def _unreadable(name: str, error: Exception) -> DamagedModelError:
    return DamagedModelError(f"{name} of the model cannot be read: {getattr(error, 'strerror', error)}")


def _compare(name: str, found: str, expected: str) -> None:
    if found != expected:
        raise DamagedModelError(f"{name} of the model is damaged: its SHA-256 is {found}, card.json says {expected}")


def _map_and_hash(path: Path) -> tuple[mmap.mmap, str]:
    """Map a file into memory, and return the map and the SHA-256. The file is read once for both."""
    with path.open("rb") as file:
        # A private, writable map: torch warns about tensors in read-only memory.
        block = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
    if hasattr(mmap, "MADV_WILLNEED"):
        block.madvise(mmap.MADV_WILLNEED)
    # One call for the whole file. It runs without the GIL; between several calls this thread would wait for the GIL,
    # up to 5 ms each time, while others import.
    return block, hashlib.sha256(block).hexdigest()


def _tensors(block: mmap.mmap) -> dict[str, "torch.Tensor"]:
    """Return the tensors of a safetensors file in memory, without the copies that the safetensors library makes.

    The format: the length of the header (8 bytes, little endian), the header (JSON: dtype, shape and offsets by name),
    the data. https://github.com/huggingface/safetensors#format
    """
    import torch

    start = 8 + int.from_bytes(block[:8], "little")
    header: dict[str, dict[str, Any]] = json.loads(block[8:start])
    header.pop("__metadata__", None)
    data = torch.frombuffer(block, dtype=torch.uint8, offset=start)
    return {
        name: data[slice(*entry["data_offsets"])].view(getattr(torch, _DTYPES[entry["dtype"]])).reshape(entry["shape"])
        for name, entry in header.items()
    }
