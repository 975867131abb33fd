"""The real shells complete the command by what it prints; the man page has every verb; both are those of the parser."""

from __future__ import annotations

import os
import pty
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from shm_monitor.cli import main
from shm_monitor.cli.main import parser
from tests.support.surroundings import ROOT, child_environment

pytestmark = pytest.mark.processes

SHELL_FILES = Path(__file__).parents[2] / "shm_monitor" / "cli" / "shell"
WAIT_SECONDS = 30.0


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    """An environment in which ``shm-monitor`` is a command, and no shell reads a file of a person."""
    command = tmp_path / "shm-monitor"
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -P -m shm_monitor "$@"\n', encoding="utf-8")
    command.chmod(0o755)
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    return child_environment(PATH=path, HOME=str(tmp_path), XDG_CONFIG_HOME=str(tmp_path), TERM="dumb")


def offered(shell: str, line: str, environ: dict[str, str]) -> set[str]:
    """Return what the real *shell* offers at the end of *line*."""
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    if shell == "zsh":
        return _offered_by_zsh(line, environ)
    if shell == "fish":
        script = f'shm-monitor completion fish | source; complete -C "{line}"'
    else:
        words = f"COMP_WORDS=({line.replace(' ', chr(10))}{'' if line[-1] != ' ' else chr(10) + chr(39) * 2})"
        script = (
            'eval "$(shm-monitor completion bash)"; '
            f"{words}; COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); _shtab_shm_monitor 2>/dev/null; "
            'printf "%s\\n" "${COMPREPLY[@]}"'
        )
    command = [shell, "--norc", "-c", script] if shell == "bash" else [shell, "--no-config", "-c", script]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=60, check=False)
    return {one.partition("\t")[0].strip() for one in done.stdout.splitlines()}


def _offered_by_zsh(line: str, environ: dict[str, str]) -> set[str]:
    """Type *line* and two tabs to a zsh on a terminal of its own; return the words of the screen after them."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.execve(shutil.which("zsh") or "", ["zsh", "-f", "-i"], environ)
    try:
        order = "autoload -Uz compinit; compinit -u -D; setopt auto_list no_menu_complete; unsetopt beep; PS1='> '\n"
        os.write(terminal, f'{order}eval "$(shm-monitor completion zsh)"; echo re"ady"\n'.encode())
        _read_until(terminal, "\nready")
        os.write(terminal, f"{line}\t\t".encode())
        time.sleep(0.1)
        os.write(terminal, b"\x15echo do''ne\n")  # Ctrl-U: nothing of the line is run
        told = _read_until(terminal, "\ndone")
    finally:
        os.close(terminal)
        os.kill(pid, 9)
        os.waitpid(pid, 0)
    return set(re.findall(r"[\w-]+=?", told))


def _read_until(terminal: int, words: str) -> str:
    told, deadline = "", time.monotonic() + WAIT_SECONDS
    while words not in told.replace("\r", ""):
        assert time.monotonic() < deadline, told
        told += os.read(terminal, 65536).decode(errors="replace")
    return told


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("shm-monitor s", {"snapshot", "status", "schema"}),
        ("shm-monitor config ", {"show", "init"}),
        ("shm-monitor top --u", {"--url"}),
        ("shm-monitor api --tls-", {"--tls-cert", "--tls-key"}),
    ],
)
def test_a_shell_offers_verbs_and_options(shell: str, line: str, words: set[str], environ: dict[str, str]) -> None:
    assert words <= offered(shell, line, environ)


@pytest.mark.parametrize("shell", ["bash", "fish"])
def test_after_name_a_shell_offers_the_samplers_that_run(
    shell: str, environ: dict[str, str], request: pytest.FixtureRequest
) -> None:
    name = request.getfixturevalue("bench").name
    assert name in offered(shell, f"shm-monitor status --name {name[:6]}", environ)


def test_another_shell_is_usage(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["completion", "zhs"])

    assert end.value.code == 2
    assert "did you mean zsh?" in capsys.readouterr().err


def test_a_script_is_printed_whole(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", "zsh"]) == 0
    assert capsys.readouterr().out.startswith("#compdef shm-monitor")


def test_the_man_page_has_every_verb_and_no_error(tmp_path: Path) -> None:
    page = SHELL_FILES / "shm-monitor.1"
    verbs = next(action.choices for action in parser()._actions if action.dest == "==SUPPRESS==" and action.choices)
    text = page.read_text(encoding="utf-8").replace("\\", "")

    assert [verb for verb in verbs if f"shm-monitor {verb}" not in text] == []
    if shutil.which("man") and os.access("/usr/bin/groff", os.X_OK):
        shown = subprocess.run(
            ["man", "--warnings", "-l", str(page)],
            env={**os.environ, "MANROFFSEQ": "", "MANPAGER": "cat", "LC_ALL": "C.UTF-8"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert (shown.returncode, shown.stderr) == (0, "")


def test_what_is_kept_is_what_the_parser_gives() -> None:
    """`python -m docs.site.shell` writes it again."""
    pytest.importorskip("shtab", reason="the extra check is not installed")
    pytest.importorskip("argparse_manpage", reason="the extra check is not installed")
    if not (ROOT / "docs" / "site").exists() or sys.version_info[:2] != (3, 11):
        pytest.skip("written by Python 3.11 in a checkout: argparse lays its usage out differently in others")
    done = subprocess.run(
        [sys.executable, "-c", "from docs.site import shell; import json; print(json.dumps(shell.generated()))"],
        cwd=ROOT,
        env=child_environment(PYTHONPATH=f"{ROOT}{os.pathsep}{ROOT / 'api'}"),
        capture_output=True,
        text=True,
        check=True,
    )
    import json

    made = json.loads(done.stdout)
    assert [name for name, text in made.items() if (SHELL_FILES / name).read_text(encoding="utf-8") != text] == []
