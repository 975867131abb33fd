"""Decide again over a recorded trace: the kernels that the sampler runs, over yesterday's readings."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import numpy as np

from shm_monitor.decision.decider import Tables, Track
from shm_monitor.decision.rules import LimitConfig, Rule, rules
from shm_monitor.errors import TraceError
from shm_monitor.kernels import decide as step
from shm_monitor.segment.flags import BETWEEN
from shm_monitor.traces.binary import Trace, read_trace
from shm_monitor.traces.episodes import Report
from shm_monitor.traces.outcome import Replayed
from shm_monitor.traces.text import read_csv

_CHUNK = 20_000  # samples between two reports of progress: some 30 ms
_LONG_COUNT = 1_000_000  # samples that take seconds


class ReplayConfig(LimitConfig, Protocol):
    """The settings that decide; ``shm_monitor.config.resource.ResourceConfig`` has them."""

    @property
    def observation_period(self) -> float: ...
    @property
    def forecast_horizon(self) -> float: ...


def load(path: str | Path) -> Trace:
    """Return the trace in the file *path*, as ``shm-monitor record`` wrote it, or a table of text (``.csv``).

    Raises:
        TraceError: it can be read as neither; it says where.
        OSError: the file cannot be read.
    """
    return read_csv(path) if Path(path).suffix.lower() == ".csv" else read_trace(path)


@contextmanager
def progress_bar(samples_count: int) -> Iterator[Callable[[int], object] | None]:
    """Yield what shows progress on a terminal over a trace of *samples_count*; None where it would only flicker.

    Without tqdm there is no bar: it is never worth an error.
    """
    if samples_count < _LONG_COUNT or not sys.stderr.isatty():
        yield None
        return
    try:
        from tqdm import tqdm  # type: ignore[import-untyped]
    except ImportError:
        yield None
        return
    with tqdm(total=samples_count, unit=" samples", unit_scale=True, leave=False) as bar:
        yield bar.update


def replay(trace: Trace, config: ReplayConfig, *, progress: Callable[[int], object] | None = None) -> Report:
    """Return what *config* decides over *trace*; see ``decide_over``."""
    return decide_over(trace, config, progress=progress).report()


def decide_over(
    trace: Trace, config: ReplayConfig, *, progress: Callable[[int], object] | None = None, compiled: bool = True
) -> Replayed:
    """Return the decisions of *config* over *trace*, bit for bit those of a sampler that began with it.

    A day at 1 Hz takes 0.1 s once the kernel is compiled (4 s the first time on a machine).

    Args:
        trace: the readings.
        config: the settings to try.
        progress: called with the number of samples done since the last call.
        compiled: whether the kernel is compiled first; a few thousand decisions take less time than that.

    Raises:
        TraceError: the trace is empty, or *config* limits nothing that is in it.
    """
    found = rules(config, trace.table.metrics, devices=trace.table.devices)
    chosen = tuple(rule for rule in found if not math.isnan(rule.target))  # those that are not switched off
    if not len(trace) or not chosen:
        seen = "it has no limit in this configuration" if len(trace) else "it has no sample yet"
        allowed = "limits are on memory.usage_bytes, cpu.cpu_percent, network.usage_bytes_per_second, gpu:N.…_percent"
        what = (
            allowed
            if len(trace)
            else "its recorder was killed before the first one; record on with: shm-monitor record"
        )
        raise TraceError(trace.source or "the trace", seen, what)
    if compiled:
        step.RUN.compile()
    run = _Run(trace, config, chosen)
    for start in range(0, len(trace), _CHUNK):
        stop = min(start + _CHUNK, len(trace))
        run.take(start, stop)
        if progress is not None:
            progress(stop - start)
    return run.result()


class _Run:
    """The arrays of one replay."""

    def __init__(self, trace: Trace, config: ReplayConfig, chosen: tuple[Rule, ...]) -> None:
        count = len(trace)
        self._trace, self._rules, self._period_seconds = trace, chosen, config.observation_period
        self._readings = (trace.times_ns.astype(np.uint64), np.ascontiguousarray(trace.values))
        self._tables = Tables.of(
            chosen, period_seconds=config.observation_period, horizon_seconds=config.forecast_horizon
        )
        self._track = Track.fresh(len(chosen))
        self._words = np.zeros((count, len(chosen)), np.uint64)
        self._verdicts = trace.verdicts & np.uint64(BETWEEN)
        self._bars = np.full((count, len(chosen), step.BARS_WIDTH), np.nan)

    def take(self, start: int, stop: int) -> None:
        """Decide over the samples *start* to *stop* - 1."""
        results = (self._words, self._verdicts, self._bars)
        step.RUN.run(*self._readings, start, stop, *self._tables, *self._track, *results)

    def result(self) -> Replayed:
        """Return what was decided."""
        return Replayed(self._trace, self._rules, self._period_seconds, self._words, self._verdicts, self._bars)
