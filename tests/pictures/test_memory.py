"""How much memory is free: on the machine, in a container of either version."""

from __future__ import annotations

from pathlib import Path

from hefkit.pictures.memory import available_memory


def test_memory_of_a_container(tmp_path: Path) -> None:
    """The smaller of what the machine has and what the container may take."""
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemTotal: 9 kB\nMemAvailable:    4096 kB\nSwapFree:        1024 kB\n")
    cgroup = tmp_path / "cgroup"
    cgroup.mkdir()
    (cgroup / "memory.current").write_text("1000\n")

    (cgroup / "memory.max").write_text("max\n")
    assert available_memory(meminfo, cgroup) == 5120 * 1024
    (cgroup / "memory.max").write_text("3000\n")
    assert available_memory(meminfo, cgroup) == 2000
    assert available_memory(tmp_path / "gone", tmp_path / "gone") is None


def test_memory_of_a_container_of_version_1(tmp_path: Path) -> None:
    """Other files, and a number that no machine has where there is no limit; files in memory can be freed."""
    memory = tmp_path / "memory"
    memory.mkdir()
    (memory / "memory.usage_in_bytes").write_text("5000\n")

    (memory / "memory.limit_in_bytes").write_text("9223372036854771712\n")
    (tmp_path / "meminfo").write_text("MemAvailable:    4 kB\n")
    assert available_memory(tmp_path / "meminfo", tmp_path) == 4096
    (memory / "memory.limit_in_bytes").write_text("6000\n")
    assert available_memory(tmp_path / "meminfo", tmp_path) == 1000
    (memory / "memory.stat").write_text("cache 9\ninactive_file 1\ntotal_inactive_file 700\n")
    assert available_memory(tmp_path / "meminfo", tmp_path) == 1700
