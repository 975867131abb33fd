"""Asks nvidia-smi."""

from __future__ import annotations

import math
import subprocess
from contextlib import suppress


def ask_nvidia_smi(names: tuple[str, ...]) -> dict[str, list[str]]:
    """Return nvidia-smi's words for each of *names* that it knows, one per GPU."""
    asked = _query(names)
    if asked is not None:
        return dict(zip(names, asked, strict=True))
    one_by_one = {name: _query((name,)) for name in names}  # one unknown name spoils the whole question
    return {name: columns[0] for name, columns in one_by_one.items() if columns is not None}


def _query(names: tuple[str, ...]) -> list[list[str]] | None:
    command = ["nvidia-smi", f"--query-gpu={','.join(names)}", "--format=csv,noheader,nounits"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        return None
    rows = [[cell.strip() for cell in line.split(",")] for line in done.stdout.splitlines() if line.strip()]
    return [list(column) for column in zip(*rows, strict=True)]


def number(word: str) -> float:
    """Return nvidia-smi's *word* as a number; NaN for ``[N/A]`` and its like."""
    with suppress(ValueError):
        return float(int(word, 16)) if word.startswith("0x") else float(word)
    return math.nan
