"""Choosing the device, the precision and the longest batch, and setting up torch for them."""

from dataclasses import dataclass

import torch

# Longer batches are no faster on a CPU (measured with the small model), take more memory and add latency.
_CPU_BATCH_SECONDS = 120.0

# A GPU is fully used by much shorter batches. A longer one would only add latency.
_GPU_BATCH_SECONDS = 2_400.0

_LEAST_BATCH_SECONDS = 60.0

# Encoder activations of one padded second in 16-bit precision, in bytes. The subsampling's first output is the largest
# part: 50 frames x 64 bins x 256 channels x 2 bytes, three times: the input, the output and the workspace of
# a convolution.
_BYTES_PER_SECOND = 8_000_000

# Share of the memory that is free beside the weights, for those activations. The rest is for the decoder, the attention
# of long windows, and fragmentation.
_MEMORY_SHARE = 0.5

# Number of parameters below which 16-bit arithmetic is no faster on a CPU (measured): the matrix products are small.
_LARGE_MODEL = 100_000_000


@dataclass(frozen=True)
class Plan:
    """How to run a model.

    Attributes:
        device: The device.
        precision: Precision of matrix products. On a GPU the weights have it too. On a CPU the weights and everything
            else are float32.
        batch_seconds: Longest batch, in padded seconds: number of windows times the length of the longest.
    """

    device: torch.device
    precision: torch.dtype
    batch_seconds: float

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


def make_plan(device_name: str, precision_name: str, batch_seconds: float | None, parameters: int) -> Plan:
    """Return how to run a model on this machine.

    Args:
        device_name: `auto`, `cpu` or `cuda`.
        precision_name: `auto`, `float32`, `bfloat16` or `float16`.
        batch_seconds: Longest batch, in padded seconds, or None to choose it by device and memory.
        parameters: Number of the model's parameters.

    Raises:
        RuntimeError: CUDA is required and not available, or the GPU has too little free memory.
    """
    name = device_name
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and not torch.cuda.is_available():
        raise RuntimeError("PARAKEET_DEVICE is cuda, and torch finds no GPU that it can use")
    device = torch.device(name)
    precision = _precision(precision_name, device, parameters)
    return Plan(device, precision, batch_seconds or _batch_seconds(device, parameters, precision))


def _precision(name: str, device: torch.device, parameters: int) -> torch.dtype:
    if name != "auto":
        dtype: torch.dtype = getattr(torch, name)
        return dtype
    if device.type == "cuda":
        # GPUs up to Turing (7.5) have no bfloat16 arithmetic.
        return torch.bfloat16 if torch.cuda.get_device_capability(device) >= (8, 0) else torch.float16
    return torch.bfloat16 if parameters >= _LARGE_MODEL else torch.float32


def _batch_seconds(device: torch.device, parameters: int, precision: torch.dtype) -> float:
    if device.type == "cpu":
        return _CPU_BATCH_SECONDS
    free, _ = torch.cuda.mem_get_info(device)
    left = free - parameters * precision.itemsize
    seconds = left * _MEMORY_SHARE / (_BYTES_PER_SECOND * precision.itemsize / 2)
    if seconds < _LEAST_BATCH_SECONDS:
        raise RuntimeError(f"the GPU has {free / 1e9:.1f} GB of memory free, too little for the model and a batch")
    return float(min(_GPU_BATCH_SECONDS, seconds))


def use_plan(plan: Plan, cpu_threads: int) -> None:
    """Set up torch for a plan, for the whole process."""
    torch.set_num_threads(cpu_threads)
    if plan.device.type == "cpu" and plan.precision == torch.bfloat16:
        # On processors with bfloat16 instructions oneDNN then rounds the factors of a float32 product to bfloat16, and
        # accumulates in float32. Weights, activations and results stay float32.
        torch.set_float32_matmul_precision("medium")
        torch.backends.mkldnn.conv.fp32_precision = "bf16"  # type: ignore[attr-defined]
