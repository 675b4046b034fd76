"""Code that runs in a process of its own."""

import subprocess
import sys
from typing import Any

from project import ROOT


def run(code: str, *arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run code in a process whose output is unbuffered, as in the image."""
    return subprocess.run(
        [sys.executable, "-u", "-c", code, *arguments],
        cwd=ROOT,
        capture_output=True,
        timeout=60,
        check=False,
        **options,
    )
