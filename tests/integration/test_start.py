"""A worker that cannot serve logs why, and exits before it takes a job."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from loopback import LoopbackServer
from project import MODEL_DIR, ROOT


def serve(server: LoopbackServer, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run the worker's real loop, against a platform that has no jobs."""
    environ = {
        "RUNPOD_WEBHOOK_GET_JOB": f"{server.url}/job-take/worker",
        "RUNPOD_SKIP_AUTO_SYSTEM_CHECKS": "true",
        "RUNPOD_SKIP_GPU_CHECK": "true",
        **environ,
    }
    return subprocess.run(
        [sys.executable, str(ROOT / "handler.py")],
        env=os.environ | environ,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def damaged(tmp_path: Path) -> Any:
    directory = shutil.copytree(MODEL_DIR, tmp_path / "model")
    with (directory / "model.safetensors").open("r+b") as file:
        file.seek(1_000_000)
        file.write(b"damage")
    return directory, "model.safetensors of the model is damaged"


def deaf(tmp_path: Path) -> Any:
    directory = shutil.copytree(MODEL_DIR, tmp_path / "model")
    card = json.loads((directory / "card.json").read_text())
    (directory / "card.json").write_text(json.dumps(card | {"check": "Something else entirely was said."}))
    return directory, "for the bundled clip, instead of 'Something else"


@pytest.mark.parametrize("spoil", [damaged, deaf])
def test_an_unfit_worker_exits_before_it_takes_a_job(spoil: Any, tmp_path: Path, server: LoopbackServer) -> None:
    directory, reason = spoil(tmp_path)
    done = serve(server, PARAKEET_MODEL=str(directory))
    assert done.returncode == 1
    assert reason in done.stdout
    assert server.requests == []


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_worker_without_its_gpu_exits(server: LoopbackServer) -> None:
    done = serve(server, PARAKEET_DEVICE="cuda")
    assert done.returncode == 1
    assert "PARAKEET_DEVICE is cuda, and torch finds no GPU" in done.stdout
    assert server.requests == []
