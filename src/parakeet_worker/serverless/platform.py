"""Whether RunPod runs this process, by the environment variables that it sets. Imports nothing of its SDK."""

import os
from collections.abc import Mapping


def is_on_runpod(environ: Mapping[str, str] = os.environ) -> bool:
    """Return whether the process is a worker of a RunPod endpoint."""
    return "RUNPOD_POD_ID" in environ or has_queue(environ)


def has_queue(environ: Mapping[str, str] = os.environ) -> bool:
    """Return whether the SDK takes jobs from the endpoint's queue, rather than run one of its local modes."""
    return "RUNPOD_WEBHOOK_GET_JOB" in environ
