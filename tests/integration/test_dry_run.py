"""The CUDA path without a GPU: Parakeet-TDT-0.6B-v2 in bfloat16 on fake tensors; see `benchmarks/dry_run.py`."""

import os
import shutil
from typing import Any
from unittest import mock

import numpy as np
import pytest
import soundfile
import torch

from cpu import CPU
from dry_run import PARAKEET_06B, Trace, load_plain, trace_plain
from parakeet_worker.asr.types import SAMPLE_RATE, DecodingOptions
from parakeet_worker.model import encoder
from parakeet_worker.model.card import Card
from parakeet_worker.model.config import ModelConfig
from parakeet_worker.model.decoder import Decoder
from parakeet_worker.model.files import ModelFiles
from parakeet_worker.model.key_terms import build
from parakeet_worker.model.network import Parakeet
from parakeet_worker.model.staging import Staging
from peak_memory import peak_bytes
from project import MODEL_DIR, Clip

TERMS = build([((1, 2, 3), 1.0)])


@pytest.fixture(scope="module")
def model() -> Parakeet:
    if shutil.which("g++") is None and "CI" not in os.environ:
        pytest.skip("the dry run needs g++")
    return load_plain()


@pytest.fixture(scope="module")
def clip(model: Parakeet) -> Trace:
    """One clip of 8 seconds."""
    return trace_plain(model, 1, 8)


def test_the_host_waits_for_the_end_of_all_streams_and_for_the_tokens_alone(clip: Trace) -> None:
    assert [(stage, what) for stage, what, _ in clip.waits] == [
        ("look", "_local_scalar_dense"),
        ("emissions", "tolist"),
    ]
    assert "have_ended = bool(ended)" in clip.waits[0][2]
    assert [(stage, what) for stage, what, _ in clip.copies] == [("emissions", "to cpu")]


def test_few_kernels_are_launched(clip: Trace) -> None:
    assert clip.totals("features", "encoder").kernels <= 760
    assert clip.steps > 0
    assert clip.totals("step", "look").kernels <= 40 * clip.steps


@pytest.mark.parametrize(
    ("options", "kernels"),
    [(DecodingOptions(has_confidence=True), 39), (DecodingOptions(has_confidence=True, terms=TERMS), 68)],
)
def test_options_add_kernels_and_no_waits(model: Parakeet, clip: Trace, options: DecodingOptions, kernels: int) -> None:
    trace = trace_plain(model, 1, 8, options)
    assert [wait[:2] for wait in trace.waits] == [wait[:2] for wait in clip.waits]
    assert [copy[:2] for copy in trace.copies] == [copy[:2] for copy in clip.copies]
    assert clip.totals("step", "look").kernels < trace.totals("step", "look").kernels <= kernels * trace.steps


def test_each_weight_of_the_conformer_layers_is_multiplied_once(clip: Trace) -> None:
    """Nor are there many products beside: in attention, and in the subsampling."""
    weights, frames = 24 * (16 + 4 + 3) * 1024**2, 104
    assert 1 < clip.totals("encoder").flops / (2 * weights * frames) < 1.2


def test_the_encoder_works_in_16_bits_on_aligned_rows(clip: Trace) -> None:
    # A product in float32, or a bias that CUDA would have to pad, shows as one of these.
    copies = [operation.name for operation in clip.operations if operation.stage == "encoder"]
    assert copies.count("constant_pad_nd") == 0
    assert copies.count("_to_copy") <= 3
    # Each weight is read once at least, in two bytes; the activations of a clip are less than half of that.
    assert 1.2e9 < clip.totals("encoder").bytes < 1.8e9


@pytest.mark.parametrize("seconds", [0.1, 8, 12.34, 29.99])
def test_a_batch_is_padded_to_eight_frames(seconds: float) -> None:
    samples = np.zeros(int(seconds * SAMPLE_RATE), np.float32)
    padded, _ = Staging(torch.device("cpu"), PARAKEET_06B.aligned_samples).pad([samples])
    frames = padded.shape[1] // PARAKEET_06B.hop
    for _ in range(3):
        frames = (frames - 1) // 2 + 1
    assert frames % 8 == 0


# Recordings of a second, the usual ones, windows as long as `PARAKEET_PASS_SECONDS`, and a longer pass.
@pytest.mark.parametrize(("windows", "seconds"), [(64, 1), (1, 8), (64, 30), (1, 300), (8, 300), (1, 1440)])
def test_the_memory_is_as_the_plans_assume(model: Parakeet, windows: int, seconds: float) -> None:
    taken = trace_plain(model, windows, seconds).peak_bytes
    assert 0.76 * peak_bytes(windows, seconds) < taken <= peak_bytes(windows, seconds)


def test_a_wait_and_a_mixed_device_are_noticed(model: Parakeet) -> None:
    def waits(self: Any, features: Any, lengths: Any) -> Any:
        return forward(self, features, lengths) if int(lengths.max()) else None

    forward = encoder.Subsampling.forward
    with mock.patch.object(encoder.Subsampling, "forward", waits):
        assert ("encoder", "_local_scalar_dense") in {wait[:2] for wait in trace_plain(model, 1, 1).waits}
    with (
        mock.patch.object(encoder.Subsampling, "forward", lambda self, x, n: forward(self, x, n.cpu())),
        pytest.raises(RuntimeError, match="device"),
    ):
        trace_plain(model, 1, 1)


def test_few_steps_decode_many_clips(clips: list[Clip]) -> None:
    files = ModelFiles(MODEL_DIR, Card.read(MODEL_DIR).files)
    real = Parakeet(ModelConfig.from_nemo(files.config()))
    real.load(files.weights(), CPU.device, CPU.weights_precision)
    speech = np.concatenate([soundfile.read(clip.path, dtype="float32")[0] for clip in clips])
    batch = [np.roll(speech, -i * (len(speech) // 64))[: 8 * SAMPLE_RATE] for i in range(64)]
    with mock.patch.object(Decoder, "step", autospec=True, side_effect=Decoder.step) as step:
        found = real.decode(*real.encode(*Staging(CPU.device).pad(batch)))
    assert sum(map(len, found)) > 64 * 40  # it is speech
    assert step.call_count <= 100
