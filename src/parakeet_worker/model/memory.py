"""What the C library does with memory that is freed."""

import ctypes

# Parameters of mallopt(3).
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8


def keep_large_blocks() -> None:
    """Have glibc keep large blocks that are freed, where it is the C library.

    It would give each tensor of a batch back to the kernel, which zeroes the next one page by page: a third of the time
    of a large batch on a CPU. Blocks of any size can only be kept in the main arena, so that one has to serve all
    threads: call this before the first thread starts.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return
    for option, value in ((_M_ARENA_MAX, 1), (_M_MMAP_THRESHOLD, 1 << 30), (_M_TRIM_THRESHOLD, (1 << 31) - 1)):
        mallopt(option, value)
