"""What did the second version of the decision gain and lose? Writes the tables of docs/decisions.md.

``python -m bench.decisions docs/decisions.md``. Traces are seeded: the same numbers come out each time. Percent of a
capacity of 100 MB, L = 92, T = 86.94, P = 10 s, H = 4 s, as in tests/decision/test_traces.py. A trace has a value with
noise of its own for each 20 ms; a sampler sees those at which it looks, from a random moment on.
"""

from __future__ import annotations

import logging
import statistics
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from shm_monitor.decision.rules import MEBIBYTE
from shm_monitor.sampler.schedule import Schedule
from shm_monitor.schema import Level
from tests.support.engine import START_NS, Engine

Floats = NDArray[np.float64]

BEGIN, END = "<!-- tables: written by bench/decisions.py -->\n", "<!-- end of tables -->\n"
SEEDS = range(20)
GRID_SECONDS = 0.02  # the shortest wait of an adaptive sampler
LIMIT, TARGET, PERIOD, HORIZON, BRIM = 92.0, 0.945 * 92.0, 10.0, 4.0, 97.0
CALM_SECONDS = 30.0
Rate = tuple[str, float, bool]  # its name, the interval in seconds, and whether it adapts
RATES: tuple[Rate, ...] = (("1 Hz", 1.0, False), ("10 Hz", 0.1, False), ("adaptive", 1.0, True))


class Kind(NamedTuple):
    """A family of traces: what the table calls it, and *of*, which draws one from a random generator."""

    name: str
    of: Callable[[np.random.Generator], Floats]


class Told(NamedTuple):
    """What one sampler said of one trace: the times of its samples in seconds, and whether each pressed."""

    times: Floats
    pressed: NDArray[np.bool_]
    end: float

    @property
    def pressed_seconds(self) -> float:
        """How long it pressed; a sample counts until the next one."""
        return float(np.diff(self.times, append=self.end)[self.pressed].sum())

    @property
    def first(self) -> float:
        """When it first pressed; infinite for never."""
        return float(self.times[self.pressed][0]) if self.pressed.any() else np.inf

    @property
    def episodes(self) -> int:
        """How often it began to press."""
        return int((np.diff(self.pressed.astype(int), prepend=0) > 0).sum())


def version_1(trace: Floats, start: float, interval: float) -> Told:
    """Return what the first version said, which sampled at a fixed rate: its rule for one limit of memory, in numpy.

    LEVEL: the value over L and the plain mean of the last P over T, until the maximum of P is below T. FORECAST: three
    equal parts of the last H / 2 rise, the least of them by a quarter of the mean rise, to T and to the end within H;
    over P after it was last seen. CAPACITY as now. What nothing here shows is left out: counters, holes.
    """
    times, values = _looked_at(trace, start, interval)
    count = int(PERIOD / interval + 1e-9) + 1  # a sample of exactly P ago still counts
    windows = np.lib.stride_tricks.sliding_window_view(np.r_[np.full(count - 1, np.nan), values], count)
    means, maxima = np.nanmean(windows, axis=1), np.nanmax(windows, axis=1)
    part = max(int(HORIZON / 2 / interval + 1e-9) // 3, 1)
    low, middle, high = (np.r_[np.full(parts * part, np.nan), values[: -parts * part]] for parts in (3, 2, 1))
    least = np.minimum(middle - low, high - middle)
    last = np.minimum(values - high, 12 * least - (high - low))
    total, reached = high - low + last, high + last
    coming = (least > 0) & (last > 0) & (12 * last > total)
    coming &= (reached >= TARGET) & ((100 - reached) * 3 * part * interval <= HORIZON * total)
    observed = times - times[0] > PERIOD / 2 - interval / 2
    pressed = np.zeros(len(values), bool)
    level = capacity = False
    seen = -np.inf
    for place, now in enumerate(times):
        if observed[place] and values[place] > LIMIT and means[place] > TARGET:
            level = True
        elif maxima[place] < TARGET:
            level = False
        if observed[place] and coming[place]:
            seen = now
        capacity = values[place] >= BRIM or (capacity and maxima[place] >= BRIM)
        pressed[place] = level or capacity or now - seen <= PERIOD + interval / 2
    return Told(times, pressed, len(trace) * GRID_SECONDS)


def _looked_at(trace: Floats, start: float, interval: float) -> tuple[Floats, Floats]:
    times = np.arange(start, len(trace) * GRID_SECONDS - GRID_SECONDS / 2, interval)
    return times, trace[np.round(times / GRID_SECONDS).astype(int)]


def version_2(trace: Floats, start: float, interval: float, *, adaptive: bool) -> Told:
    """Return what the kernel and the schedule of a sampler say."""
    engine = Engine(hz=1 / interval)
    record, decider = engine.record, engine.decider
    values, schedule = record["values"][0], Schedule(round(start * 1e9), round(interval * 1e9))
    times, pressed = [], []
    while (place := round(schedule.due_ns / 1e9 / GRID_SECONDS)) < len(trace):
        now_ns = schedule.due_ns
        schedule.take_turn(now_ns)
        while now_ns and (place := round(now_ns / 1e9 / GRID_SECONDS)) < len(trace):
            values[0] = trace[place] * MEBIBYTE
            record["mono_ns"], record["verdict"] = START_NS + now_ns, 0
            decider.decide(record)
            times.append(now_ns / 1e9)
            pressed.append(int(record["verdict"][0]) >> 32 & 3 >= Level.PRUNE)
            now_ns = schedule.between_ns(now_ns, decider.wait_seconds) if adaptive else 0
    return Told(np.array(times), np.array(pressed), len(trace) * GRID_SECONDS)


def both(kind: Kind, interval: float, *, adaptive: bool) -> tuple[list[Told], list[Told]]:
    """Return what version 1 and version 2 say of the same traces; version 1 never samples adaptively."""
    old, new = [], []
    for seed in SEEDS:
        random = np.random.default_rng([seed, *kind.name.encode()])
        trace, start = kind.of(random), float(random.integers(round(interval / GRID_SECONDS))) * GRID_SECONDS
        old.append(version_1(trace, start, interval))
        new.append(version_2(trace, start, interval, adaptive=adaptive))
    return old, new


# -- the traces


def _shape(*parts: tuple[float, float, float]) -> Floats:
    """Return (from, to, seconds) parts one after the other, on the grid."""
    return np.concatenate([np.linspace(a, b, round(lasts / GRID_SECONDS), endpoint=False) for a, b, lasts in parts])


def _noisy(shape: Floats, sigma: float, random: np.random.Generator) -> Floats:
    return np.clip(shape + random.normal(0, sigma, len(shape)), 0, 100)


def ramp(percent_per_second: float, *, step_to: float = 0.0) -> Kind:
    """Return calm, perhaps a step, then a rise to the end of the capacity."""

    def of(random: np.random.Generator) -> Floats:
        calm = random.uniform(50, 60)
        first = step_to or calm
        shape = _shape((calm, calm, CALM_SECONDS), (first, 100, (100 - first) / percent_per_second))
        return _noisy(shape, 0.3, random)

    return Kind(f"{'a step to 75, then ' if step_to else ''}{percent_per_second:g} % a second", of)


def exponential(doubling_seconds: float) -> Kind:
    """Return calm, then growth above it that doubles each so many seconds."""

    def of(random: np.random.Generator) -> Floats:
        calm = random.uniform(45, 55)
        times = np.arange(0, np.log2(100 - calm + 1) * doubling_seconds, GRID_SECONDS)
        grown = calm - 1 + 2 ** (times / doubling_seconds)
        return _noisy(np.r_[_shape((calm, calm, CALM_SECONDS)), grown], 0.3, random)

    return Kind(f"growth that doubles each {doubling_seconds:g} s", of)


def plateau(level: float, sigma: float, *, spikes: bool = False) -> Kind:
    """Return a level for 300 s; with *spikes*, one of a second to 93-95 each half minute."""

    def of(random: np.random.Generator) -> Floats:
        trace = _noisy(_shape((level, level, 300.0)), sigma, random)
        for second in range(15, 300, 30) if spikes else ():
            first = round((second + random.uniform(0, 10)) / GRID_SECONDS)
            trace[first : first + round(1 / GRID_SECONDS)] = random.uniform(93, 95)
        return trace

    return Kind(f"plateau at {level:g} +-{sigma:g}{', spikes to 93-95' if spikes else ''}", of)


def steps() -> Kind:
    """Return steps up and down between 50 and 90, each for 20 s."""

    def of(random: np.random.Generator) -> Floats:
        levels = random.uniform(50, 90, 15)
        return _noisy(_shape(*((one, one, 20.0) for one in levels)), 0.3, random)

    return Kind("steps between 50 and 90", of)


def sawtooth(low: float, high: float, seconds: float) -> Kind:
    """Return a garbage collector's sawtooth for 300 s."""
    teeth = round(300 / seconds)
    return Kind(
        f"sawtooth {low:g} to {high:g} each {seconds:g} s",
        lambda random: _noisy(_shape(*[(low, high, seconds)] * teeth), 0.2, random),
    )


def stopping(percent_per_second: float) -> Kind:
    """Return a rise that stops at 89 and stays there."""
    rise = (60.0, 89.0, 29 / percent_per_second)
    return Kind(
        f"{percent_per_second:g} % a second that stops at 89",
        lambda random: _noisy(_shape((60, 60, CALM_SECONDS), rise, (89, 89, 60.0)), 0.3, random),
    )


def lasting(name: str, *parts: tuple[float, float, float], sigma: float) -> Kind:
    """Return calm, then pressure that stays for 120 s."""
    return Kind(name, lambda random: _noisy(_shape((60, 60, CALM_SECONDS), *parts), sigma, random))


ENDING = (
    *map(ramp, (2, 5, 10, 20, 30, 60)),
    ramp(2, step_to=75),
    *map(exponential, (1, 3, 10)),
)
HARMLESS = (
    plateau(89, 0.5),
    plateau(88, 1.5),
    plateau(89, 0.5, spikes=True),
    steps(),
    sawtooth(60, 85, 10),
    sawtooth(60, 90, 20),
    sawtooth(70, 90, 5),
    stopping(3),
    stopping(8),
)
LASTING = (
    lasting("a step to 93.5 +-0.3", (93.5, 93.5, 120), sigma=0.3),
    lasting("hovering at 92 +-2", (92, 92, 120), sigma=2.0),
    lasting("95 and 79 in turns of 2 s", *[(95, 95, 2.0), (79, 79, 2.0)] * 30, sigma=0.2),
)


# -- the tables


def ending_row(kind: Kind, rate: Rate) -> str:
    """Return the line of a rise to the end: how often was it told before, and how long before?"""
    in_time, leads = [], []
    for version in both(kind, rate[1], adaptive=rate[2]):
        lead = [max(told.end - told.first, 0.0) if told.first >= CALM_SECONDS else 0.0 for told in version]
        in_time.append(sum(one > 0 for one in lead))
        leads.append(round(statistics.median(lead), 2))
    worse = in_time[1] < in_time[0] or leads[1] < leads[0]
    numbers = f"{in_time[0]} | {in_time[1]} | {leads[0]:.2f} s | {leads[1]:.2f} s"
    return f"| {kind.name} | {rate[0]} | {numbers} | {_worse(worse)} |"


def harmless_row(kind: Kind, rate: Rate) -> str:
    """Return the line of a trace that comes to nothing: for how long was it pressed?"""
    old, new = (round(sum(told.pressed_seconds for told in v)) for v in both(kind, rate[1], adaptive=rate[2]))
    whole = round(len(SEEDS) * len(kind.of(np.random.default_rng(0))) * GRID_SECONDS)
    return f"| {kind.name} | {rate[0]} | {whole} s | {old} s | {new} s | {_worse(new > old)} |"


def lasting_row(kind: Kind, rate: Rate) -> str:
    """Return the line of pressure that stays: how soon was it told, and in how many episodes?"""
    delays, episodes = [], []
    for version in both(kind, rate[1], adaptive=rate[2]):
        delays.append(round(statistics.median(told.first for told in version) - CALM_SECONDS, 1))
        episodes.append(statistics.mean(told.episodes for told in version))
    worse = delays[1] > delays[0] or episodes[1] > episodes[0]
    numbers = f"{delays[0]:.1f} s | {delays[1]:.1f} s | {episodes[0]:.2g} | {episodes[1]:.2g}"
    return f"| {kind.name} | {rate[0]} | {numbers} | {_worse(worse)} |"


def _worse(is_worse: bool) -> str:
    return "**worse**" if is_worse else ""


RowOf = Callable[[Kind, Rate], str]
ENDING_HEAD = f"""Rises to the end of the capacity, {len(SEEDS)} seeds each: how many were told before it, and how long
before in the median (0 where it was too late).

| | sampled | in time, 1 | in time, 2 | lead, 1 | lead, 2 | version 2 is |
|---|---|---:|---:|---:|---:|---|"""
HARMLESS_HEAD = f"""What comes to nothing, {len(SEEDS)} seeds each: for how many seconds it was pressed.

| | sampled | of | version 1 | version 2 | version 2 is |
|---|---|---:|---:|---:|---|"""
LASTING_HEAD = f"""Pressure that stays for 120 s, {len(SEEDS)} seeds each: how soon it was told in the median, and how
many episodes in the mean.

| | sampled | after, 1 | after, 2 | episodes, 1 | episodes, 2 | version 2 is |
|---|---|---:|---:|---:|---:|---|"""
TABLES: tuple[tuple[str, tuple[Kind, ...], RowOf], ...] = (
    (ENDING_HEAD, ENDING, ending_row),
    (HARMLESS_HEAD, HARMLESS, harmless_row),
    (LASTING_HEAD, LASTING, lasting_row),
)


def lines() -> Iterator[str]:
    """Yield the tables, line by line."""
    for head, kinds, row in TABLES:
        yield f"\n{head}"
        for kind in kinds:
            for rate in RATES:
                yield row(kind, rate)


def main(arguments: list[str]) -> int:
    """Write the tables into the page that *arguments* name; return the exit status."""
    if len(arguments) != 1:
        print(__doc__, file=sys.stderr)
        return 2
    logging.disable(logging.WARNING)  # a line for each episode of each trace
    page = Path(arguments[0])
    before, _, rest = page.read_text(encoding="utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    tables = "\n".join(lines())
    page.write_text(f"{before}{BEGIN}{tables}\n\n{END}{after}", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
