"""The boxes over the panels: the keys, the explanation, the sources, and the field for false readings."""

from __future__ import annotations

import contextlib
import math
import textwrap
from collections.abc import Iterable
from typing import ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Input, Static

from shm_monitor.errors import ConfigError
from shm_monitor.tui.explain import explanation
from shm_monitor.tui.source import Frame
from shm_monitor.worker.injecting import reading_of

INJECT_SECONDS = 30.0
FRAME_CELLS = 15  # of a box: its border, its padding, and a margin
TEXT_CELLS_MAX = 100

KEYS = """\
q           quit
?           these keys
space       pause, and go on
left right  one sample back or forth (h, l)
tab         next panel; arrows scroll
{panels}
- +         charts over less or more time
s           sort workers by memory, cpu, pid
/           only workers and limits with ...; escape: all
e           explain: each limit in numbers, and what ends its reasons
o           where each number comes from
i           inject false readings (needs ALLOW_INJECTION=true)
t           dark or light
Ctrl-Z      to the shell; fg comes back"""


class _Shown(ModalScreen[None]):
    BINDINGS: ClassVar[list[BindingType]] = [("escape,q,e,o,question_mark,enter", "dismiss", "close")]

    def __init__(self, text: str | Text) -> None:
        super().__init__()
        self._text = text

    def compose(self) -> ComposeResult:
        """Return the text in a box."""
        with VerticalScroll():
            yield Static(self._text, markup=False)


class HelpScreen(_Shown):
    """The keys."""

    def __init__(self, panels: Iterable[str]) -> None:
        """Show them; *panels* are opened and closed by their numbers."""
        names = textwrap.fill(", ".join(panels), 46, subsequent_indent=" " * 12)
        super().__init__(KEYS.format(panels=f"1 .. {names.count(',') + 1}      open or close a panel:\n{'':12}{names}"))


class ExplainScreen(_Shown):
    """The numbers behind the verdict on a frame."""

    def __init__(self, frame: Frame, screen_cells: int) -> None:
        """Show those of *frame* on a screen of so many cells."""
        super().__init__(explanation(frame, min(screen_cells - FRAME_CELLS, TEXT_CELLS_MAX)))


class SourcesScreen(_Shown):
    """Where each number comes from."""

    def __init__(self, sources: dict[str, str]) -> None:
        """Show *sources*, by metric."""
        width = max(map(len, sources), default=0)
        lines = [f"{name:{width}}  {source}" for name, source in sources.items()]
        super().__init__("\n".join(lines) or "not known: no sampler has said yet")


class InjectScreen(ModalScreen[str | None]):
    """The field for false readings."""

    BINDINGS: ClassVar[list[BindingType]] = [("escape", "give_up", "close")]

    def compose(self) -> ComposeResult:
        """Return one line to type in."""
        yield Input(placeholder=f"memory_percent=97 ... [seconds, else {INJECT_SECONDS:g}]")

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Return what was typed."""
        self.dismiss(event.value)

    def action_give_up(self) -> None:
        """Inject nothing."""
        self.dismiss(None)


def readings_of(text: str) -> tuple[dict[str, float], float]:
    """Return the readings and the seconds of ``METRIC=NUMBER ... [SECONDS]``.

    Raises:
        ConfigError: *text* is something else.
    """
    words = text.split()
    seconds = INJECT_SECONDS if not words or "=" in words[-1] else _seconds(words.pop())
    if not words:
        raise ConfigError("inject", text, "argument", "at least one METRIC=NUMBER, such as memory_percent=97")
    return dict(map(reading_of, words)), seconds


def _seconds(word: str) -> float:
    with contextlib.suppress(ValueError):
        if 0 < float(word) < math.inf:
            return float(word)
    raise ConfigError("inject", word, "argument", "METRIC=NUMBER, or a number of seconds")
