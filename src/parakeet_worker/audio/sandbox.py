"""Giving up what decoding does not need, so that a file that takes a decoder over has taken nothing else.

What the kernel offers to a process without rights of its own: limits of resources (setrlimit(2)) and a filter of system
calls (seccomp(2)). Where it does not have a part of it, the others stand.
"""

import ctypes
import errno
import platform
import resource
import signal
import struct
from dataclasses import dataclass
from pathlib import Path

# Decoding takes a hundredth of a recording's length or less, and a second of it has a thousand bytes or more.
_LEAST_CPU_S, _BYTES_PER_CPU_S = 30, 50_000

# At the first limit of time comes a signal that tells why; at the second the process is ended.
_CPU_GRACE_S = 5

# Beyond what the libraries take when they are loaded.
_MEMORY_BYTES = 1 << 30

_MEMORY_MAP = Path("/proc/self/statm")

# prctl(2)
_SET_DEATH_SIGNAL, _SET_SECCOMP, _SET_NO_NEW_PRIVILEGES, _FILTER_MODE = 1, 22, 38, 2

# What decoding calls: files that are open, memory, time, and its end. By the kernel's tables, x86_64 and aarch64.
_CALLS = {
    "read": (0, 63),
    "write": (1, 64),
    "readv": (19, 65),
    "writev": (20, 66),
    "pread64": (17, 67),
    "lseek": (8, 62),
    "close": (3, 57),
    "fstat": (5, 80),
    "brk": (12, 214),
    "mmap": (9, 222),
    "munmap": (11, 215),
    "mremap": (25, 216),
    "mprotect": (10, 226),
    "madvise": (28, 233),
    "futex": (202, 98),
    "rt_sigaction": (13, 134),
    "rt_sigprocmask": (14, 135),
    "rt_sigreturn": (15, 139),
    "sigaltstack": (131, 132),
    "restart_syscall": (219, 128),
    "clock_gettime": (228, 113),
    "gettimeofday": (96, 169),
    "getpid": (39, 172),
    "gettid": (186, 178),
    "getrandom": (318, 278),
    "exit": (60, 93),
    "exit_group": (231, 94),
}
_AUDIT_ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}

# Classic BPF (linux/filter.h): load a word, jump if equal, return.
_LOAD, _JUMP_IF_EQUAL, _RETURN = 0x20, 0x15, 0x06
_CALL_OFFSET, _ARCHITECTURE_OFFSET = 0, 4
_ALLOW, _REFUSE = 0x7FFF0000, 0x00050000 | errno.EPERM


@dataclass(frozen=True)
class Sandbox:
    """What was given up.

    Attributes:
        is_memory_ours: Whether the limit of memory is ours, rather than a lower one that this process was given.
        has_filter: Whether system calls are filtered.
    """

    is_memory_ours: bool
    has_filter: bool


def enter(size: int) -> Sandbox:
    """Give up, for good, whatever decoding does not need.

    No file can be opened or written but those that are open, no process started or signalled, no socket made; memory
    and time are limited.

    Args:
        size: Of the file that will be decoded, in bytes.
    """
    cpu_s = _LEAST_CPU_S + size // _BYTES_PER_CPU_S
    # Files are the last: this may need some itself.
    limits = {
        resource.RLIMIT_CPU: (cpu_s, cpu_s + _CPU_GRACE_S),
        resource.RLIMIT_FSIZE: (0, 0),
        resource.RLIMIT_CORE: (0, 0),
        resource.RLIMIT_NPROC: (0, 0),
    }
    is_memory_ours = False
    if _MEMORY_MAP.exists():  # on Linux; macOS does not limit memory
        pages = int(_MEMORY_MAP.read_text().split()[0])
        memory = pages * resource.getpagesize() + _MEMORY_BYTES
        is_memory_ours = _within(resource.RLIMIT_AS, memory) == memory
        limits[resource.RLIMIT_AS] = (memory, memory)
    limits[resource.RLIMIT_NOFILE] = (0, 0)
    for limit, (soft, hard) in limits.items():
        resource.setrlimit(limit, (_within(limit, soft), _within(limit, hard)))
    return Sandbox(is_memory_ours, _filter_calls())


def _within(limit: int, value: int) -> int:
    """Return a value for a limit, or the one that this process was given, which it may not exceed."""
    given = resource.getrlimit(limit)[1]
    return value if given == resource.RLIM_INFINITY else min(value, given)


def _filter_calls() -> bool:
    """Refuse all system calls but those of `_CALLS`; return whether the kernel has agreed."""
    machine = platform.machine()
    if platform.system() != "Linux" or machine not in _AUDIT_ARCHITECTURES:
        return False
    numbers = [calls[list(_AUDIT_ARCHITECTURES).index(machine)] for calls in _CALLS.values()]
    program = b"".join(
        [
            _step(_LOAD, _ARCHITECTURE_OFFSET),
            _step(_JUMP_IF_EQUAL, _AUDIT_ARCHITECTURES[machine], if_true=1),
            _step(_RETURN, _REFUSE),
            _step(_LOAD, _CALL_OFFSET),
            *(_step(_JUMP_IF_EQUAL, number, if_true=len(numbers) - index) for index, number in enumerate(numbers)),
            _step(_RETURN, _REFUSE),
            _step(_RETURN, _ALLOW),
        ]
    )
    steps = ctypes.create_string_buffer(program, len(program))
    header = struct.pack("@HP", len(program) // len(_step(0, 0)), ctypes.addressof(steps))
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    prctl(_SET_DEATH_SIGNAL, signal.SIGKILL, 0, 0, 0)  # of the process that started this one
    if prctl(_SET_NO_NEW_PRIVILEGES, 1, 0, 0, 0):
        return False
    return bool(prctl(_SET_SECCOMP, _FILTER_MODE, header, 0, 0) == 0)


def _step(code: int, value: int, if_true: int = 0) -> bytes:
    return struct.pack("=HBBI", code, if_true, 0, value)
