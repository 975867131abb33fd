"""Bars, lines and amounts made of characters."""

from __future__ import annotations

import pytest

pytest.importorskip("rich", reason="the extra tui is not installed")

from hypothesis import given
from hypothesis import strategies as st

from shm_monitor.tui import panels
from shm_monitor.tui.marks import bar, plot, spark, timeline
from shm_monitor.tui.panels import Look
from shm_monitor.tui.source import Frame
from tests.support.screens import GPU, snapshot


@given(share=st.one_of(st.none(), st.floats(-1, 2)), width=st.integers(1, 80), mark=st.floats(0, 1))
def test_a_bar_is_as_wide_as_it_should_be_whatever_it_shows(share: float | None, width: int, mark: float) -> None:
    assert len(bar(share, width, marks=[(mark, "|")]).plain) == width


@given(values=st.lists(st.one_of(st.none(), st.floats(0, 1e12)), max_size=100), width=st.integers(1, 80))
def test_a_line_shows_the_newest_and_is_as_wide_as_it_should_be(values: list[float | None], width: int) -> None:
    line = spark(values, width)

    assert len(line) == width
    if values and values[-1] is None:
        assert line.endswith("·")
    if values and values[-1]:
        assert line[-1] not in " ·"


@given(
    values=st.lists(st.one_of(st.none(), st.floats(0, 1e12)), max_size=100),
    width=st.integers(1, 40),
    height=st.integers(1, 8),
)
def test_a_plot_is_as_large_as_it_should_be_and_braille(values: list[float | None], width: int, height: int) -> None:
    lines = plot(values, width, height)

    assert [len(line) for line in lines] == [width] * height
    assert all(0x2800 <= ord(sign) <= 0x28FF for line in lines for sign in line)


def test_a_plot_fills_from_below_with_the_newest_on_the_right() -> None:
    assert plot([0.0, 25.0, 50.0, 100.0], 2, 1, top=100.0) == ["⢀⣼"]
    assert plot([100.0, 100.0], 1, 2, top=100.0) == ["⣿", "⣿"]
    assert plot([50.0, None], 1, 2, top=100.0) == ["⠀", "⡇"]


def test_a_bar_marks_target_and_limit_where_they_are() -> None:
    assert bar(0.5, 10, marks=[(0.8, "┊"), (0.9, "┃")]).plain == "━━━━━───┊┃"


def test_a_strip_has_a_cell_per_sample_the_newest_on_the_right() -> None:
    assert timeline(["ok", "warn", "prune"], 5).plain == "  ▁▄█"


def test_memory_shows_each_level_with_its_capacity() -> None:
    text = panels.memory(Frame("live", snapshot(1, "prune", 0.95)), Look(100)).plain

    assert "15.2 GB of 16.0 GB" in text
    assert "┃" in text


def test_a_gpu_shows_what_holds_its_clocks_down() -> None:
    text = panels.gpus(Frame("live", snapshot(1, gpus=[GPU])), Look(100)).plain

    for part in ("gpu 0", "50.0 %", "60 °C", "300 W", "1.0 GB/4.0 GB", "throttled: sw_power_cap"):
        assert part in text


def test_a_limit_that_is_not_set_is_not_listed() -> None:
    from shm_monitor.snapshot.structs import LimitState

    one = snapshot(1)
    text = panels.limits(
        Frame("live", snapshot(1, limits=[*one.limits, LimitState("cpu", "cpu.cpu_percent")])), Look(100)
    ).plain

    assert "memory" in text
    assert "cpu" not in text
