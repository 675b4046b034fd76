"""Fitting the number of concurrent jobs to the operating system's limit on open files."""

import resource
from pathlib import Path

# Open at most, for one job: its connection, its file, the pipe, the selector and two duplicates for a child that
# decodes, a connection for its progress, and one for its result.
_FILES_PER_JOB = 8

# For the polls, the heartbeat, names that are looked up, modules that are imported late, and the log.
_SPARE_FILES = 12

_OPEN_FILES = Path("/proc/self/fd")  # on Linux
_USUALLY_OPEN = 24


def jobs_for_files(jobs: int) -> int:
    """Return how many jobs at a time the limit on open files allows: from 1 to `jobs`.

    Raises the soft limit if needed, up to the hard limit.

    Args:
        jobs: Wanted number of jobs.
    """
    taken = len(list(_OPEN_FILES.iterdir())) if _OPEN_FILES.exists() else _USUALLY_OPEN
    wanted = taken + _SPARE_FILES + jobs * _FILES_PER_JOB
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return jobs
    if soft != hard:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return min(jobs, max(1, (soft - taken - _SPARE_FILES) // _FILES_PER_JOB))
