"""The free memory of a machine, and of a container on it."""

import os
from pathlib import Path

from parakeet_worker.model.host_memory import free_bytes

SYSTEM = "MemTotal:       24000000 kB\nMemFree:         1000000 kB\nMemAvailable:    8000000 kB\n"


def system(tmp_path: Path) -> Path:
    (tmp_path / "meminfo").write_text(SYSTEM)
    return tmp_path / "meminfo"


def test_a_machine_without_a_limit(tmp_path: Path) -> None:
    assert free_bytes(system(tmp_path), tmp_path) == 8_000_000 * 1024
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "memory.current").write_text("5\n")
    assert free_bytes(system(tmp_path), tmp_path) == 8_000_000 * 1024


def test_a_container_has_what_its_limit_leaves(tmp_path: Path) -> None:
    (tmp_path / "memory.max").write_text("2000000000\n")
    (tmp_path / "memory.current").write_text("500000000\n")
    assert free_bytes(system(tmp_path), tmp_path) == 1_500_000_000
    (tmp_path / "memory.current").write_text("2100000000\n")
    assert free_bytes(system(tmp_path), tmp_path) == 0


def test_a_container_of_an_older_kernel(tmp_path: Path) -> None:
    (tmp_path / "memory").mkdir()
    (tmp_path / "memory/memory.limit_in_bytes").write_text("3000000000\n")
    (tmp_path / "memory/memory.usage_in_bytes").write_text("1000000000\n")
    assert free_bytes(system(tmp_path), tmp_path) == 2_000_000_000


def test_a_system_without_a_table(tmp_path: Path) -> None:
    everything = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert free_bytes(tmp_path / "none", tmp_path) == everything


def test_this_machine() -> None:
    assert 0 < free_bytes() <= os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
