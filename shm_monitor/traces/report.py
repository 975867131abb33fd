"""A page of a replay: the charts of the dashboard over a whole trace, in one file that can be sent around."""

from __future__ import annotations

import html as markup
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from shm_monitor.errors import MissingDependencyError
from shm_monitor.traces.episodes import Episode, LimitReport, cells_of
from shm_monitor.traces.outcome import Replayed
from shm_monitor.traces.what_if import SETTINGS
from shm_monitor.units import printable

_HERE = Path(__file__).parent
_POINTS_MOST = 8_000  # per line; what is drawn of them at once is less
_BARS = (("limit", 0), ("target", 1), ("capacity", 2), ("mean", 4))  # name and column of Replayed.bars


class Tried(NamedTuple):
    """Settings and what they decided.

    Args:
        name: for the heads of columns.
        config: the settings, whatever has some of ``SETTINGS``.
        done: over the same trace as those beside it.
    """

    name: str
    config: object
    done: Replayed


def html(*tried: Tried, title: str = "shm-monitor replay") -> str:
    """Return the page of *tried*, beside each other. About 5 MB, for plotly.js is in it; no network is used.

    Raises:
        MissingDependencyError: plotly is not installed.
    """
    first = tried[0].done
    reports = [one.done.report() for one in tried]
    names = list(dict.fromkeys(limit.name for report in reports for limit in report.limits))
    found = [{limit.name: limit for limit in report.limits} for report in reports]
    data = {
        "seconds": reports[0].seconds,
        "told": reports[0].heading,
        "limits": names[1:],
        "rows": [[name, *(cells_of(limits.get(name)) for limits in found)] for name in names],
        "settings": [[key, *(_setting(one.config, key) for one in tried)] for key in SETTINGS],
        "tried": [
            {"name": one.name, "limits": dict(_limits(one.done, limits))}
            for one, limits in zip(tried, found, strict=True)
        ],
    }
    parts = {
        "title": markup.escape(printable(f"{title}: {Path(first.trace.source).name}")),
        # What could end the element is written otherwise; to JSON it is the same.
        "data": printable(msgspec.json.encode(data).decode()).replace("<", "\\u003c"),
        "plotly": _plotly(),
        "figures": (_HERE / "figures.js").read_text(encoding="utf-8"),
        "script": (_HERE / "report.js").read_text(encoding="utf-8"),
    }
    page = (_HERE / "report.html").read_text(encoding="utf-8")
    pieces = page.replace("{{title}}", parts["title"], 1).split("{{")
    return pieces[0] + "".join(parts[key] + rest for key, _, rest in (one.partition("}}") for one in pieces[1:]))


def _plotly() -> str:
    """Return plotly.js, without importing the package that brings it."""
    spec = find_spec("plotly")
    for place in (spec.submodule_search_locations or ()) if spec is not None else ():
        path = Path(place) / "package_data" / "plotly.min.js"
        if path.is_file():
            return path.read_text(encoding="utf-8")
    raise MissingDependencyError("the HTML page", "report", "plotly")


def _setting(config: object, key: str) -> str:
    value = getattr(config, key, None)
    return "-" if value is None else f"{value:g}"


def _limits(done: Replayed, reports: dict[str, LimitReport]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield name and chart of each limit, as figures.js takes it."""
    seconds = (done.trace.times_ns - done.trace.times_ns[0]) / 1e9
    for place, rule in enumerate(done.rules):
        lines = [{"name": "value", **_line(seconds, done.trace.values[:, rule.value])}]
        for name, column in _BARS:
            values = done.bars[:, place, column]
            if not np.isnan(values).all():
                lines.append({"name": name, "kind": name, **_line(seconds, values)})
        episodes = [_episode(one) for one in reports[rule.limit.name].episodes]
        yield rule.limit.name, {"unit": rule.limit.unit, "lines": lines, "episodes": episodes}


def _line(seconds: NDArray[np.float64], values: NDArray[np.float64]) -> dict[str, list[float | None]]:
    shown = thinned(values)
    return {
        "times": seconds[shown].tolist(),
        "values": [None if np.isnan(value) else float(value) for value in values[shown]],
    }


def _episode(episode: Episode) -> dict[str, object]:
    label = f"{episode.level} ({', '.join(episode.reasons)})"
    return {"begin": episode.begin_seconds, "end": episode.end_seconds, "level": episode.level, "label": label}


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
