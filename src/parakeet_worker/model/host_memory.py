"""How much memory this machine, or the container that the worker runs in, has free."""

import os
from pathlib import Path

# A container's limit and use in bytes, by the version of the kernel's control groups. `max` is no limit.
_CONTAINER = (("memory.max", "memory.current"), ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"))


def free_bytes(system: Path = Path("/proc/meminfo"), container: Path = Path("/sys/fs/cgroup")) -> int:
    """Return the bytes that are free: of the machine, or what a container's limit leaves if that is less.

    Args:
        system: The kernel's table of memory; see proc_meminfo(5). Where there is none, all memory counts as free.
        container: Directory of the control group.
    """
    free = _system_free(system)
    for limit, used in _CONTAINER:
        try:
            left = int((container / limit).read_text()) - int((container / used).read_text())
        except (OSError, ValueError):
            continue
        free = min(free, max(0, left))
    return free


def _system_free(table: Path) -> int:
    try:
        lines = dict(line.split(":", 1) for line in table.read_text().splitlines())
        return int(lines["MemAvailable"].split()[0]) * 1024
    except (OSError, LookupError, ValueError):
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
