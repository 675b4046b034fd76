"""A stand-in for CUDA graphs: records a function's operations, and replays them on the same tensors, on a CPU."""

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

T = TypeVar("T")

# Operations whose results the host waits for.
_WAITS = {"_local_scalar_dense", "item", "is_nonzero", "nonzero", "equal", "masked_select"}


class Recorder(TorchDispatchMode):
    """Records operations. One that needs a value on the host fails, as it does in a capture."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.operations: list[tuple[Any, Any, Any, list[torch.Tensor]]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.overloadpacket.__name__ in _WAITS:
            raise RuntimeError("CUDA error: operation not permitted when stream is capturing")
        results = func(*args, **(kwargs or {}))
        self.operations.append((func, args, kwargs or {}, _tensors(results)))
        return results

    def storages_read(self) -> list[torch.UntypedStorage]:
        """Return the memory that the operations read, and that none of them made."""
        made: set[int] = set()
        read: dict[int, torch.UntypedStorage] = {}
        for _, args, kwargs, results in self.operations:
            for storage in [tensor.untyped_storage() for tensor in _tensors((args, kwargs))]:
                if storage.data_ptr() not in made:
                    read[storage.data_ptr()] = storage
            made |= {tensor.untyped_storage().data_ptr() for tensor in results} - read.keys()
        return list(read.values())

    def replay(self) -> None:
        for func, args, kwargs, recorded in self.operations:
            for old, new in zip(recorded, _tensors(func(*args, **kwargs)), strict=True):
                if new.data_ptr() != old.data_ptr():  # no view, nor in place
                    old.copy_(new)


def capture(run: Callable[[], T]) -> Callable[[], T]:
    """Capture as `Capturer` does. What the capture itself computed is lost, as it is on a GPU."""
    recorder = Recorder()
    with torch.inference_mode():
        with recorder:
            results = run()
        for tensor in _tensors(results):
            tensor.fill_(-1)

    def replay() -> T:
        with torch.inference_mode():
            recorder.replay()
        return results

    return replay


def _tensors(tree: Any) -> list[torch.Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, torch.Tensor)]
