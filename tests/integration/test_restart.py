"""A worker whose CUDA graphs cannot be captured starts anew without them, before its first job."""

import base64
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from project import ROOT, Clip
from runpod_platform import Platform, wait_until, worker_process

# The handler, where captures fail. A file is open that a new program would inherit, as a driver might open the device.
WORKER = f"""
import os, runpy, sys
from types import ModuleType
sys.path[:0] = [{str(ROOT / "src")!r}]
from parakeet_worker.asr.types import GraphCaptureError

def prepare(*args, **kwargs):
    raise GraphCaptureError("RuntimeError: CUDA error")

is_open = [os.path.samefile(f"/proc/self/fd/{{number}}", "/etc/passwd") for number in os.listdir("/proc/self/fd")[:-1]]
print("process", os.getpid(), "runs", sys.argv[1:], "with" if any(is_open) else "without", "the file", flush=True)
os.set_inheritable(os.open("/etc/passwd", os.O_RDONLY), True)
if os.environ.get("PARAKEET_CUDA_GRAPHS") != "false":
    for room in ("model", "nemo"):
        sys.modules[f"parakeet_worker.{{room}}.prepare"] = module = ModuleType("prepare")
        module.prepare = prepare
runpy.run_path({str(ROOT / "handler.py")!r}, run_name="__main__")
"""


def request(clip: Clip) -> dict[str, Any]:
    return {"input": {"audio_url": f"data:;base64,{base64.b64encode(clip.path.read_bytes()).decode()}"}}


def test_a_worker_without_graphs_serves(platform: Platform, clips: list[Clip], tmp_path: Path) -> None:
    script, log = tmp_path / "worker.py", tmp_path / "log"
    script.write_text(WORKER)
    (job,) = platform.submit(request(clips[0]))
    with worker_process(platform, log, "--rp_log_level", "INFO", script=script) as process:
        assert wait_until(lambda: job.answers, 60), log.read_text()
        assert process.poll() is None
    assert job.result["output"]["status"] == "success"
    assert job.handed_out == 1
    lines = log.read_text().splitlines()
    started = f"process {process.pid} runs ['--rp_log_level', 'INFO'] without the file"
    assert [line for line in lines if line.startswith("process ")] == [started, started]
    (warning,) = [line for line in lines if "graphs" in line and "is ready" not in line]
    assert warning == (
        "WARN   | CUDA graphs cannot be captured (RuntimeError: CUDA error). "
        "On RunPod the worker starts anew, without them."
    )
    (ready,) = [line for line in lines if "is ready" in line]
    assert re.search(r"(plain|nemo) engine, eager, ", ready)


def test_a_process_that_is_not_a_workers_is_not_replaced(clips: list[Clip], tmp_path: Path) -> None:
    script = tmp_path / "worker.py"
    script.write_text(WORKER)
    done = subprocess.run(
        [sys.executable, str(script), "--test_input", json.dumps(request(clips[0]))],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stdout.count("process ") == 1
    assert "could not load its model" in done.stdout
