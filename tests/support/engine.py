"""The real Rolling and Decider over a private ring, fed by hand: time moves by itself, nothing sleeps."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from shm_monitor.decision.decider import Decider
from shm_monitor.decision.rules import MEBIBYTE, rules
from shm_monitor.kernels import Rolling, of_one_sample
from shm_monitor.schema import TRACK_FIELDS, Level, Metric, Reason
from shm_monitor.segment.flags import BETWEEN, reasons_of

START_NS = 86_400 * 10**9  # a machine that has been up for a day


@dataclass(frozen=True)
class Settings:
    """What rules() asks of a configuration; the numbers of the trace table: L = 92, T = 87, P = 10 s."""

    enabled: bool = True
    target_utilization: float = 0.945
    max_memory_usage_mb: float | None = 92.0
    max_cpu_usage_percent: float | None = None
    max_gpu_usage_percent: float | None = None
    max_gpu_memory_percent: float | None = None
    max_network_usage_bytes_per_second: float | None = None
    observation_period: float = 10.0
    forecast_horizon: float = 4.0


def metric(group: str, name: str, *, instance: str = "", rolled: bool = False) -> Metric:
    """Return a metric whose unit is what ends its name."""
    unit = "bytes_per_second" if name.endswith("bytes_per_second") else name.rpartition("_")[2]
    return Metric(group, name, unit, "a number", "a test", instance=instance, rolled=rolled)


MEMORY = (
    metric("memory", "usage_bytes", rolled=True),
    metric("memory", "capacity_bytes"),
    metric("memory", "reclaim_events_count"),
    metric("memory", "oom_events_count"),
)


def sample_dtype(metrics: int, rolled: int, limits: int) -> np.dtype[np.void]:
    """Return the type of a slot of the ring."""
    return np.dtype(
        [(name, "<u8") for name in ("number", "epoch", "mono_ns", "realtime_ns", "verdict")]
        + [("values", "<f8", (metrics,))]
        + [(name, "<f8", (rolled,)) for name in ("means", "maxima", "slopes")]
        + [("limits", "<f8", (limits, len(TRACK_FIELDS))), ("crc", "<u8"), ("number_end", "<u8")]
    )


@dataclass
class Engine:
    """A sampler without a clock and without a segment, whose kernels are compiled where numba is installed.

    Args:
        settings: the limits.
        metrics: the rolled ones first.
        hz: samples per second.
        slots: of the ring; 0 is what the period needs.
    """

    settings: Settings = field(default_factory=Settings)
    metrics: Sequence[Metric] = MEMORY
    hz: float = 1.0
    slots: int = 0

    def __post_init__(self) -> None:
        for kernel in of_one_sample():
            kernel.compile()
        self.rules = rules(self.settings, self.metrics)
        rolled = sum(one.rolled for one in self.metrics)
        dtype = sample_dtype(len(self.metrics), rolled, len(self.rules))
        self.ring = np.zeros(self.slots or int(self.settings.observation_period * self.hz) + 16, dtype)
        self.record = np.zeros(1, dtype)
        self.places = {one.name: place for place, one in enumerate(self.metrics)}
        self.number, self.now_ns = 0, START_NS - round(1e9 / self.hz)
        self.times: list[float] = []
        self.verdicts: list[int] = []
        self.words: list[list[int]] = []
        self.tracks: list[NDArray[np.float64]] = []
        self.record["values"] = np.nan
        if "memory.capacity_bytes" in self.places:
            self.set("memory.capacity_bytes", 100 * MEBIBYTE)
        self.restart()

    def restart(self, settings: Settings | None = None, *, take_over: bool = False) -> None:
        """Start the sampler anew, with the history or without."""
        self.settings = settings or self.settings
        self.rules = rules(self.settings, self.metrics)
        period = self.settings.observation_period
        urgent = [one.group == "memory" for one in self.metrics if one.rolled]
        self.rolling = Rolling(self.ring, rolled=len(urgent), period_seconds=period, urgent=urgent)
        self.decider = Decider(self.rules, period_seconds=period, horizon_seconds=self.settings.forecast_horizon)
        if take_over:
            self.rolling.rebuild(self.number)
            self.decider.resume(self.ring, self.number)
        else:
            self.ring["number"] = 0

    def set(self, name: str, value: float) -> None:
        """Let the metric *name* read *value* from the next sample on."""
        self.record["values"][0, self.places[name]] = value

    def sample(self, *, at_ns: int | None = None, between: bool = False) -> None:
        """Take one sample, an interval after the last one or at *at_ns*, as a sampler does; *between* two turns?"""
        self.number += 1
        self.now_ns = self.now_ns + round(1e9 / self.hz) if at_ns is None else at_ns
        self.record["number"] = self.record["number_end"] = self.number
        self.record["mono_ns"] = self.now_ns
        self.record["verdict"] = between * BETWEEN
        self.rolling.advance(self.record)
        self.decider.decide(self.record)
        self.record["verdict"] |= np.uint64(between * BETWEEN)
        self.ring[self.number % len(self.ring)] = self.record[0]
        self.times.append((self.now_ns - START_NS) / 1e9)
        self.verdicts.append(int(self.record["verdict"][0]) & ~BETWEEN)
        self.words.append([int(word) for word in self.decider.words])
        self.tracks.append(self.record["limits"][0].copy())

    def skip(self, seconds: float) -> None:
        """Let time pass without a sample."""
        self.now_ns += round(seconds * 1e9)

    def feed(self, percents: Iterable[float], name: str = "memory.usage_bytes") -> Engine:
        """Take a sample for each of *percents*: of 100 MB for memory, else the value itself."""
        scale = MEBIBYTE if name.endswith("bytes") else 1
        for percent in percents:
            self.set(name, percent * scale)
            self.sample()
        return self

    @property
    def levels(self) -> list[Level]:
        """The overall level of each sample so far."""
        return [Level(verdict >> 32 & 3) for verdict in self.verdicts]

    @property
    def reasons(self) -> list[Reason]:
        """All reasons of each sample so far."""
        return [Reason(reasons_of(verdict)) for verdict in self.verdicts]

    @property
    def pressed(self) -> NDArray[np.bool_]:
        """Whether each sample so far asks to prune."""
        return np.array([level >= Level.PRUNE for level in self.levels])

    @property
    def transitions(self) -> list[float]:
        """The times at which pressed began or ended, seconds from the first sample."""
        edges = np.flatnonzero(np.diff(np.concatenate([[False], self.pressed]).astype(int)))
        return [self.times[edge] for edge in edges]

    def first(self, level: Level) -> float:
        """The time of the first sample at *level* or above; infinite when there is none."""
        return next((time for time, seen in zip(self.times, self.levels, strict=True) if seen >= level), np.inf)

    def levels_of(self, name: str) -> list[Level]:
        """The level of the limit *name* in each sample so far."""
        place = [rule.limit.name for rule in self.rules].index(name)
        return [Level(words[place] >> 32 & 3) for words in self.words]

    def reasons_of(self, name: str) -> list[Reason]:
        """The reasons of the limit *name* in each sample so far."""
        place = [rule.limit.name for rule in self.rules].index(name)
        return [Reason(reasons_of(words[place])) for words in self.words]

    def track(self, field_name: str, limit: int = 0) -> float:
        """One number of the newest published track."""
        return float(self.tracks[-1][limit, TRACK_FIELDS.index(field_name)])
