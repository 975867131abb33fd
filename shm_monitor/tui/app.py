"""The full-screen view: it draws its panels once per sample, and keys change what they show."""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import signal
from collections import deque
from typing import ClassVar

from rich.text import Text
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Container, Vertical, VerticalScroll
from textual.events import Resize
from textual.widgets import Footer, Input, Static

from shm_monitor.errors import MonitorError
from shm_monitor.snapshot.structs import Snapshot
from shm_monitor.tui.axis import SPAN_SECONDS, SPANS_SECONDS, Axis
from shm_monitor.tui.banner import banner, heading
from shm_monitor.tui.look import SORTS, Look
from shm_monitor.tui.panels import COLUMNS, PANELS, sample_of, title_of
from shm_monitor.tui.rows import drawn, heights
from shm_monitor.tui.screens import ExplainScreen, HelpScreen, InjectScreen, SourcesScreen, readings_of
from shm_monitor.tui.source import Frame, Source

PAST_SAMPLES = 600  # ten minutes to scroll back at 1 Hz
TWO_COLUMNS_FROM = 110  # cells; below it the charts of two columns would be too short to read
BORDER_CELLS, SCROLLBAR_CELLS, FOOTER_LINES, FILTER_LINES = 4, 1, 1, 3
LINES_PER_REASON = 12  # of the screen: two reasons stand above the panels at 24 lines, five at 60
LEAVE_SECONDS = {signal.SIGTERM: 10, signal.SIGHUP: 1}  # a terminal that hangs up is gone
TURN_SECONDS = 1.0


class TopApp(App[None]):
    """One sampler on the whole screen."""

    CSS_PATH = "top.tcss"
    ENABLE_COMMAND_PALETTE = False
    TITLE = "shm-monitor"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("q", "quit", "quit"),
        Binding("ctrl+c", "quit", show=False, priority=True),
        Binding("question_mark", "help", "help", key_display="?"),
        Binding("space", "pause", "pause"),
        Binding("left,h", "scroll_back(1)", "back", show=False, priority=False),
        Binding("right,l", "scroll_back(-1)", "forth", show=False, priority=False),
        Binding("minus", "span(-1)", "span", key_display="- +"),
        Binding("plus,equals_sign", "span(1)", show=False),
        Binding("s", "sort", "sort"),
        Binding("slash", "filter", "filter", key_display="/"),
        Binding("e", "explain", "explain"),
        Binding("i", "inject", "inject"),
        Binding("o", "sources", "sources", show=False),
        Binding("t", "theme", "theme", show=False),
        Binding("ctrl+z", "suspend_process", show=False),
        Binding("escape", "unfilter", show=False),
        *(Binding(str(at), f"toggle_panel('{name}')", name, show=False) for at, name in enumerate(PANELS, 1)),
    ]

    def __init__(self, source: Source, *, url: str = "", turn_seconds: float = TURN_SECONDS) -> None:
        """Show *source*; *url* is where its API is, for people."""
        super().__init__()
        self._source = source
        self._url = url
        self._turn_seconds = turn_seconds
        self._past: deque[tuple[Snapshot, tuple[str, ...]]] = deque(maxlen=PAST_SAMPLES)
        self._frame = Frame("absent")
        self._sort = SORTS[0]
        self._span_seconds = SPAN_SECONDS
        self._wanted = ""
        self._paused_at: int | None = None  # the place in the past that is shown
        self._toggled: set[str] = set()  # panels that the person has opened or closed
        self._drawn: dict[str, Text] = {}  # what each panel shows: only what changes is drawn again

    def compose(self) -> ComposeResult:
        """Return the widgets: the banner, a panel each, the filter and the keys."""
        yield Static(id="banner")
        with VerticalScroll(id="body"), Container(id="grid"):
            for column in COLUMNS:
                with Vertical(classes="column"):
                    for name in column:
                        panel = Static(id=name, classes="panel")
                        panel.can_focus, panel.auto_links = True, False
                        yield panel
        yield Input(placeholder="only workers and limits with ...", id="filter")
        yield Footer()

    def on_mount(self) -> None:
        """Read the samples that the ring still has, and begin to follow the sampler."""
        self.query_one("#filter").display = False
        for number, seconds in LEAVE_SECONDS.items():
            asyncio.get_running_loop().add_signal_handler(number, self._leave, seconds)
        self._terminal = select.poll()
        if os.isatty(0):
            self._terminal.register(0, 0)  # a hang-up is always told
        self.app_resume_signal.subscribe(self, self._come_back)
        self._past.extend((snapshot, ()) for snapshot in self._source.past(PAST_SAMPLES))
        self.set_interval(self._turn_seconds, self.look)
        self.call_after_refresh(self.look)

    def _leave(self, seconds: int) -> None:
        """Restore the terminal and exit; textual waits forever for a terminal that is gone, so an alarm ends it."""
        signal.alarm(seconds)  # SIGALRM ends the process by default
        self.exit()

    def _come_back(self, _: object) -> None:
        """Paint everything again after ``fg``: textual may paint before the shell has given the terminal back."""
        self.set_timer(0.1, lambda: self.screen.refresh(layout=True))
        self.set_timer(0.5, lambda: self.screen.refresh(layout=True))

    def on_resize(self, event: Resize) -> None:
        """Use one column or two."""
        self.query_one("#grid").set_class(event.size.width >= TWO_COLUMNS_FROM, "wide")
        self.draw()

    async def look(self) -> None:
        """Fetch the newest sample, in a thread if the source may be slow, and draw it.

        A terminal that is gone sends SIGHUP only to those whose controlling terminal it was. To others the end of their
        input is all there is, which textual reads again and again.
        """
        if self._terminal.poll(0):
            self._leave(LEAVE_SECONDS[signal.SIGHUP])
        if self._paused_at is not None:
            return
        if self._source.waits:
            worker = self.run_worker(self._source.newest, thread=True, exclusive=True, exit_on_error=False)
            with contextlib.suppress(Exception):  # a look that was given up for a newer one
                self._frame = await worker.wait()
        else:
            self._frame = self._source.newest()
        snapshot = self._frame.snapshot
        if snapshot is not None and (not self._past or self._past[-1][0].sequence != snapshot.sequence):
            self._past.append((snapshot, self._frame.why))
        self.draw()

    def shown(self) -> Frame:
        """Return the frame on the screen: the newest one, or the one that was scrolled back to."""
        if self._paused_at is None or not self._past:
            return self._frame
        snapshot, why = self._past[self._paused_at]
        return Frame("live", snapshot, why)

    def draw(self) -> None:
        """Draw every panel that is open; their charts fill what the others leave of the screen."""
        frame, width = self.shown(), self.size.width
        until = len(self._past) if self._paused_at is None else self._paused_at + 1
        past = [snapshot for snapshot, _ in self._past][:until]
        self.set_class(not frame.live, "grey")
        if "gpus" not in self._toggled:
            self.query_one("#gpus").display = bool(frame.snapshot and frame.snapshot.gpus)
        behind = None if self._paused_at is None else len(self._past) - 1 - self._paused_at
        above = banner(frame, width, self.size.height // LINES_PER_REASON)
        self._put("banner", Text("\n").join([heading(self._source.title, self._url, behind, width), *above]))
        columns = COLUMNS if width >= TWO_COLUMNS_FROM else (PANELS,)
        room = (width - SCROLLBAR_CELLS) // len(columns) - BORDER_CELLS
        look = Look(room, Axis(past, room, self._span_seconds), self._sort, self._wanted)
        below = FOOTER_LINES + FILTER_LINES * self.query_one("#filter").display
        for column in columns:
            shown = [name for name in column if self.query_one(f"#{name}").display]
            rows = {name: PANELS[name](sample_of(frame), look) for name in shown}
            lines = heights(rows, self.size.height - len(above) - 1 - below)
            for name in shown:
                self._put(name, drawn(rows[name], look.axis, lines[name], grey=not frame.live))
                self.query_one(f"#{name}").border_title = title_of(name, frame, look)

    def _put(self, name: str, text: Text) -> None:
        """Update the widget *name* if its text has changed, and the layout only if the number of lines has."""
        before = self._drawn.get(name)
        if before == text and before.spans == text.spans and before.style == text.style:
            return
        self._drawn[name] = text
        same_height = before is not None and before.plain.count("\n") == text.plain.count("\n")
        self.query_one(f"#{name}", Static).update(text, layout=not same_height)

    def action_pause(self) -> None:
        """Stop at this sample, or go on."""
        self._paused_at = len(self._past) - 1 if self._paused_at is None and self._past else None
        self.draw()

    def action_scroll_back(self, count: int) -> None:
        """Show the sample *count* before the one on the screen."""
        if not self._past:
            return
        at = len(self._past) - 1 if self._paused_at is None else self._paused_at
        self._paused_at = min(max(at - count, 0), len(self._past) - 1)
        self.draw()

    def action_span(self, step: int) -> None:
        """Make all charts show a shorter or a longer time."""
        interval = max(self._turn_seconds, *(snapshot.interval_seconds for snapshot, _ in self._past), 0.0)
        spans = [seconds for seconds in SPANS_SECONDS if seconds <= max(PAST_SAMPLES * interval, SPAN_SECONDS)]
        self._span_seconds = spans[min(max(spans.index(self._span_seconds) + step, 0), len(spans) - 1)]
        self.draw()

    def action_sort(self) -> None:
        """Sort the workers by the next column."""
        self._sort = SORTS[(SORTS.index(self._sort) + 1) % len(SORTS)]
        self.draw()

    def action_filter(self) -> None:
        """Open the field for a part of a name."""
        field = self.query_one("#filter", Input)
        field.display = True
        field.focus()
        self.draw()
        self.call_after_refresh(self.query_one("#workers").scroll_visible, animate=False)

    def action_unfilter(self) -> None:
        """Show all again."""
        field = self.query_one("#filter", Input)
        field.value, field.display, self._wanted = "", False, ""
        self.draw()

    def on_input_changed(self, event: Input.Changed) -> None:
        """Filter while it is typed."""
        self._wanted = event.value.strip()
        self.draw()

    def on_input_submitted(self) -> None:
        """Keep the filter and give the keys back."""
        self.query_one("#filter").display = bool(self._wanted)
        self.set_focus(None)
        self.draw()

    def action_toggle_panel(self, name: str) -> None:
        """Open or close one panel."""
        widget = self.query_one(f"#{name}")
        widget.display = not widget.display
        self._toggled.add(name)
        self.draw()

    def action_theme(self) -> None:
        """Change between dark and light."""
        self.theme = "textual-light" if self.theme == "textual-dark" else "textual-dark"

    def action_sources(self) -> None:
        """Show where each number comes from."""
        self.push_screen(SourcesScreen(self._source.sources()))

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Ignore Ctrl-Z under ``shm-monitor run``, which would go on unseen with its sampler."""
        if action == "suspend_process":
            return os.getpgrp() == os.getpid()
        return super().check_action(action, parameters)

    def action_help(self) -> None:
        """Show the keys."""
        self.push_screen(HelpScreen(PANELS))

    def action_explain(self) -> None:
        """Show the numbers behind the verdict, and what would end each reason."""
        self.push_screen(ExplainScreen(self.shown(), self.size.width))

    def action_inject(self) -> None:
        """Open the field for false readings."""
        self.push_screen(InjectScreen(), self._inject)

    def _inject(self, text: str | None) -> None:
        if not text:
            return
        try:
            readings, seconds = readings_of(text)
            self._source.inject(readings, seconds)
        except MonitorError as error:
            self.notify(str(error), severity="error", timeout=10)
