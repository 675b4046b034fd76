"""How a model runs on the device that is there: precision, threads, and how much audio goes into a batch."""

from dataclasses import dataclass

import torch

from parakeet_worker.settings import Settings

# On a CPU, larger batches gain nothing more (measured with the small model), take memory, and make their jobs wait.
_CPU_BATCH_SECONDS = 120.0

# A GPU is full long before this, and a longer batch only makes its jobs wait.
_GPU_BATCH_SECONDS = 2_400.0

_LEAST_BATCH_SECONDS = 60.0

# Encoder activations of one padded second in 16-bit precision, in bytes. The subsampling's first output is the largest
# part: 50 frames x 64 bins x 256 channels x 2 bytes, in and out and once more for the convolution's workspace.
_BYTES_PER_SECOND = 8_000_000

# The rest of the memory is for the decoder, the attention of long windows, and the allocator's fragments.
_MEMORY_SHARE = 0.5

# Below this many parameters a matrix product is too small for 16-bit arithmetic to gain anything on a CPU (measured).
_LARGE_MODEL = 100_000_000


@dataclass(frozen=True)
class Plan:
    """How to run a model.

    Attributes:
        device: Where.
        precision: The arithmetic of matrix products. On a GPU the weights have it too; on a CPU they stay float32, and
            so does everything else.
        batch_seconds: Longest batch, in padded seconds.
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
        """What the weights are stored in while they serve."""
        return self.precision if self.device.type == "cuda" else torch.float32


def make_plan(settings: Settings, parameters: int) -> Plan:
    """Decide how to run a model on this machine.

    Args:
        settings: What the operator has decided already.
        parameters: How many parameters the model has.

    Raises:
        RuntimeError: CUDA is asked for and not there, or the GPU has too little memory.
    """
    name = settings.device
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and not torch.cuda.is_available():
        raise RuntimeError("PARAKEET_DEVICE is cuda, and torch finds no GPU that it can use")
    device = torch.device(name)
    precision = _precision(settings.precision, device, parameters)
    return Plan(device, precision, settings.batch_seconds or _batch_seconds(device, parameters, precision))


def _precision(name: str, device: torch.device, parameters: int) -> torch.dtype:
    if name != "auto":
        dtype: torch.dtype = getattr(torch, name)
        return dtype
    if device.type == "cuda":
        # Turing and older have no bfloat16 arithmetic.
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
        # oneDNN then rounds the factors of a float32 product to bfloat16, where the processor has instructions for it,
        # and adds in float32. Weights, activations and results stay float32.
        torch.set_float32_matmul_precision("medium")
        torch.backends.mkldnn.conv.fp32_precision = "bf16"  # type: ignore[attr-defined]
