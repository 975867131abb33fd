"""A parser that says what was meant where a word is none of those known; Python's own from 3.14 on can do so, too."""

from __future__ import annotations

import argparse
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import NoReturn


class Parser(argparse.ArgumentParser):
    """An ``ArgumentParser`` with suggestions for choices, verbs and options."""

    def refuse(self, rest: Sequence[str]) -> NoReturn:
        """End with the words in *rest*, which nothing takes, and the option that the first may have been meant for."""
        from shm_monitor.config.spelling import nearest

        known = dict.fromkeys(re.findall(r"--[a-z][\w-]*", self.format_help()))
        hint = nearest(rest[0].partition("=")[0], known) if rest[0].startswith("--") else ""
        self.error(f"unrecognized arguments: {' '.join(rest)}{hint}")

    def _check_value(self, action: argparse.Action, value: object) -> None:
        if action.choices is not None and value not in action.choices:
            from shm_monitor.config.spelling import nearest

            raise argparse.ArgumentError(action, f"unknown: {value}{nearest(str(value), action.choices)}")
