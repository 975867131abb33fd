"""Pictures that a test compares with those that are kept; ``UPDATE_SNAPSHOTS=1`` writes them anew, to be looked at."""

from __future__ import annotations

import os
from pathlib import Path

PLACE = Path(__file__).parents[1] / "tui" / "snapshots"


def is_as_kept(name: str, picture: str) -> bool:
    """Return whether the SVG *picture* is the one that is kept as *name*."""
    file = PLACE / f"{name}.svg"
    if os.environ.get("UPDATE_SNAPSHOTS"):
        file.write_text(picture, encoding="utf-8")
    return file.read_text(encoding="utf-8") == picture
