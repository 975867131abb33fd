"""What lies over the panels for a moment: the keys, the reasons, and what to inject."""

from __future__ import annotations

import math
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import BindingType
from textual.screen import ModalScreen
from textual.widgets import Input, Static

from shm_monitor.errors import ConfigError
from shm_monitor.tui.source import Frame

INJECT_SECONDS = 30.0

KEYS = """\
q           quit
?           these keys
space       pause, and go on
left right  one sample back or forth (h, l)
tab         next panel; arrows scroll
1 .. 8      open or close a panel: memory, cpu, gpus, traffic,
            stall, limits, episodes, workers
s           sort workers by memory, cpu, pid
/           only workers and limits with ...; escape: all
e           explain: why, in numbers
i           inject false readings (needs ALLOW_INJECTION=true)
t           dark or light"""


class _Shown(ModalScreen[None]):
    BINDINGS: ClassVar[list[BindingType]] = [("escape,q,e,question_mark,enter", "dismiss", "close")]

    def __init__(self, text: str) -> None:
        super().__init__()
        self._text = text

    def compose(self) -> ComposeResult:
        """Return the text in a box."""
        yield Static(self._text, markup=False)


class HelpScreen(_Shown):
    """The keys."""

    def __init__(self) -> None:
        """Show them."""
        super().__init__(KEYS)


class ExplainScreen(_Shown):
    """Every reason that holds in a frame."""

    def __init__(self, frame: Frame) -> None:
        """Show those of *frame*."""
        level = frame.snapshot.level.upper() if frame.snapshot else frame.state.upper()
        super().__init__("\n".join([level, *(frame.why or ("no reason to shed holds",))]))


class InjectScreen(ModalScreen[str | None]):
    """Asks for readings to falsify."""

    BINDINGS: ClassVar[list[BindingType]] = [("escape", "give_up", "close")]

    def compose(self) -> ComposeResult:
        """Return one line to type in."""
        yield Input(placeholder=f"memory_percent=97 ... [seconds, else {INJECT_SECONDS:g}]")

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Hand over what was typed."""
        self.dismiss(event.value)

    def action_give_up(self) -> None:
        """Inject nothing."""
        self.dismiss(None)


def readings_of(text: str) -> tuple[dict[str, float], float]:
    """Return the readings and the seconds of ``METRIC=NUMBER ... [SECONDS]``.

    Raises:
        ConfigError: *text* is something else.
    """
    readings: dict[str, float] = {}
    seconds = INJECT_SECONDS
    for word in text.split():
        name, sign, number = word.rpartition("=")
        try:
            value = float(number)
        except ValueError:
            value = math.nan
        if not math.isfinite(value) or bool(sign) != bool(name) or (not sign and value <= 0):
            raise ConfigError("inject", word, "argument", "METRIC=NUMBER, or a number of seconds")
        if sign:
            readings[name] = value
        else:
            seconds = value
    if not readings:
        raise ConfigError("inject", text, "argument", "at least one METRIC=NUMBER, such as memory_percent=97")
    return readings, seconds
