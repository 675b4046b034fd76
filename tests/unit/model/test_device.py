"""How the worker runs on the GPU that it finds. There is none here: torch's view of one is put in its place."""

import gc
import weakref
from typing import Any

import pytest
import torch

from parakeet_worker.asr.batching import memory_seconds
from parakeet_worker.asr.types import DeviceFailedError
from parakeet_worker.model.device import make_plan, on_device
from parakeet_worker.settings import Settings
from peak_memory import peak_bytes

PARAMETERS = 617_800_000  # Parakeet-TDT-0.6B-v2
PASS_S = Settings.from_env({}).pass_seconds

# An RTX 3070, an RTX 3080, an RTX A4000, an L4, an A40, an A100 and an H200.
SIZES_GB = [8, 10, 16, 24, 48, 80, 141]


@pytest.fixture
def plan(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Plan for a GPU with this much memory, of which the driver and CUDA's context take 0.8 GB."""

    def plan(size_gb: float, capability: tuple[int, int] = (8, 6), **environ: str) -> Any:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (int((size_gb - 0.8) * 1e9), int(size_gb * 1e9)))
        settings = Settings.from_env(environ)
        return make_plan(settings.device, settings.precision, settings.batch_seconds, PARAMETERS)

    return plan


@pytest.mark.parametrize("size_gb", SIZES_GB)
def test_any_gpu_of_8_gb_serves(plan: Any, size_gb: Any) -> None:
    made = plan(size_gb)
    assert made.precision == made.weights_precision == torch.bfloat16
    left = (size_gb - 0.8) * 1e9 - 2 * PARAMETERS
    for seconds in (1, 30, PASS_S, 450):
        windows = int(made.batch_seconds // memory_seconds(float(seconds)))
        assert windows >= 1, "the longest pass is longer than the longest batch"
        assert peak_bytes(windows, seconds) < left / 2


def test_the_limit_follows_the_memory(plan: Any) -> None:
    limits = [plan(size).batch_seconds for size in SIZES_GB]
    assert limits == sorted(limits)
    assert [round(limit) for limit in limits] == [1028, 1373, 2408, *[2600] * 4]


def test_single_precision_on_a_small_gpu(plan: Any) -> None:
    made = plan(8, PARAKEET_PRECISION="float32")
    assert 60 <= made.batch_seconds < plan(8).batch_seconds
    assert 2 * peak_bytes(1, PASS_S) < 7.2e9 - 4 * PARAMETERS


def test_a_cpu_does_not_compute_in_float16() -> None:
    with pytest.raises(RuntimeError, match="PARAKEET_PRECISION is float16"):
        make_plan("cpu", "float16", None, PARAMETERS)


def test_a_gpu_that_is_too_small(plan: Any) -> None:
    with pytest.raises(
        RuntimeError, match=r"^the GPU has 1\.2 GB of memory free, too little for the model and a batch$"
    ):
        plan(2)


def test_what_is_set_is_kept(plan: Any) -> None:
    assert plan(8, PARAKEET_BATCH_SECONDS="100").batch_seconds == 100


def test_turing_has_no_bfloat16(plan: Any) -> None:
    assert plan(16, capability=(7, 5)).precision == torch.float16


def test_nemos_modules_need_twice_the_memory(plan: Any) -> None:
    plain = plan(8)
    assert make_plan("cuda", "bfloat16", None, PARAMETERS, engine="nemo").batch_seconds == plain.batch_seconds / 2


def test_graphs_are_counted_where_there_are_any(plan: Any) -> None:
    without = plan(8)
    assert not without.uses_graphs
    given = ("cuda", "bfloat16", None, PARAMETERS)
    made = make_plan(*given, uses_graphs=True)
    assert made.uses_graphs
    assert without.batch_seconds - made.batch_seconds == pytest.approx(900e6 / 2 / 2.9e6)
    assert made.batch_seconds >= PASS_S
    assert not make_plan("cpu", "auto", None, PARAMETERS, uses_graphs=True).uses_graphs


def test_what_ran_out_of_memory_is_free_before_the_retry() -> None:
    held: list[weakref.ref[torch.Tensor]] = []

    def run() -> None:
        batch = torch.zeros(10)
        held.append(weakref.ref(batch))
        try:
            raise torch.OutOfMemoryError("tried to allocate")
        finally:
            batch.add_(1)

    gc.disable()
    try:
        on_device(torch.device("cpu"), run)
    except torch.OutOfMemoryError as error:
        assert str(error) == "tried to allocate"
        assert held[0]() is None
    finally:
        gc.enable()
    assert held


@pytest.mark.parametrize(
    ("device", "error", "raised"),
    [
        ("cuda", RuntimeError("CUDA error: an illegal memory access was encountered"), DeviceFailedError),
        ("cuda", torch.AcceleratorError("driver"), DeviceFailedError),
        ("cuda", RuntimeError("The size of tensor a must match the size of tensor b"), RuntimeError),
        ("cpu", RuntimeError("CUDA error: none here"), RuntimeError),
        ("cuda", ValueError("of a caller"), ValueError),
    ],
)
def test_errors_of_the_device_are_told_from_others(device: str, error: Exception, raised: type[Exception]) -> None:
    def run() -> None:
        raise error

    with pytest.raises(raised) as caught:
        on_device(torch.device(device), run)
    assert (caught.value is error) == (type(error) is raised)


def test_what_is_run_gives_its_result() -> None:
    assert on_device(torch.device("cuda"), lambda: 3) == 3
