"""Choosing the device, the precision and the longest batch that the memory holds, and errors of the device."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import torch

from parakeet_worker.asr.types import DeviceFailedError
from parakeet_worker.model.host_memory import free_bytes

T = TypeVar("T")

_LEAST_BATCH_SECONDS = 60.0

# Longest batch of the plain engine on a GPU, however much memory that has. For each second, the subsampling has 819,200
# first outputs, and not all kernels can address 2**31 (https://github.com/pytorch/pytorch/issues/80020). NeMo divides
# such a batch itself.
_MOST_BATCH_SECONDS = 2_600.0

# Most that the tensors of a batch take for each padded second in 16-bit precision, in bytes: by engine, and by
# `benchmarks/dry_run.py` with the sizes of 0.6B. The subsampling's first output alone takes 50 frames x 64 bins x
# 256 channels x 2 bytes. For windows longer than `batching.LINEAR_S`, whose attention takes more, the scheduler counts
# more seconds.
_BYTES_PER_SECOND = {"plain": 2_900_000, "nemo": 5_800_000}

# Share of the memory that is free beside the weights, for those tensors. The rest is for what the dry run cannot show:
# workspaces of convolutions, which may hold their input and output in another layout, and fragmentation.
_MEMORY_SHARE = 0.5

# What CUDA graphs hold in 16-bit precision, in bytes: activations of 128 padded seconds (0.45 GB with 0.6B), encoder
# frames, automata of key terms (0.17 GB), and the graphs themselves.
_GRAPHS_BYTES = 900_000_000

# Number of parameters below which 16-bit arithmetic is no faster on a CPU (measured): the matrix products are small.
_LARGE_MODEL = 100_000_000


@dataclass(frozen=True)
class Plan:
    """How to run a model.

    Attributes:
        device: The device.
        precision: Precision of matrix products. On a GPU the weights have it too. On a CPU the weights and everything
            else are float32.
        batch_seconds: Longest batch that the memory holds, in padded seconds; see `choose_batch`.
        uses_graphs: Whether CUDA graphs are captured.
    """

    device: torch.device
    precision: torch.dtype
    batch_seconds: float
    uses_graphs: bool = False

    @property
    def device_name(self) -> str:
        """`cpu`, or the name of the GPU."""
        return "cpu" if self.device.type == "cpu" else torch.cuda.get_device_name(self.device)

    @property
    def precision_name(self) -> str:
        """The precision as `PARAKEET_PRECISION` names it."""
        return str(self.precision).removeprefix("torch.")

    @property
    def weights_precision(self) -> torch.dtype:
        """Precision in which the weights are held in memory."""
        return self.precision if self.device.type == "cuda" else torch.float32


def make_plan(
    device_name: str,
    precision_name: str,
    batch_seconds: float | None,
    parameters: int,
    *,
    engine: str = "plain",
    uses_graphs: bool = False,
) -> Plan:
    """Return how to run a model on this machine.

    Args:
        device_name: `auto`, `cpu` or `cuda`.
        precision_name: `auto`, `float32`, `bfloat16` or `float16`.
        batch_seconds: Longest batch, in padded seconds, or None to take what the free memory holds.
        parameters: Number of the model's parameters.
        engine: `plain` or `nemo`.
        uses_graphs: Whether to capture CUDA graphs on a GPU.

    Raises:
        RuntimeError: CUDA is required and not available, the GPU has too little free memory, or float16 is required on
            a CPU.
    """
    name = device_name
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and not torch.cuda.is_available():
        raise RuntimeError("PARAKEET_DEVICE is cuda, and torch finds no GPU that it can use")
    if name == "cpu" and precision_name == "float16":
        raise RuntimeError(
            "PARAKEET_PRECISION is float16, which only a GPU computes with; on a CPU set bfloat16 or auto"
        )
    device = torch.device(name)
    precision = _precision(precision_name, device, parameters)
    uses_graphs = uses_graphs and name == "cuda"
    graphs = _GRAPHS_BYTES if uses_graphs else 0
    if batch_seconds is None:
        batch_seconds = _batch_seconds(device, parameters, precision, _BYTES_PER_SECOND[engine], graphs)
        if name == "cuda" and engine == "plain":
            batch_seconds = min(batch_seconds, _MOST_BATCH_SECONDS)
    return Plan(device, precision, batch_seconds, uses_graphs)


def _precision(name: str, device: torch.device, parameters: int) -> torch.dtype:
    if name != "auto":
        dtype: torch.dtype = getattr(torch, name)
        return dtype
    if device.type == "cuda":
        # GPUs up to Turing (7.5) have no bfloat16 arithmetic.
        return torch.bfloat16 if torch.cuda.get_device_capability(device) >= (8, 0) else torch.float16
    return torch.bfloat16 if parameters >= _LARGE_MODEL else torch.float32


def _batch_seconds(
    device: torch.device, parameters: int, precision: torch.dtype, bytes_per_second: int, graphs: int
) -> float:
    is_cpu = device.type == "cpu"
    # On a CPU weights and activations are float32, whatever the precision of matrix products.
    itemsize = 4 if is_cpu else precision.itemsize
    free = free_bytes() if is_cpu else torch.cuda.mem_get_info(device)[0]
    left = free - parameters * itemsize - graphs * itemsize / 2
    seconds = left * _MEMORY_SHARE / (bytes_per_second * itemsize / 2)
    if is_cpu:
        # Too little is no error: the estimate is that of a large model, and the system may swap.
        return max(_LEAST_BATCH_SECONDS, seconds)
    if seconds < _LEAST_BATCH_SECONDS:
        raise RuntimeError(f"the GPU has {free / 1e9:.1f} GB of memory free, too little for the model and a batch")
    return float(seconds)


def use_plan(plan: Plan, cpu_threads: int) -> None:
    """Set up torch for a plan, for the whole process."""
    torch.set_num_threads(cpu_threads)
    if plan.device.type == "cuda":
        # cuDNN's attention makes a plan for each new shape of a batch, which can take longer than the batch.
        torch.backends.cuda.enable_cudnn_sdp(False)
    if plan.device.type == "cpu" and plan.precision == torch.bfloat16:
        # On processors with bfloat16 instructions oneDNN then rounds the factors of a float32 product to bfloat16, and
        # accumulates in float32. Weights, activations and results stay float32.
        torch.set_float32_matmul_precision("medium")
        torch.backends.mkldnn.conv.fp32_precision = "bf16"  # type: ignore[attr-defined]


def on_device(device: torch.device, run: Callable[[], T]) -> T:
    """Call a function whose errors the scheduler is to handle.

    Raises:
        torch.OutOfMemoryError: There was too little memory. What the function held is free again.
        DeviceFailedError: CUDA failed.
        Exception: Anything else that the function raised.
    """
    try:
        return run()
    except RuntimeError as error:
        message = str(error)
        # CUDA and cuBLAS raise errors of their own where torch's allocator has not failed.
        is_full = device.type == "cuda" and ("out of memory" in message or "ALLOC_FAILED" in message)
        if not (is_full or isinstance(error, torch.OutOfMemoryError)):
            if device.type != "cuda" or not is_cuda_error(error):
                raise
            raise DeviceFailedError(message) from error
    # Another error, outside the `except`: the traceback of the first one keeps the tensors of the batch.
    torch.cuda.empty_cache()  # does nothing where CUDA is not in use
    raise torch.OutOfMemoryError(message)


def is_cuda_error(error: RuntimeError) -> bool:
    """Return whether an error is CUDA's, such as an illegal address. The process cannot use the GPU after one."""
    message = str(error)
    return isinstance(error, torch.AcceleratorError) or "CUDA error" in message or "CUDA driver error" in message
