"""Builds the image with the bundled model, and runs it as RunPod would: does it transcribe, and can it do no more?

python tests/tools/image.py --build-with docker
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
TAG = "parakeet-worker:test"
MODEL = "models/parakeet-tdt-mini"
TEXT = json.loads((ROOT / MODEL / "card.json").read_text())["check"]

# What the worker's user must not find or be able to do, as shell commands that have to fail.
FORBIDDEN = {
    "write to the code": "touch /app/handler.py",
    "write to the model": "touch /model/card.json",
    "write to the packages": "touch /opt/venv/x",
    "write to the root": "touch /x",
    "be root": "test $(id -u) = 0",
    "find pip": "python -m pip --version",
    "find a compiler": "command -v gcc cc clang nvcc",
    "find NeMo": "python -c 'import nemo'",
    "find Triton": "python -c 'import triton'",
    "find the lists of packages": "find /var/lib/apt/lists -type f | grep .",
    "find code that is not compiled": "test $(find /app -name '*.py' | wc -l) != $(find /app -name '*.pyc' | wc -l)",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--build-with", default="docker", help="docker, or a program with a tag, a context and options")
    options = parser.parse_args()
    argument = ["--build-arg", f"MODEL={MODEL}"]
    if options.build_with == "docker":
        build, run = ["docker", "build", "--tag", TAG, *argument, str(ROOT)], run_with_docker
    else:
        build, run = [options.build_with, TAG, str(ROOT), *argument], run_with_buildah
    started = time.monotonic()
    subprocess.run(build, check=True)
    print(f"\nbuilt in {time.monotonic() - started:.0f} s")

    faults = []
    done = run("python handler.py")
    print(done.stdout)
    if done.returncode or TEXT not in done.stdout or done.stderr.strip():
        faults.append(f"python handler.py does not transcribe in peace: {done.stderr[-2000:]}")
    if run("touch /tmp/x").returncode:
        faults.append("the worker cannot write to /tmp")
    faults += [f"the worker can {what}" for what, command in FORBIDDEN.items() if run(command).returncode == 0]
    print("\n".join(faults) or "the image is as it should be")
    sys.exit(bool(faults))


def run_with_docker(command: str) -> subprocess.CompletedProcess[str]:
    """Run a shell command in a new container."""
    docker = ["docker", "run", "--rm", TAG, "sh", "-c", command]
    return subprocess.run(docker, capture_output=True, text=True, timeout=300, check=False)


def run_with_buildah(command: str) -> subprocess.CompletedProcess[str]:
    """Run a shell command in a new container of an image in buildah's store, where there is no engine."""
    buildah = shutil.which("buildah") or sys.exit("there is neither Docker nor buildah")
    env = os.environ | {"STORAGE_DRIVER": "vfs", "BUILDAH_ISOLATION": "chroot"}

    def call(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([buildah, *arguments], env=env, capture_output=True, text=True, timeout=300, check=False)

    made = call("from", f"localhost/{TAG}")
    if made.returncode:
        sys.exit(made.stderr)
    container = made.stdout.strip()
    try:
        return call("run", container, "--", "sh", "-c", command)
    finally:
        call("rm", container)


if __name__ == "__main__":
    main()
