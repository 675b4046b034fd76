"""The sandbox of a decoder process, for files that exploit a bug in a decoder.

It uses what the kernel offers to unprivileged processes: resource limits (setrlimit(2)) and a filter of system calls
(seccomp(2)). Where the kernel lacks one of them, the others still apply.
"""

import ctypes
import errno
import platform
import resource
import signal
import struct
from dataclasses import dataclass
from pathlib import Path

# Decoding takes at most a hundredth of a recording's length, and a second of a recording has at least a thousand bytes.
_MIN_CPU_S, _BYTES_PER_CPU_S = 30, 50_000

# At the soft limit on CPU time the process gets SIGXCPU; at the hard limit, this much later, it is killed.
_CPU_GRACE_S = 5

# Memory that decoding may use beyond what is mapped when the sandbox is entered.
_MEMORY_BYTES = 1 << 30

_MEMORY_MAP = Path("/proc/self/statm")

# prctl(2)
_SET_DEATH_SIGNAL, _SET_SECCOMP, _SET_NO_NEW_PRIVILEGES, _FILTER_MODE = 1, 22, 38, 2

# System calls that decoding needs, for open files, memory, signals, time and exit. Numbers: x86_64, aarch64.
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
    """Which restrictions are in force.

    Attributes:
        is_memory_ours: Whether the memory limit is the sandbox's, rather than a lower one that was set before.
        has_filter: Whether system calls are filtered.
    """

    is_memory_ours: bool
    has_filter: bool


def enter(size: int) -> Sandbox:
    """Enter the sandbox. It cannot be left.

    Afterwards the process can read and write only descriptors that are open, and no regular file can be extended. It
    can neither open files or sockets nor start or signal processes. Memory and CPU time are limited.

    Args:
        size: Size of the file to decode, in bytes.
    """
    cpu_s = _MIN_CPU_S + size // _BYTES_PER_CPU_S
    # The limit on descriptors is set last, since this function opens a file.
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
    """Return `value`, or the present hard limit if that is lower: an unprivileged process cannot exceed it."""
    present = resource.getrlimit(limit)[1]
    return value if present == resource.RLIM_INFINITY else min(value, present)


def _filter_calls() -> bool:
    """Allow only the system calls in `_CALLS`, and return whether the kernel supports that."""
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
    prctl(_SET_DEATH_SIGNAL, signal.SIGKILL, 0, 0, 0)  # when the parent ends
    if prctl(_SET_NO_NEW_PRIVILEGES, 1, 0, 0, 0):
        return False
    return bool(prctl(_SET_SECCOMP, _FILTER_MODE, header, 0, 0) == 0)


def _step(code: int, value: int, if_true: int = 0) -> bytes:
    """Return one BPF instruction, which skips `if_true` instructions if its comparison holds."""
    return struct.pack("=HBBI", code, if_true, 0, value)
