"""The real program on a real terminal: tmux, as over ssh."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator

import psutil
import pytest

pytest.importorskip("textual", reason="the extra tui is not installed")

from tests.support.publishing import Bench
from tests.support.surroundings import child_environment
from tests.support.waiting import PATIENCE_SECONDS, wait_until

if shutil.which("tmux") is None:
    pytest.skip("tmux is not installed", allow_module_level=True)

GREYS = {0, 7, 8, 15, 16, 59, 102, 145, 188, 231, *range(232, 256)}  # of the 256 colours

pytestmark = [pytest.mark.processes, pytest.mark.timeout(180)]


_OTHERS = {"TMUX", "NO_COLOR", "COLUMNS", "LINES"}  # of the terminal that the tests run in


class Terminal:
    """A tmux of its own with one shell.

    Attributes:
        settings: what its environment has beside the usual.
    """

    def __init__(self, columns: int, lines: int, **settings: str) -> None:
        self.settings = settings
        self._directory = tempfile.TemporaryDirectory()  # that of tmux itself may be another user's of this number
        self._socket = f"{self._directory.name}/tmux"
        given = {key: value for key, value in child_environment().items() if key not in _OTHERS}
        given["SHELL"] = "/bin/sh"  # tmux runs its commands by it; that of a service's user ends at once
        environ = {**given, "LC_ALL": "C.UTF-8", "TERM": "xterm-256color", **settings}
        self._environ = environ
        self.run(
            "-f", "/dev/null", "new-session", "-d", "-x", str(columns), "-y", str(lines), "bash --norc --noprofile"
        )
        self.run("set-option", "-g", "window-size", "manual")

    def run(self, *words: str) -> str:
        """Return what tmux says."""
        command = ["tmux", "-S", self._socket, *words]
        done = subprocess.run(command, env=self._environ, capture_output=True, text=True, timeout=30, check=True)
        return done.stdout

    def type(self, text: str, *keys: str) -> None:
        """Type *text*, then *keys* by their names."""
        if text:
            self.run("send-keys", "-l", text)
        if keys:
            self.run("send-keys", *keys)

    def screen(self, *options: str) -> str:
        """Return what is on the screen."""
        return self.run("capture-pane", "-p", *options)

    def shows(self, words: str) -> None:
        """Wait until *words* are on the screen."""
        wait_until(lambda: words in self.screen())

    def asks(self) -> None:
        """Wait until the shell asks for the next command, on the last line."""
        wait_until(lambda: bool(re.search(r"\n?bash-\S+[#$] *$", self.screen().rstrip())))

    def close(self) -> None:
        """Take the terminal away, as an ssh that is cut off does, and wait for the end of all that runs in it."""
        shell = psutil.Process(int(self.run("list-panes", "-F", "#{pane_pid}")))
        running = [shell, *shell.children(recursive=True)]
        subprocess.run(["tmux", "-S", self._socket, "kill-server"], check=False, capture_output=True)
        _, alive = psutil.wait_procs(running, timeout=PATIENCE_SECONDS)
        for process in alive:
            process.kill()
        self._directory.cleanup()
        assert not alive, "it outlives its terminal"


@pytest.fixture
def terminal(request: pytest.FixtureRequest) -> Iterator[Terminal]:
    """80x24, with the settings that a test gives."""
    made = Terminal(80, 24, **getattr(request, "param", {}))
    yield made
    made.close()


def shown(terminal: Terminal, name: str) -> None:
    """Start ``top`` of the sampler *name* and wait for its first panel."""
    terminal.type(shlex.join([sys.executable, "-P", "-m", "shm_monitor", "top", "--name", name]), "Enter")
    terminal.shows("q quit")
    terminal.shows("memory")


def test_ctrl_z_gives_the_shell_and_fg_the_screen_back(terminal: Terminal, bench: Bench) -> None:
    shown(terminal, bench.name)
    terminal.type("", "C-z")
    terminal.shows("Stopped")
    terminal.asks()
    assert "q quit" not in terminal.screen()
    terminal.type("fg", "Enter")
    terminal.shows("q quit")
    terminal.type("q")
    terminal.asks()
    terminal.type("echo stty: $(stty -a | grep -o ' echo ')", "Enter")
    terminal.shows("stty: echo")


def test_a_window_that_grows_and_shrinks_is_filled_and_left_clean(terminal: Terminal, bench: Bench) -> None:
    shown(terminal, bench.name)
    terminal.run("resize-window", "-x", "160", "-y", "50")
    wait_until(lambda: any("memory" in line and " workers" in line for line in terminal.screen().splitlines()))
    terminal.run("resize-window", "-x", "80", "-y", "24")
    wait_until(lambda: max(map(len, terminal.screen().splitlines())) <= 80 and "q quit" in terminal.screen())
    terminal.type("q")
    terminal.asks()
    assert "q quit" not in terminal.screen(), "old lines are left behind"


@pytest.mark.parametrize("terminal", [{"NO_COLOR": "1"}, {}], indirect=True, ids=["NO_COLOR", "colour"])
def test_no_color_is_obeyed_and_says_the_same(terminal: Terminal, bench: Bench) -> None:
    def is_live() -> bool:
        bench.publish()
        return "OK" in terminal.screen()

    shown(terminal, bench.name)
    wait_until(is_live)
    screen = terminal.screen("-e")
    colours = set(map(int, re.findall(r"[34]8;5;(\d+)", screen)))

    assert colours
    assert (colours <= GREYS) == ("NO_COLOR" in terminal.settings)


def test_a_terminal_that_goes_away_takes_the_view_with_it(terminal: Terminal, bench: Bench) -> None:
    """Also after a stop, when textual writes by another thread than at the start; the fixture takes it away."""
    shown(terminal, bench.name)
    terminal.type("", "C-z")
    terminal.asks()
    terminal.type("fg", "Enter")
    terminal.shows("q quit")
