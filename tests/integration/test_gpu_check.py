"""`make gpu-check`, as far as it goes without a GPU: each check on the CPU, and what it makes of faults."""

import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

import gpu_check
from capture import capture
from gpu_check import FAILED, FELL_BACK, NO_GPU, PASSED, Result, Subject, report, run_alone, run_check
from parakeet_worker.asr.types import Hypothesis
from project import MODEL_DIR, ROOT
from recognizers import FakeRecognizer

SUBJECT = Subject(MODEL_DIR, torch.device("cpu"), "float32", clips=4)


def smallest(run: Any) -> float:
    """A clock by which only the smallest shapes are bound by launches."""
    batch, mel_frames = run.args[0]
    return 1.0 if batch * mel_frames <= 448 else 2.0


def spoilt(change: Any) -> Subject:
    """A subject whose model is changed after it is loaded on its device, but not as the reference."""

    class Spoilt(Subject):
        def load(self) -> Any:
            recognizer = super().load()
            change(recognizer)
            return recognizer

    return Spoilt(*vars(SUBJECT).values())


def test_without_a_gpu_it_says_so() -> None:
    assert not torch.cuda.is_available()
    command = [sys.executable, "benchmarks/gpu_check.py"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (2, NO_GPU + "\n", "")


def test_results_on_the_cpu_are_its_own() -> None:
    result = run_check(gpu_check.check_results, SUBJECT, "results")
    assert result.status == PASSED
    assert result.detail == (
        "errors of features 0.0e+00, encoder 0.0e+00; 0 of 4 decoded clips differ; 100.0% of words agree"
    )


@pytest.mark.parametrize("part", ["preprocessor", "encoder", "search"])
def test_other_results_are_found(part: str) -> None:
    def change(recognizer: Any) -> None:
        owner = getattr(recognizer.model, part)
        tensors = {"preprocessor": "fb", "encoder": "bias"}
        if part == "search":
            owner._out.bias.data[:5] += 30
            return
        for name, tensor in [*owner.named_parameters(), *owner.named_buffers()]:
            if name.endswith(tensors[part]):
                tensor.data.mul_(1.5)

    result = run_check(gpu_check.check_results, spoilt(change), "results")
    assert result.status == FAILED
    assert result.detail.startswith("RuntimeError: errors of features")


def test_graphs_on_the_stand_in() -> None:
    result = run_check(partial(gpu_check.check_graphs, capture=capture, clock=smallest), SUBJECT, "graphs")
    assert result.status == PASSED, result.detail
    assert "1 encoder and 15 decoder graphs" in result.detail
    assert "4 of 4 batches equal" in result.detail
    assert " s, 0 MB (900 MB are reserved for 0.6B in 16 bits); " in result.detail


def test_graphs_that_fail_or_differ_fall_back() -> None:
    def fails(run: Any) -> Any:
        raise RuntimeError("CUDA error: captures are not supported")

    def differs(run: Any) -> Any:
        replay = capture(run)

        def wrong() -> Any:
            results = replay()
            results[1].add_(1) if results[1].dtype == torch.int64 else None
            return results

        return wrong

    for capturer, told in ((fails, "no graphs: RuntimeError: CUDA error"), (differs, "dropped: encoder, 1 x 448")):
        check = partial(gpu_check.check_graphs, capture=capturer, clock=smallest)
        result = run_check(check, SUBJECT, "graphs")
        assert result.status == FELL_BACK
        assert told in result.detail


def test_shapes() -> None:
    result = run_check(partial(gpu_check.check_shapes, shapes=3), SUBJECT, "shapes")
    assert result.status == PASSED, result.detail
    assert result.detail.startswith("3 shapes without cuDNN's attention: ")


def test_copies() -> None:
    result = run_check(gpu_check.check_copies, SUBJECT, "copies")
    assert (result.status, result.detail) == (PASSED, "40 clips staged, as ndarray, with equal results")


class Exhausted(FakeRecognizer):
    """A recognizer with memory for 300 clips."""

    batch_seconds = 120.0

    def __init__(self, fails_on: int = 300, text: str = "yes") -> None:
        self.most, self.text = fails_on, text

    def hear(self, batch: Any) -> list[Hypothesis]:
        if len(batch) > self.most:
            raise torch.OutOfMemoryError("tried to allocate")
        return [Hypothesis("yes" if len(batch) == 1 else self.text, ()) for _ in batch]


def check_memory(recognizer: Any) -> Result:
    return run_check(lambda subject: gpu_check.check_memory(subject, recognizer), SUBJECT, "memory")


def test_memory_that_runs_out() -> None:
    result = check_memory(Exhausted())
    assert (result.status, result.detail.partition(";")[0]) == (
        PASSED,
        "512 clips at once ran out of memory, which was free again",
    )
    assert "fit into the memory" in check_memory(Exhausted(1 << 20)).detail
    assert check_memory(Exhausted(text="no")).status == FAILED


def test_a_start() -> None:
    result = run_check(gpu_check.check_start, SUBJECT, "start")
    assert result.status == PASSED, result.detail
    assert result.detail.startswith("is ready after ")
    assert "on cpu in float32" in result.detail


def test_a_check_in_a_process_of_its_own(tmp_path: Path) -> None:
    arguments = ["--device", "cpu", "--check", "results"]
    assert run_alone("mini", [*arguments, str(MODEL_DIR), "float32"]).status == PASSED
    missing = run_alone("missing", [*arguments, str(tmp_path), "float32"])
    assert (missing.status, missing.detail[:17]) == (FAILED, "FileNotFoundError")
    broken = run_alone("broken", ["--device", "nonsense", *arguments[2:], str(MODEL_DIR), "float32"])
    assert (broken.name, broken.status) == ("broken", FAILED)
    assert broken.detail.startswith("it ended with 1: ")
    assert run_alone("slow", [*arguments, str(MODEL_DIR), "float32"], limit_s=0.1).detail == "nothing after 0 s"


def test_the_report() -> None:
    results = [Result("graphs mini", FELL_BACK, "no graphs", 3.0), Result("start mini", PASSED, "is ready", 12.5)]
    assert report("A GPU", results, ["a table\n"]) == (
        f"A GPU, torch {torch.__version__}: 1 passed, 1 fell back, 0 FAILED\n\n"
        "graphs mini  fell back     3.0 s  no graphs\n"
        "start mini   passed       12.5 s  is ready\n\n"
        "a table\n\n"
    )


def test_what_is_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: True)
    runs = gpu_check.runs(["embedded", "twin"])
    assert len(runs) == len(set(runs)) == 2 * 3 + 2 * 3 + 2 + 2 + 3
    assert {check for check, *_ in runs} == gpu_check.CHECKS.keys()
    assert ("memory", "twin", "bfloat16") in runs
