"""Reading a model directory on a thread of its own, and checking it on the way, while Python imports what runs it."""

import hashlib
import json
import mmap
import threading
from collections.abc import Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from parakeet_worker.model.card import WEIGHTS, sha256

if TYPE_CHECKING:
    import torch

# The types of safetensors that a model's weights and buffers have, and their names in torch.
_DTYPES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16", "I64": "int64", "I32": "int32", "BOOL": "bool"}


class DamagedModel(Exception):  # noqa: N818 - what is the matter, not a mistake
    """A file of the model directory cannot be read, or is not the one that `card.json` describes."""


class ModelFiles:
    """The files of a model directory.

    The weights are mapped into memory, where the tensors use them: there is no copy in this process.

    Args:
        directory: The baked model.
        checksums: SHA-256 of its files, as its card has them.
    """

    def __init__(self, directory: Path, checksums: Mapping[str, str]) -> None:
        self._directory = directory
        self._checksums = checksums
        self._reading: Future[mmap.mmap] | None = None

    def read_ahead(self) -> Self:
        """Begin to read and check the files, on another thread."""
        self._reading = Future()
        threading.Thread(target=self._read, args=(self._reading,), name="model files", daemon=True).start()
        return self

    def weights(self) -> Mapping[str, "torch.Tensor"]:
        """Return the tensors of the weights by their names, on the CPU, once all files are read and checked.

        The tensors share one map of the file, which ends with the last of them. Another call checks it again.

        Raises:
            DamagedModel: A file is missing, cannot be read, or has another checksum than the card says.
        """
        if self._reading is None:
            self.read_ahead()
        reading, self._reading = self._reading, None
        assert reading  # noqa: S101 - read_ahead() has set it
        return _tensors(reading.result())

    def check(self) -> None:
        """Check all files.

        Raises:
            DamagedModel: A file is missing, cannot be read, or has another checksum than the card says.
        """
        self.weights()

    def _read(self, reading: "Future[mmap.mmap]") -> None:
        try:
            for name, expected in self._checksums.items():
                if name != WEIGHTS:
                    _compare(name, sha256(self._directory / name), expected)
            block, found = _map_and_hash(self._directory / WEIGHTS)
            _compare(WEIGHTS, found, self._checksums[WEIGHTS])
            reading.set_result(block)
        except (OSError, ValueError) as error:  # an empty file cannot be mapped
            name = Path(getattr(error, "filename", None) or WEIGHTS).name
            damage = DamagedModel(f"{name} of the model cannot be read: {getattr(error, 'strerror', error)}")
            damage.__cause__ = error
            reading.set_exception(damage)
        except Exception as error:  # noqa: BLE001 - whoever waits is told
            reading.set_exception(error)


def _compare(name: str, found: str, expected: str) -> None:
    if found != expected:
        raise DamagedModel(f"{name} of the model is damaged: its SHA-256 is {found}, card.json says {expected}")


def _map_and_hash(path: Path) -> tuple[mmap.mmap, str]:
    """Map a file into memory, and return that with the SHA-256. Both take one pass over it."""
    with path.open("rb") as file:
        # A private map, since torch warns of tensors that cannot be written to.
        block = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
    if hasattr(mmap, "MADV_WILLNEED"):
        block.madvise(mmap.MADV_WILLNEED)
    # One call for all: between two, this thread would wait for its turn among those that import, up to 5 ms each time.
    return block, hashlib.sha256(block).hexdigest()


def _tensors(block: mmap.mmap) -> dict[str, "torch.Tensor"]:
    """Find the tensors of a safetensors file in memory, without the copies that the library's own way takes.

    The format: the length of the header (8 bytes, little endian), the header (JSON: name to dtype, shape and place),
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
