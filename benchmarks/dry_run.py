"""What the model would do on a GPU, on a machine without one.

    make dry-run                                              # the table: this worker's model beside NeMo's modules
    python benchmarks/dry_run.py --windows 8 --seconds 300    # stages and peak memory of a batch

The sizes are Parakeet-TDT-0.6B-v2's, in bfloat16. Every tensor is a FakeTensor on a device named `cuda`: it has
a shape, a dtype and a device, and no values. Tensors on different devices raise, as they would on a GPU. It is recorded
which operations launch how many kernels, with their FLOPs and bytes, where the host waits for the GPU, what is copied
between them, and the most memory that tensors take at a time.

It cannot show numbers, times, races, which kernels cuDNN and cuBLAS choose, their workspaces, or fragmentation.
"""

import argparse
import ctypes
import json
import shutil
import subprocess
import tempfile
import traceback
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import cache, wraps
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - as everybody does
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from parakeet_worker.asr.types import NO_OPTIONS, SAMPLE_RATE, DecodingOptions
from parakeet_worker.model.config import ModelConfig
from parakeet_worker.model.network import Parakeet
from parakeet_worker.model.term_tables import TermTables

RESULTS = Path(__file__).parent / "results"

PARAKEET_06B = ModelConfig(
    mels=128,
    fft=512,
    window=400,
    hop=160,
    preemphasis=0.97,
    log_guard=2**-24,
    layers=24,
    width=1024,
    heads=8,
    feed_forward=4096,
    kernel=9,
    subsampling=8,
    subsampling_channels=256,
    has_bias=False,
    input_scale=1.0,
    labels=1024,
    predictor_width=640,
    predictor_layers=2,
    joint_width=640,
    joint_activation="relu",
    joint_has_dropout=True,
    durations=(0, 1, 2, 3, 4),
    max_symbols=10,
)
"""Parakeet-TDT-0.6B-v2."""

_DEVICE = torch.device("cuda", 0)

# CUDA's guard of the current device, which a build of torch for CPUs lacks, as one that does nothing.
_GUARD = """
#include <c10/core/impl/DeviceGuardImplInterface.h>
namespace c10::impl { C10_REGISTER_GUARD_IMPL(CUDA, NoOpDeviceGuardImpl<DeviceType::CUDA>) }
"""

# Operations that launch nothing though torch does not call them views.
_NO_KERNEL = {
    "empty",
    "empty_like",
    "empty_strided",
    "empty_permuted",
    "new_empty",
    "_unsafe_view",
    "lift_fresh",
    "detach",
}

# Operations whose result the host waits for.
_WAITS = {"_local_scalar_dense", "nonzero", "equal", "masked_select", "_unique2"}

# What counts an operation's FLOPs.
_FLOPS = {**flop_registry, torch.ops.aten.addmm_: flop_registry[torch.ops.aten.addmm]}

# Kernels of an LSTM layer's step in cuDNN, about: two products, and the cell.
_LSTM_KERNELS = 3

# torch's allocator rounds up to this many bytes.
_BLOCK = 512


@dataclass(frozen=True)
class Operation:
    """An operation on the device: the stage of the model that it is in, its name in aten, and its cost."""

    stage: str
    name: str
    kernels: int
    flops: int
    bytes: int


@dataclass(frozen=True)
class Totals:
    """The sums over the operations of a stage."""

    operations: int
    kernels: int
    flops: int
    bytes: int


@dataclass
class Trace:
    """What a dry run recorded.

    Attributes:
        operations: The operations on the device, in order.
        waits: The stage, the operation and the line of code of each wait of the host for the device.
        copies: The same of each copy between host and device.
        peak_bytes: Most memory that tensors beside the weights took at a time.
        peak_stage: The stage in which they did.
        steps: Decoder steps that were run.
    """

    operations: list[Operation] = field(default_factory=list)
    waits: list[tuple[str, str, str]] = field(default_factory=list)
    copies: list[tuple[str, str, str]] = field(default_factory=list)
    peak_bytes: int = 0
    peak_stage: str = ""
    steps: int = 0

    def totals(self, *stages: str) -> Totals:
        """Return the sums over stages."""
        found = [operation for operation in self.operations if operation.stage in stages]
        flops, size = sum(operation.flops for operation in found), sum(operation.bytes for operation in found)
        return Totals(len(found), sum(operation.kernels for operation in found), flops, size)


class Recorder(TorchDispatchMode):
    """Records what is done in its context.

    Args:
        flag: The value of a bool that the host asks for.
    """

    def __init__(self, *, flag: bool) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.trace = Trace()
        self.stage = ""
        self._flag = flag
        self._live: set[int] = set()
        self._bytes = 0

    def __torch_dispatch__(
        self,
        func: Any,  # noqa: ANN401 - torch's own type of an operation has no public name
        types: object,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> object:
        """Run an operation, and record it."""
        kwargs = kwargs or {}
        if func is torch.ops.prim.device.default:
            return args[0].fake_device
        name = func.overloadpacket.__name__
        before = len(self.trace.operations)
        with self:
            decomposed = func.decompose(*args, **kwargs)
        if decomposed is not NotImplemented:
            if name == "lstm":
                self._join(before, name, _LSTM_KERNELS * args[4])
            return decomposed
        given = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        on_device = any(tensor.device.type == "cuda" for tensor in given)
        if on_device and name in _WAITS:
            self.wait(name)
            if name == "_local_scalar_dense":
                return self._flag if args[0].dtype == torch.bool else 1
        result = func(*args, **kwargs)
        returned = [leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]
        devices = {tensor.device.type for tensor in given + returned}
        if name in ("_to_copy", "copy_") and devices == {"cpu", "cuda"}:
            self.trace.copies.append((self.stage, f"to {returned[0].device.type}", _where()))
            if returned[0].device.type == "cpu":
                self.wait(name)
        elif "cuda" in devices and not func.is_view and name not in _NO_KERNEL:
            size = sum(map(_bytes, given + returned))
            flops = 0
            if func.overloadpacket in _FLOPS:
                flops = int(_FLOPS[func.overloadpacket](*args, **kwargs, out_val=result))
            self.trace.operations.append(Operation(self.stage, name, _kernels(name, args, kwargs), flops, size))
        known = {_storage(tensor) for tensor in given}
        for tensor in returned:
            if _storage(tensor) not in known:
                self.hold(tensor)
        return result

    def _join(self, first: int, name: str, kernels: int) -> None:
        """Make one operation of those from `first` on."""
        parts = self.trace.operations[first:]
        flops, size = sum(part.flops for part in parts), sum(part.bytes for part in parts)
        self.trace.operations[first:] = [Operation(self.stage, name, kernels, flops, size)]

    def wait(self, name: str) -> None:
        """Record that the host waits for the device."""
        self.trace.waits.append((self.stage, name, _where()))

    def fetch(self, tensor: Tensor) -> object:
        """Record that a tensor is copied to the host, as `Tensor.tolist` does; return zeros."""
        self.trace.copies.append((self.stage, "to cpu", _where()))
        self.wait("tolist")
        return np.zeros(tensor.shape, np.int64).tolist()

    def hold(self, tensor: Tensor) -> None:
        """Count the memory of a tensor until it is freed."""
        key = _storage(tensor)
        if tensor.device.type != "cuda" or key in self._live:
            return
        size = -(-tensor.untyped_storage().nbytes() // _BLOCK) * _BLOCK
        self._live.add(key)
        self._bytes += size
        if self._bytes > self.trace.peak_bytes:
            self.trace.peak_bytes, self.trace.peak_stage = self._bytes, self.stage
        weakref.finalize(tensor.untyped_storage(), self._free, key, size)

    def _free(self, key: int, size: int) -> None:
        self._live.discard(key)
        self._bytes -= size

    def in_stage(self, stage: str, call: Callable[..., Any]) -> Callable[..., Any]:
        """Return a function that names the stage while it runs."""

        @wraps(call)
        def staged(*args: object, **kwargs: object) -> object:
            before, self.stage = self.stage, stage
            self.trace.steps += stage == "step"
            try:
                return call(*args, **kwargs)
            finally:
                self.stage = before

        return staged


def _attention(query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor, **_: object) -> Tensor:
    """Attention as CUDA computes it with a bias: flash takes none, and the memory-efficient kernel an aligned one."""
    if any(stride % 8 for stride in attn_mask.stride()[:-1]):
        size = attn_mask.shape[-1]
        attn_mask = F.pad(attn_mask, (0, 8 - size % 8))[..., :size]
    bias = attn_mask.expand(*query.shape[:3], key.shape[2])
    attended: Tensor = torch.ops.aten._scaled_dot_product_efficient_attention(query, key, value, bias, False)[0]  # noqa: SLF001
    return attended


def _kernels(name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> int:
    """Return how many kernels CUDA launches for an operation: rather one too many."""
    if name == "convolution":
        # The bias is added by a second kernel. What is convolved over one dimension is made contiguous before.
        return 1 + (args[2] is not None) + (args[1].dim() == 3 and not args[0].is_contiguous())
    if name in ("addmm", "baddbmm"):
        # A bias of one dimension is added by the product itself. Anything else is copied to the output first.
        return 1 if args[0].dim() == 1 or args[0] is kwargs.get("out") else 2
    return {"constant_pad_nd": 2, "masked_fill": 2, "_fft_r2c": 2}.get(name, 1)


def _bytes(tensor: Tensor) -> int:
    """Return the bytes of a tensor in memory: what is expanded is there once."""
    size = tensor.element_size()
    for length, stride in zip(tensor.shape, tensor.stride(), strict=True):
        size *= length if stride else 1
    return size


def _storage(tensor: Tensor) -> int:
    """Return the address of what holds a tensor's elements."""
    address: int = tensor.untyped_storage()._cdata  # noqa: SLF001
    return address


def _where() -> str:
    """Return the innermost line of the model that is running."""
    for frame in reversed(traceback.extract_stack()):
        for package in ("parakeet_worker", "nemo"):
            _, found, path = frame.filename.rpartition(f"/{package}/")
            if found:
                return f"{package}/{path}:{frame.lineno}: {frame.line}"
    return ""


@cache
def register_guard() -> None:
    """Let a build of torch without CUDA index tensors on a device named `cuda`. It takes a compiler, and a second.

    Raises:
        FileNotFoundError: There is no `g++`.
    """
    if torch.cuda.is_available():
        return
    compiler = shutil.which("g++")
    if compiler is None:
        raise FileNotFoundError("the dry run compiles ten lines of C++: it needs g++")
    root = Path(torch.__file__).parent
    with tempfile.TemporaryDirectory() as directory:
        library = Path(directory, "guard.so")
        options = ["-std=c++20", "-shared", "-fPIC", f"-I{root / 'include'}", f"-L{root / 'lib'}"]
        command = [compiler, *options, "-x", "c++", "-", "-o", str(library), "-lc10"]
        subprocess.run(command, input=_GUARD.encode(), check=True)  # noqa: S603 - our own arguments
        ctypes.CDLL(str(library))


@contextmanager
def fake_device(mode: FakeTensorMode | None = None) -> Iterator[None]:
    """Let all tensors in the context be fake ones, modules be moved to `cuda`, and attention run as it does there.

    Args:
        mode: That of fake tensors which are used in the context.
    """
    register_guard()
    with (
        mode or FakeTensorMode(),
        mock.patch.object(nn.Module, "_apply", _replace_tensors),
        mock.patch.object(F, "scaled_dot_product_attention", _attention),
    ):
        yield


def _replace_tensors(module: nn.Module, change: Callable[[Tensor], Tensor]) -> nn.Module:
    """Do what `nn.Module.to` does: it would swap tensors in place, which fake ones refuse."""
    for part in module.modules():
        for name, parameter in part.named_parameters(recurse=False):
            setattr(part, name, nn.Parameter(change(parameter.detach()), requires_grad=False))
        for name, buffer in part.named_buffers(recurse=False):
            setattr(part, name, change(buffer))
    return module


def load_plain(config: ModelConfig = PARAKEET_06B, precision: torch.dtype = torch.bfloat16) -> Parakeet:
    """Load the plain model as the worker does, with fake weights."""
    model = Parakeet(config)
    expected = model.state_dict()
    with fake_device():
        weights = {name: torch.empty(value.shape, dtype=value.dtype) for name, value in expected.items()}
        model.load(weights, _DEVICE, precision)
        with torch.inference_mode():
            model.encoder.position_terms(1)  # those of short recordings are kept
    return model


def trace_plain(model: Parakeet, windows: int, seconds: float, options: DecodingOptions = NO_OPTIONS) -> Trace:
    """Transcribe a batch with the plain model: samples on the device to tokens on the host.

    Args:
        model: The model.
        windows: Recordings in the batch.
        seconds: The length of each.
        options: What each asks for. Its key terms are in the tables already.

    Returns:
        What was done, in the stages `features`, `encoder`, `start`, `step`, `look` (what comes between steps) and
        `emissions`. All streams have ended at the first look.
    """
    recorder = Recorder(flag=True)
    search = model.search
    stages: dict[str, Any] = {
        name: recorder.in_stage(stage, getattr(search, name))
        for stage, names in {
            "start": ("frames", "streams", "begin"),
            "step": ("step", "step_with_terms"),
            "emissions": ("emissions",),
        }.items()
        for name in names
    }
    hooks = [
        model.encoder.register_forward_pre_hook(lambda *_: setattr(recorder, "stage", "encoder")),
        model.encoder.register_forward_hook(lambda *_: setattr(recorder, "stage", "look")),
    ]
    weight = next(model.parameters())
    assert isinstance(weight, FakeTensor)
    # What fills the tables copies from the host, as no step does.
    places = mock.patch.object(TermTables, "place", lambda _, terms: torch.zeros(len(terms), device=_DEVICE).long())
    with fake_device(weight.fake_mode), mock.patch.multiple(search, **stages), places:
        samples, lengths = _batch(windows, seconds, model.config.aligned_samples)
        recorder.stage = "features"
        recorder.hold(samples)
        with recorder, mock.patch.object(FakeTensor, "tolist", lambda tensor: recorder.fetch(tensor)):
            model.decode(*model.encode(samples, lengths), [options] * windows)
    for hook in hooks:
        hook.remove()
    return recorder.trace


def _batch(windows: int, seconds: float, multiple: int) -> tuple[Tensor, Tensor]:
    """Return a batch as it reaches a model: samples, padded to a multiple, and their numbers."""
    samples = int(seconds * SAMPLE_RATE)
    padded = -(-samples // multiple) * multiple
    return torch.zeros(windows, padded, device=_DEVICE), torch.full((windows,), samples, device=_DEVICE)


def trace_nemo(config: ModelConfig, windows: int, seconds: float) -> Trace:
    """Do the same with NeMo's own modules, imported whole.

    Returns:
        What was done, in the stages `features`, `encoder`, `start`, and one round each of the decoder's loops: `outer`
        and `inner`. NeMo runs these from CUDA graphs, where it can capture them.
    """
    from nemo.collections.asr import modules
    from nemo.collections.asr.parts.submodules.transducer_decoding import tdt_label_looping

    recorder = Recorder(flag=False)
    with fake_device():
        preprocessor = modules.AudioToMelSpectrogramPreprocessor(features=config.mels, dither=0.0, pad_to=0)
        encoder = modules.ConformerEncoder(
            feat_in=config.mels,
            n_layers=config.layers,
            d_model=config.width,
            n_heads=config.heads,
            conv_kernel_size=config.kernel,
            subsampling="dw_striding",
            subsampling_factor=config.subsampling,
            subsampling_conv_channels=config.subsampling_channels,
            use_bias=config.has_bias,
            xscaling=config.input_scale != 1,
        )
        prediction = {"pred_hidden": config.predictor_width, "pred_rnn_layers": config.predictor_layers}
        decoder = modules.RNNTDecoder(prednet=prediction, vocab_size=config.labels, blank_as_pad=True)
        joint = modules.RNNTJoint(
            jointnet={
                "joint_hidden": config.joint_width,
                "encoder_hidden": config.width,
                "pred_hidden": config.predictor_width,
                "activation": config.joint_activation,
            },
            num_classes=config.labels,
            num_extra_outputs=len(config.durations),
        )
        preprocessor.eval().to(_DEVICE)
        for module in (encoder, decoder, joint):
            module.eval().to(_DEVICE, torch.bfloat16)
        search = tdt_label_looping.GreedyBatchedTDTLabelLoopingComputer(
            decoder, joint, config.labels, list(config.durations), config.max_symbols, allow_cuda_graphs=False
        )
        search.cuda_graphs_mode = search.CudaGraphsMode.NO_GRAPHS  # its rounds on the state that graphs would have
        samples, lengths = _batch(windows, seconds, multiple=1)
        recorder.hold(samples)
        # NeMo looks for a length of one frame, where there is a GPU.
        on_gpu = mock.patch.multiple(torch.cuda, is_available=lambda: True, is_current_stream_capturing=lambda: False)
        with recorder, torch.inference_mode():
            recorder.stage = "features"
            with on_gpu:
                features, lengths = preprocessor(input_signal=samples, length=lengths)
            recorder.stage = "encoder"
            encoded, lengths = encoder(audio_signal=features.to(torch.bfloat16), length=lengths)
            recorder.stage = "start"
            search._graph_reinitialize(joint.project_encoder(encoded.transpose(1, 2)))  # noqa: SLF001
            search._init_decoding_state(current_batch_size=windows)  # noqa: SLF001
            search._before_outer_loop()  # noqa: SLF001
            recorder.stage = "outer"
            search._before_inner_loop_get_joint_output()  # noqa: SLF001
            search._after_inner_loop_step()  # noqa: SLF001
            recorder.stage = "inner"
            search._inner_loop_step_find_next_non_blank()  # noqa: SLF001
    return recorder.trace


@dataclass(frozen=True)
class Row:
    """One line of the table: the cost of features and encoder, and of the decoder's steps.

    Attributes:
        windows: Recordings in the batch.
        engine: `NeMo` or `plain`.
        operations: Operations of features and encoder.
        kernels: Kernels that they launch.
        waits: Times that the host waits for the GPU in them.
        gigaflops: Their floating-point operations.
        gigabytes: What they read and write.
        step: Kernels of a decoder step. NeMo's: of an outer round, and of an inner one.
        peak_megabytes: Most memory that tensors beside the weights take at a time.
    """

    windows: int
    engine: str
    operations: int
    kernels: int
    waits: int
    gigaflops: float
    gigabytes: float
    step: str
    peak_megabytes: float

    @classmethod
    def of(cls, trace: Trace, windows: int, engine: str, step: str) -> "Row":
        """Return a trace's row."""
        encoding = trace.totals("features", "encoder")
        waits = sum(stage in ("features", "encoder") for stage, *_ in trace.waits)
        costs = round(encoding.flops / 1e9, 3), round(encoding.bytes / 1e9, 3)
        peak = round(trace.peak_bytes / 1e6, 3)
        return cls(windows, engine, encoding.operations, encoding.kernels, waits, *costs, step, peak)

    def __str__(self) -> str:
        return (
            f"{self.windows:>7} {self.engine:<7}{self.operations:>10,} {self.kernels:>8,} {self.waits:>6}"
            f"{self.gigaflops:>10,.0f} {self.gigabytes:>6,.1f}  {self.step:>8}  {self.peak_megabytes:>8,.0f}"
        )


def write_table(seconds: float = 8.0) -> None:
    """Print the table of batches of 1 and of 64 recordings, and write it to `benchmarks/results/`."""
    rows = []
    for windows in (1, 64):
        nemo = trace_nemo(PARAKEET_06B, windows, seconds)
        rounds = " + ".join(str(nemo.totals(stage).kernels) for stage in ("outer", "inner"))
        plain = trace_plain(load_plain(), windows, seconds)
        step = f"{plain.totals('step', 'look').kernels / plain.steps:.1f}"
        rows += [Row.of(nemo, windows, "NeMo", rounds), Row.of(plain, windows, "plain", step)]
    lines = [
        f"Parakeet-TDT-0.6B-v2 in bfloat16, recordings of {seconds:g} s; a dry run, torch {torch.__version__}",
        "Features and encoder; kernels of a decoder step (NeMo's: an outer round, and an inner one); peak of all",
        "",
        "windows engine operations  kernels  waits    GFLOP     GB      step   peak MB",
        *map(str, rows),
    ]
    print(*lines, sep="\n")
    (RESULTS / "dry-run.txt").write_text("\n".join(lines) + "\n")
    (RESULTS / "dry-run.json").write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n")


def main() -> None:
    """Write the table, or print what one batch costs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", action="store_true", help="the plain model beside NeMo's modules")
    parser.add_argument("--windows", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=8.0)
    args = parser.parse_args()
    if args.table:
        write_table()
        return
    trace = trace_plain(load_plain(), args.windows, args.seconds)
    for stage in dict.fromkeys(operation.stage for operation in trace.operations):
        total = trace.totals(stage)
        print(
            f"{stage:10}{total.operations:6,} operations {total.kernels:6,} kernels"
            f"{total.flops / 1e9:11,.2f} GFLOP {total.bytes / 1e9:9,.3f} GB"
        )
    print(f"peak of tensors: {trace.peak_bytes / 1e6:,.0f} MB, in {trace.peak_stage}")
    print("host waits:", *dict.fromkeys(trace.waits), sep="\n  ")


if __name__ == "__main__":
    main()
