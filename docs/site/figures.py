"""``python -m docs.site.figures``: the figures of docs/concepts.md, from seeded traces and the kernels.

Each is what ``shm-monitor replay`` would say of the trace: the line is memory, the bars are limit, target and capacity,
what is shaded was an episode. A test draws them again, so a figure never shows a rule of yesterday.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from html import escape
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from shm_monitor.config.resource import ResourceConfig
from shm_monitor.traces.episodes import OVERALL, Episode
from shm_monitor.traces.outcome import Replayed
from shm_monitor.traces.replay import decide_over, load

PLACE = Path(__file__).parents[1] / "images"
CAPACITY_MB = 1000
CONFIG = ResourceConfig(max_memory_usage_mb=920, target_utilization=0.945)
SEED = 20261125
WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 760, 230, 46, 96, 12, 26
INK, LINE, SHADE = "#7d7d85", "#3b82c4", "#d6453d"  # readable on white and on black
BARS = ((0, "limit", "#d6453d"), (1, "target", "#b8860b"), (2, "capacity", INK))
Floats = NDArray[np.float64]


class Figure(NamedTuple):
    """One trace: what is seen in it, seconds between two samples, and percent of the capacity at each second."""

    title: str
    interval_seconds: float
    percent: Callable[[Floats, np.random.Generator], Floats]
    seconds: float = 120.0


def _spikes(times: Floats, noise: np.random.Generator) -> Floats:
    return np.where(times % 37 == 20, 95.0, 70.0) + noise.normal(0, 0.6, len(times))


def _level(times: Floats, noise: np.random.Generator) -> Floats:
    return np.interp(times, [0, 29, 30, 80, 81, 120], [70, 70, 93.5, 93.5, 78, 78]) + noise.normal(0, 0.4, len(times))


def _hover(times: Floats, noise: np.random.Generator) -> Floats:
    return np.interp(times, [0, 15, 25, 95, 100, 120], [75, 75, 92, 92, 74, 74]) + noise.normal(0, 1.2, len(times))


def _ramp(times: Floats, noise: np.random.Generator) -> Floats:
    return np.minimum(np.interp(times, [0, 10, 40], [55, 55, 115]) + noise.normal(0, 0.15, len(times)), 100.0)


def _sawtooth(times: Floats, noise: np.random.Generator) -> Floats:
    return 62 + 1.3 * (times % 20) + noise.normal(0, 0.3, len(times))


FIGURES = {
    "spikes": Figure("A spike shorter than a third of the period is no reason", 1.0, _spikes),
    "level": Figure(
        "Over the limit for a third of the period: level, until a whole period below the target", 1.0, _level
    ),
    "hover": Figure("A value that hovers around the limit is one episode", 1.0, _hover),
    "ramp": Figure("A ramp is seen before its end: forecast, then capacity", 0.5, _ramp, 36.0),
    "sawtooth": Figure("What a garbage collector does is no reason", 1.0, _sawtooth),
}


def main() -> None:
    """Write every figure."""
    PLACE.mkdir(exist_ok=True)
    for name in FIGURES:
        (PLACE / f"{name}.svg").write_text(drawn(name), encoding="utf-8")


def decided(name: str) -> Replayed:
    """Return the trace of the figure *name*, and what was decided over it."""
    figure = FIGURES[name]
    times = np.arange(0, figure.seconds, figure.interval_seconds)
    percent = figure.percent(times, np.random.default_rng(SEED))
    rows = [
        f"{now:g},{value / 100 * CAPACITY_MB * 2**20:.0f},{CAPACITY_MB * 2**20}"
        for now, value in zip(times, percent, strict=True)
    ]
    with tempfile.TemporaryDirectory() as place:
        file = Path(place, f"{name}.csv")
        file.write_text("\n".join(["time,memory.usage_bytes,memory.capacity_bytes", *rows]), encoding="utf-8")
        with np.errstate(all="ignore"):  # interpreted kernels divide 0 by 0 as compiled ones do, and say so
            return decide_over(load(file), CONFIG, compiled=False)


def episodes(done: Replayed) -> tuple[Episode, ...]:
    """Return the episodes of all limits together."""
    return next(one for one in done.report().limits if one.name == OVERALL).episodes


def drawn(name: str) -> str:
    """Return the figure as SVG."""
    figure, done = FIGURES[name], decided(name)
    times = (done.trace.times_ns - done.trace.times_ns[0]) / 1e9
    rule = done.rules[0]
    share = done.trace.values[:, rule.value] / done.bars[-1, 0, 2]
    low = 0.5
    plot = Plot(figure.seconds, low)
    parts = [plot.shade(one, figure.seconds) for one in episodes(done)]
    parts += [plot.bar(done.bars[-1, 0, at] / done.bars[-1, 0, 2], label, ink) for at, label, ink in BARS]
    points = " ".join(f"{plot.x(now)},{plot.y(value)}" for now, value in zip(times, share, strict=True))
    parts.append(f'<polyline points="{points}" fill="none" stroke="{LINE}" stroke-width="1.6"/>')
    parts += plot.axes()
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'font-family="sans-serif" font-size="11" fill="{INK}">'
    )
    return "\n".join([head, f"<title>{escape(figure.title)}</title>", *parts, "</svg>"]) + "\n"


class Plot(NamedTuple):
    """Where seconds and shares lie in the picture."""

    seconds: float
    low: float

    def x(self, now: float) -> int:
        """Return the column of a second."""
        return round(LEFT + now / self.seconds * (WIDTH - LEFT - RIGHT))

    def y(self, share: float) -> int:
        """Return the row of a share of the capacity."""
        return round(HEIGHT - BOTTOM - (share - self.low) / (1.02 - self.low) * (HEIGHT - TOP - BOTTOM))

    def shade(self, one: Episode, seconds: float) -> str:
        """Return an episode as an area with its reasons."""
        begin, end = self.x(one.begin_seconds), self.x(seconds if one.end_seconds is None else one.end_seconds)
        size = f'width="{end - begin}" height="{HEIGHT - TOP - BOTTOM}"'
        area = f'<rect x="{begin}" y="{TOP}" {size} fill="{SHADE}" opacity="0.16"/>'
        told = escape(", ".join(one.reasons))
        return f'{area}<text x="{begin + 4}" y="{HEIGHT - BOTTOM - 6}" fill="{SHADE}">{told}</text>'

    def bar(self, share: float, label: str, ink: str) -> str:
        """Return a line across, with its name at its end."""
        y, end = self.y(share), WIDTH - RIGHT
        line = f'<line x1="{LEFT}" x2="{end}" y1="{y}" y2="{y}" stroke="{ink}" stroke-dasharray="5 4"/>'
        return f'{line}<text x="{end + 6}" y="{y + 4}" fill="{ink}">{label} {100 * share:.0f} %</text>'

    def axes(self) -> list[str]:
        """Return the axes with their numbers."""
        foot, end = HEIGHT - BOTTOM, WIDTH - RIGHT
        lines = f'<path d="M{LEFT} {TOP}V{foot}H{end}" fill="none" stroke="{INK}"/>'
        shares = [
            f'<text x="{LEFT - 6}" y="{self.y(at / 100) + 4}" text-anchor="end">{at} %</text>'
            for at in range(50, 101, 10)
        ]
        step = 20 if self.seconds > 60 else 6
        marks = range(0, int(self.seconds) + 1, step)
        seconds = [f'<text x="{self.x(at)}" y="{HEIGHT - 8}" text-anchor="middle">{at} s</text>' for at in marks]
        return [lines, *shares, *seconds]


if __name__ == "__main__":
    main()
