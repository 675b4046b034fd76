"""How the worker runs on the GPU that it finds. There is none here: torch's view of one is put in its place."""

from typing import Any

import pytest
import torch

from parakeet_worker.model.device import make_plan
from parakeet_worker.settings import Settings

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


def peak_bytes(windows: int, seconds: float) -> float:
    """What the encoder's tensors take in 16 bits, from a dry run: subsampling, or the scores of full attention."""
    return windows * max(3.5e6 * seconds, 10.7e3 * seconds**2)


@pytest.mark.parametrize("size_gb", SIZES_GB)
def test_any_gpu_of_8_gb_serves(plan: Any, size_gb: Any) -> None:
    made = plan(size_gb)
    assert made.precision == made.weights_precision == torch.bfloat16
    left = (size_gb - 0.8) * 1e9 - 2 * PARAMETERS
    for seconds in (1, 30, PASS_S):
        windows = int(made.batch_seconds // seconds)
        assert windows >= 1, "the longest pass is longer than the longest batch"
        assert peak_bytes(windows, seconds) < left / 2


def test_the_limit_follows_the_memory(plan: Any) -> None:
    limits = [plan(size).batch_seconds for size in SIZES_GB]
    assert limits == sorted(limits)
    assert [round(limit) for limit in limits] == [373, 498, 873, 1373, 2400, 2400, 2400]


def test_single_precision_on_a_small_gpu(plan: Any) -> None:
    made = plan(8, PARAKEET_PRECISION="float32")
    assert 60 <= made.batch_seconds < plan(8).batch_seconds
    assert 2 * peak_bytes(1, PASS_S) < 7.2e9 - 4 * PARAMETERS


def test_a_gpu_that_is_too_small(plan: Any) -> None:
    with pytest.raises(
        RuntimeError, match=r"^the GPU has 1\.2 GB of memory free, too little for the model and a batch$"
    ):
        plan(2)


def test_what_is_set_is_kept(plan: Any) -> None:
    assert plan(8, PARAKEET_BATCH_SECONDS="100").batch_seconds == 100


def test_turing_has_no_bfloat16(plan: Any) -> None:
    assert plan(16, capability=(7, 5)).precision == torch.float16
