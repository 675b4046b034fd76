"""Serving needs the packages of requirements.txt and no others: neither NeMo nor what came with it."""

import subprocess
import sys
from importlib.metadata import packages_distributions

from project import ROOT, TEXT

# An import of a name that stands for None in `sys.modules` fails as if the package were not there.
SERVE = """
import runpy, sys
sys.modules.update(dict.fromkeys(sys.argv.pop().split(",")))
runpy.run_path("handler.py", run_name="__main__")
"""


def test_the_bundled_clip_is_transcribed_without_other_packages() -> None:
    locked = {line.partition("==")[0] for line in (ROOT / "requirements.txt").read_text().splitlines()}
    others = [
        package
        for package, distributions in packages_distributions().items()
        if not {name.lower().replace("_", "-") for name in distributions} & (locked | {"parakeet-worker"})
    ]
    assert {"nemo", "omegaconf", "pandas"} <= set(others)
    command = [sys.executable, "-c", SERVE, ",".join(others)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert TEXT in done.stdout
