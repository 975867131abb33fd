"""What a process has mapped. Source: proc_pid_maps(5)."""

from __future__ import annotations

from pathlib import Path


def maps_of(pid: int) -> str:
    """Return what *pid* has mapped."""
    return Path(f"/proc/{pid}/maps").read_text()
