"""Setting up the C library's memory allocator."""

import ctypes

# Parameters of mallopt(3).
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8


def keep_large_blocks() -> None:
    """Make glibc keep freed blocks of any size for reuse. Does nothing with another C library.

    By default glibc returns the memory of large tensors to the kernel, which then zeroes the memory of the next ones
    page by page. That takes a tenth of the time of a batch on a CPU. Only the main arena can keep large blocks,
    so all threads are made to use it. Call this before the first thread starts.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return
    for option, value in ((_M_ARENA_MAX, 1), (_M_MMAP_THRESHOLD, 1 << 30), (_M_TRIM_THRESHOLD, (1 << 31) - 1)):
        mallopt(option, value)
