"""``python -m docs.site.shell``: completions and man page in ``shm_monitor/cli/shell``, from the parsers themselves.

They are kept in the repository, and a test compares them: to install needs neither shtab nor argparse-manpage.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

PROG = "shm-monitor"
SHELLS = {"bash": f"{PROG}.bash", "zsh": f"_{PROG}", "fish": f"{PROG}.fish"}
MAN_PAGE = f"{PROG}.1"
FILES = {"FILE", "OUT", "OTHER.env"}  # what a metavar says is a path
NAMES = f"{PROG} list 2>/dev/null | cut -d ' ' -f 1"  # asked when somebody presses Tab after --name
COMPLETE_A_NAME = {"bash": "_shm_monitor_names", "zsh": "_shm_monitor_names", "fish": f"({NAMES})"}
PREAMBLE = {
    "bash": f'_shm_monitor_names() {{\n  compgen -W "$({NAMES})" -- "$1"\n}}',
    "zsh": f'_shm_monitor_names() {{\n  compadd -- ${{(f)"$({NAMES})"}}\n}}',
}
AFTER = """\
.SH EXIT STATUS
0 fine, 1 prune, 2 wrong usage or configuration, 3 no live sampler; of
.B shm\\-monitor run \\-\\-
that of the command.
.SH ENVIRONMENT
.TP
.B SHM_MONITOR_NAME
which sampler, where no
.B \\-\\-name
says so
.TP
.B SHM_MONITOR_*
every setting of
.B shm\\-monitor config show
in upper case; stronger than a .env file
.TP
.B SHM_MONITOR_BIND, SHM_MONITOR_TOKEN, SHM_MONITOR_TOKEN_FILE, SHM_MONITOR_ALLOWED_HOSTS
of the REST API
.SH FILES
.TP
.I .env
settings, where nobody else could have written it; written by
.B shm\\-monitor config init
.TP
.I /dev/shm/shm\\-monitor.*
what a sampler publishes, and the lock and the log of episodes beside it
"""
WATCHED = ("memory", "cpu", "network", "gpu", "gpu_memory")
PLACE = Path(__file__).parents[2] / "shm_monitor" / "cli" / "shell"


def main() -> None:
    """Write every file."""
    for name, text in generated().items():
        (PLACE / name).write_text(text, encoding="utf-8")


def generated() -> dict[str, str]:
    """Return the text of each file by its name."""
    made = {SHELLS[shell]: _script(shell) for shell in SHELLS}
    return made | {MAN_PAGE: man_page()}


def _script(shell: str) -> str:
    import shtab

    top = whole_parser()
    for one in verbs_of(top).values():
        for nested in (one, *verbs_of(one).values()):
            _say_what_completes(nested)
    text: str = shtab.complete(top, shell, preamble=PREAMBLE)  # type: ignore[arg-type]  # by shell, says its docs
    return text.rstrip() + "\n"


def whole_parser() -> argparse.ArgumentParser:
    """Return the parser of the command, with the options of ``api``, which another process parses, in their place."""
    from shm_monitor.cli.main import parser
    from shm_monitor_api.__main__ import parser as api_parser

    top = parser()
    for verb, one in verbs_of(top).items():
        if verb == "api":
            for action in api_parser()._actions:
                if action.option_strings[-1] not in one._option_string_actions:
                    one._add_action(action)
    return top


def verbs_of(one: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """Return the parsers of the verbs of *one*, by name."""
    found = [action for action in one._actions if isinstance(action, argparse._SubParsersAction)]
    return dict(found[0].choices) if found else {}


def _say_what_completes(one: argparse.ArgumentParser) -> None:
    import shtab

    from shm_monitor.config.bounds import BOUNDS

    words = {"--set": [f"{key}=" for key in BOUNDS], "--watch": list(WATCHED)}
    for action in one._actions:
        last = action.option_strings[-1] if action.option_strings else ""
        if action.metavar in FILES:
            action.complete = shtab.FILE  # type: ignore[attr-defined]
        elif last == "--name":
            action.complete = COMPLETE_A_NAME  # type: ignore[attr-defined]
        elif last in words:
            action.choices = words[last]


def man_page() -> str:
    """Return the page: every verb with its options."""
    from argparse_manpage.manpage import Manpage

    os.environ["COLUMNS"] = "100"
    top = whole_parser()
    top.man_short_description = "the monitor that a worker can ask whether to shed work"  # type: ignore[attr-defined]
    top.description = (top.description or "").partition("\n\nexit status")[0]
    page = Manpage(top, format="single-commands-section")
    page.manual, page.date = "shm-monitor", ""  # no date: the page is that of a version
    return f"{str(page).rstrip()}\n{AFTER}"


if __name__ == "__main__":
    main()
