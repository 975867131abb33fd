"""Bars, lines and amounts made of characters."""

from __future__ import annotations

import pytest

pytest.importorskip("rich", reason="the extra tui is not installed")

from hypothesis import given
from hypothesis import strategies as st
from rich.text import Text

from shm_monitor.snapshot.structs import LimitState, Worker, Workers
from shm_monitor.tui.axis import GUTTER_CELLS, Axis
from shm_monitor.tui.explain import explanation
from shm_monitor.tui.look import Look
from shm_monitor.tui.marks import GREY, bar, blocks
from shm_monitor.tui.panels import PANELS
from shm_monitor.tui.rows import BORDER_LINES, Chart, Row, Rule, drawn, heights, table, wrapped
from shm_monitor.tui.source import Frame
from tests.support.screens import GPU, snapshot

WIDTH = 100
readings = st.lists(st.one_of(st.none(), st.floats(0, 1e12)), max_size=100)


def panel(name: str, frame: Frame) -> str:
    """Return what the panel *name* says of *frame*."""
    assert frame.snapshot is not None
    look = Look(WIDTH, Axis([frame.snapshot], WIDTH))
    rows = PANELS[name](frame.snapshot, look)
    return drawn(rows, look.axis, heights({name: rows}, 0)[name]).plain


@given(share=st.one_of(st.none(), st.floats(-1, 2)), width=st.integers(1, 80), mark=st.floats(0, 1))
def test_a_bar_is_as_wide_as_it_should_be_whatever_it_shows(share: float | None, width: int, mark: float) -> None:
    assert len(bar(share, width, marks=[(mark, "|")]).plain) == width


@given(values=readings, height=st.integers(1, 8), top=st.floats(1, 1e12))
def test_blocks_have_a_cell_for_each_value_on_every_line(values: list[float | None], height: int, top: float) -> None:
    lines = blocks(values, height, top=top)

    assert [len(line) for line in lines] == [len(values)] * height
    for at, value in enumerate(values):
        assert (lines[-1][at] == "·") == (value is None)
        assert (lines[-1][at] == " ") == (value == 0)


def test_blocks_fill_from_below() -> None:
    assert blocks([0.0, 25.0, 50.0, 100.0], 2, top=100.0) == ["   █", " ▄██"]
    assert blocks([50.0, None, 1e-9], 1, top=100.0) == ["▄·▁"]


def test_a_bar_marks_target_and_limit_where_they_are() -> None:
    assert bar(0.5, 10, marks=[(0.8, "┊"), (0.9, "┃")]).plain == "━━━━━───┊┃"


def test_an_axis_has_the_newest_sample_in_its_last_cell_and_forgets_what_is_older_than_its_span() -> None:
    axis = Axis([snapshot(n) for n in range(100)], GUTTER_CELLS + 1 + 30, span_seconds=30)

    assert [[one.sequence for one in cell] for cell in axis.cells] == [[n] for n in range(70, 100)]


def test_a_reading_stands_for_the_cells_up_to_the_next_one_but_not_over_a_gap() -> None:
    axis = Axis([snapshot(n) for n in (1, 2, 9, 10)], GUTTER_CELLS + 1 + 20, span_seconds=10)
    shown = [cell[0].sequence if cell else None for cell in axis.cells]

    assert shown == [None, 1, 1, 2, 2, 2, 2, *[None] * 10, 9, 9, 10]


def test_a_cell_of_several_samples_shows_the_highest() -> None:
    axis = Axis(
        [snapshot(n, used=0.9 if n == 5 else 0.5) for n in range(1, 11)], GUTTER_CELLS + 1 + 10, span_seconds=100
    )

    assert axis.highest(lambda one: one.memory.usage_percent)[-1] == 90.0


def test_the_lines_of_a_chart_have_their_numbers_and_their_names_beside_them() -> None:
    rules = [Rule(100.0, "capacity", ""), Rule(90.0, "limit", ""), Rule(81.0, "target", "")]
    axis = Axis([snapshot(1, used=0.1)], GUTTER_CELLS + 1 + 9)
    chart = Chart("memory", "", lambda one: one.memory.usage_percent, "_percent", 100.0, rules=rules)

    low = drawn([chart], axis, [4]).plain.splitlines()
    high = drawn([chart], axis, [20]).plain.splitlines()

    assert [line[:8].strip() for line in low] == ["capacity", "limit", "target", ""]
    assert low[0][GUTTER_CELLS + 1 :] == "▔─▁▔─▁▔─▁", "lines that share a row have a cell each in turn"
    assert [high.index(line) for line in high if line[0].strip()] == [0, 2, 3]
    assert "▔" in high[0]
    assert high[-1].split()[0] == "0"
    assert high[10].split()[0] == "50.0"


def test_a_scale_that_grows_doubles_until_it_holds_the_highest() -> None:
    axis = Axis([snapshot(1)], 60)
    chart = Chart("sent", "", lambda _: 300.0, "_percent", 100.0, grows=True)

    assert "0 to 400.0 %" in drawn([chart], axis, [2]).plain


CHART = Chart("cpu", "", lambda _: 1.0, "_percent", 100.0)


@given(charts=st.lists(st.integers(0, 4), min_size=1, max_size=5), room=st.integers(0, 80))
def test_charts_fill_the_room_that_there_is_and_take_no_more(charts: list[int], room: int) -> None:
    panels: dict[str, list[Row]] = {str(at): [CHART] * count for at, count in enumerate(charts)}
    found = heights(panels, room)
    lines = [BORDER_LINES + sum(found[name]) for name in panels]
    ends = [sum(lines[:count]) for count in range(len(lines) + 1)]

    least = [sum(BORDER_LINES + count for count in charts[:n]) for n in range(len(charts) + 1)]
    first = max(n for n in range(len(charts) + 1) if least[n] <= room)
    if any(charts[:first]):
        assert ends[first] == room, "a panel ends where the screen does"
    assert all(count >= 1 for heights_of in found.values() for count in heights_of)


def test_a_table_keeps_every_number_whole_and_cuts_only_its_wide_column() -> None:
    lines = [
        line.plain
        for line in table([("pid", "name", "rss"), ("1", "a very long name", "1.0 GB")], 20, left=(1,), wide=1)
    ]

    assert lines == ["pid name         rss", "  1 a very l… 1.0 GB"]


def test_a_number_stays_beside_its_unit_and_a_command_whole() -> None:
    assert [line.plain for line in wrapped("mean 59.4 GB, try: shm-monitor run", 12)] == [
        "mean",
        "59.4 GB,",
        "try:",
        "shm-monitor",
        "run",
    ]


def test_memory_shows_each_scope_with_its_capacity() -> None:
    text = panel("memory", Frame("live", snapshot(1, "prune", 0.95)))

    assert "15.2 GB" in text
    assert "of 16.0 GB" in text
    assert "┃" in text


def test_a_gpu_shows_what_holds_its_clocks_down() -> None:
    text = panel("gpus", Frame("live", snapshot(1, gpus=[GPU])))

    for part in ("gpu 0", "50.0 %", "60 °C", "300 W", "1.0 GB", "of 4.0 GB", "throttled: sw_power_cap"):
        assert part in text


def test_our_own_processes_are_grey_and_a_foreign_user_is_named() -> None:
    processes = [Worker(1, name="shm-monitor sampler"), Worker(2, name="train.py", user="eve")]
    sample = snapshot(1, workers=Workers(2, processes=processes))
    _, own, other = PANELS["workers"](sample, Look(WIDTH, Axis([sample], WIDTH)))

    assert isinstance(own, Text)
    assert isinstance(other, Text)
    assert [str(span.style) for span in own.spans] == [GREY]
    assert "train.py (eve)" in other.plain
    assert not other.spans


def test_a_filter_that_no_limit_passes_is_named() -> None:
    sample = snapshot(1)
    rows = PANELS["limits"](sample, Look(WIDTH, Axis([sample], WIDTH), wanted="gpu"))

    assert [str(row) for row in rows] == ["no limit with gpu in its name"]


def test_a_limit_that_is_not_set_is_not_listed() -> None:
    one = snapshot(1)
    text = panel("limits", Frame("live", snapshot(1, limits=[*one.limits, LimitState("cpu", "cpu.cpu_percent")])))

    assert "memory" in text
    assert "cpu" not in text


def test_an_explanation_has_the_numbers_of_each_limit_and_what_ends_its_reasons() -> None:
    frame = Frame("live", snapshot(1, "prune", 0.95), why=("memory: level (prune)",))
    text = explanation(frame, 80).plain

    for part in (
        "PRUNE",
        "memory: level (prune)",
        "now 15.2 GB; over the period mean 15.2 GB",
        "target 13.0 GB, limit 14.4 GB, capacity 16.0 GB",
        "819.2 MB over the limit",
        "level ends when a whole period was below the target",
    ):
        assert part in text
    assert "prune" not in explanation(frame._replace(state="stale"), 80).plain
