"""What a process has mapped. Source: proc_pid_maps(5)."""

from __future__ import annotations

from pathlib import Path


def maps_of(pid: int) -> str:
    """Return what *pid* has mapped."""
    return Path(f"/proc/{pid}/maps").read_text()


def private_code(maps: str) -> int:
    """Count the mappings that may be executed and come from no file: those of libffi, and kernels that were linked."""
    return sum(len(fields := line.split()) == 5 and fields[1] == "r-xp" for line in maps.splitlines())
