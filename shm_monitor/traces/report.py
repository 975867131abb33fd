"""A page of a replay: readings, limits, targets and shaded episodes. Self-contained, so that it can be sent around."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from shm_monitor.errors import MissingDependencyError
from shm_monitor.traces.episodes import LimitReport
from shm_monitor.traces.outcome import Replayed

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

_POINTS_MOST = 8_000  # per line; a browser draws this many at once
_SHADES = {"prune": "rgba(255, 165, 0, 0.25)", "critical": "rgba(220, 20, 60, 0.25)"}
_PANEL_PIXELS = 320


def html(done: Replayed, *, title: str = "shm-monitor replay") -> str:
    """Return the page of *done*: one panel for each limit. About 5 MB, for the library is in it; no network is used.

    Raises:
        MissingDependencyError: plotly is not installed.
    """
    try:
        import plotly.graph_objects as go
        from plotly.subplots import make_subplots
    except ImportError:
        raise MissingDependencyError("the HTML page", "report", "plotly") from None
    reports = {limit.name: limit for limit in done.report().limits}
    names = [rule.limit.name for rule in done.rules]
    titles = [f"{name}, episodes: {len(reports[name].episodes)}" for name in names]
    figure = make_subplots(rows=len(names), cols=1, shared_xaxes=True, subplot_titles=titles)
    for place, name in enumerate(names):
        _draw(figure, go, done, place)
        _shade(figure, reports[name], place, end=float(_seconds(done)[-1]))
    figure.update_layout(title=title, height=120 + _PANEL_PIXELS * len(names), hovermode="x unified")
    figure.update_xaxes(title_text="seconds from the start", row=len(names), col=1)
    return str(figure.to_html(include_plotlyjs=True, full_html=True))


def _seconds(done: Replayed) -> NDArray[np.float64]:
    seconds: NDArray[np.float64] = (done.trace.times_ns - done.trace.times_ns[0]) / 1e9
    return seconds


def _draw(figure: Figure, go: Any, done: Replayed, place: int) -> None:
    """Add the lines of limit *place* to its panel."""
    rule = done.rules[place]
    scale, unit = (2.0**-20, rule.limit.unit.replace("bytes", "MB")) if "bytes" in rule.limit.unit else (1.0, "percent")
    seconds = _seconds(done)
    for name, values, line in _lines(done, place):
        if np.isnan(values).all():
            continue
        shown = thinned(values)
        figure.add_trace(
            go.Scatter(
                x=seconds[shown], y=values[shown] * scale, name=name, line=line, legendgroup=name, showlegend=place == 0
            ),
            row=place + 1,
            col=1,
        )
    figure.update_yaxes(title_text=unit, row=place + 1, col=1)


def _lines(done: Replayed, place: int) -> Iterator[tuple[str, NDArray[np.float64], dict[str, Any]]]:
    """Yield name, values and style of each line of limit *place*."""
    column = done.rules[place].value
    yield "value", done.trace.values[:, column], {"color": "#1f77b4", "width": 1}
    yield "mean", done.bars[:, place, 4], {"color": "#7f7f7f", "width": 1}
    yield "limit", done.bars[:, place, 0], {"color": "#d62728", "width": 1.5}
    yield "target", done.bars[:, place, 1], {"color": "#ff7f0e", "width": 1.5, "dash": "dash"}
    yield "capacity", done.bars[:, place, 2], {"color": "#000000", "width": 1, "dash": "dot"}


def _shade(figure: Figure, report: LimitReport, place: int, *, end: float) -> None:
    """Shade the episodes of *report* in panel *place*."""
    for episode in report.episodes:
        figure.add_vrect(
            x0=episode.begin_seconds,
            x1=end if episode.end_seconds is None else episode.end_seconds,
            fillcolor=_SHADES[episode.level],
            line_width=0,
            annotation_text=", ".join(episode.reasons),
            row=place + 1,
            col=1,
        )


def thinned(values: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return the places of *values* to draw: all of a short line, else the lowest and the highest of each stretch.

    A spike of one sample stays to be seen.
    """
    if len(values) <= _POINTS_MOST:
        return np.arange(len(values))
    edges = np.linspace(0, len(values), _POINTS_MOST // 2 + 1).astype(np.int64)
    places = []
    for begin, end in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
        stretch = values[begin:end]
        if not np.isnan(stretch).all():
            places += [begin + int(np.nanargmin(stretch)), begin + int(np.nanargmax(stretch))]
        else:
            places.append(begin)  # a hole is drawn as one
    return np.unique(np.array(places, np.int64))
