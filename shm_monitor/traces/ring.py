"""The ring of a sampler as a trace: what it has measured, what it has decided, and what it is told to obey."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from shm_monitor.config.resource import ResourceConfig
from shm_monitor.decision.rules import MEBIBYTE, rules
from shm_monitor.errors import ConfigError, TraceError
from shm_monitor.kernels import decide as step
from shm_monitor.kernels.compiled import has_compiler
from shm_monitor.schema import TRACK_FIELDS
from shm_monitor.segment import layout
from shm_monitor.segment.flags import LEVEL_SHIFT, REASONS_SHIFT
from shm_monitor.traces.binary import Table, Trace
from shm_monitor.traces.outcome import Replayed
from shm_monitor.traces.replay import decide_over
from shm_monitor.traces.what_if import SETTINGS, WhatIf, env_line

if TYPE_CHECKING:
    from collections.abc import Mapping

    from shm_monitor.segment.view import Sample, View

Array = NDArray[np.float64]

SAMPLES_MAX = 20_000  # of a ring are looked at: 0.3 s to read, and five hours at 1 Hz
_INTERPRETED_MAX = 4_000  # samples times limits: 0.3 s, less than it takes to load numba
_WITHOUT_COMPILER_MAX = 20_000  # of them: 1.5 s
_DEFAULT_SHARE = 0.9  # of a capacity, where no limit is set: docs/decisions.md
_TOLD = step.EPISODES + 1  # columns of a track, the first of which are level, reasons, limit, target and capacity


class Ring(NamedTuple):
    """What the ring of one sampler has: n samples, and K limits that are set.

    Args:
        trace: its samples.
        done: what was decided over them.
        config: the settings that decide, as its sampler obeys them now. A segment does not tell the horizon of the
            forecast, so that is the default.
    """

    trace: Trace
    done: Replayed
    config: ResourceConfig


def ring_of(view: View) -> Ring:
    """Return the ring of *view*, its newest 20,000 samples at most; fewer of many limits where no compiler is.

    Raises:
        TraceError: its sampler limits nothing.
        SegmentError: not one sample could be read whole.
    """
    limits = view.schema.limits
    kept = SAMPLES_MAX if has_compiler() else min(SAMPLES_MAX, _WITHOUT_COMPILER_MAX // max(len(limits), 1))
    trace, states = _read(view, kept)
    named = dict(zip((limit.name for limit in limits), states[-1], strict=True))
    config = _config_of(view, trace, named)
    found = {rule.limit.name: rule for rule in rules(config, trace.table.metrics, devices=trace.table.devices)}
    places = [at for at, (name, state) in enumerate(named.items()) if name in found and state[step.LIMIT] > 0]
    if not places:
        raise TraceError(view.name, "its sampler limits nothing", "start one with a limit, such as MAX_MEMORY_USAGE_MB")
    chosen = tuple(found[limits[place].name] for place in places)
    known = np.nan_to_num(states[:, places, : step.REASONS + 1]).astype(np.uint64)
    words = (known[:, :, step.LEVEL] & np.uint64(3)) << np.uint64(LEVEL_SHIFT)
    words |= known[:, :, step.REASONS] << np.uint64(REASONS_SHIFT)
    bars = np.ascontiguousarray(states[:, places][:, :, step.BARS])
    return Ring(trace, Replayed(trace, chosen, config.observation_period, words, trace.verdicts, bars), config)


def what_if(ring: Ring, settings: Mapping[str, float]) -> WhatIf:
    """Return what *settings*, and for the rest those that hold, would have decided over *ring*.

    Raises:
        ConfigError: a setting that decides nothing, or a value that no configuration takes.
    """
    known = {key: getattr(ring.config, key) for key in SETTINGS}
    stray = next((key for key in settings if key not in known), None)
    if stray is not None:
        raise ConfigError(stray, settings[stray], "argument", f"must be one of {', '.join(SETTINGS)}")
    interval = ring.config.check_interval
    tried = ResourceConfig(**{**known, **settings, "check_interval": interval})
    many = len(ring.trace) * len(ring.done.rules) > _INTERPRETED_MAX
    return WhatIf(
        begin_time=float(ring.trace.realtime_ns[0]) / 1e9,
        settings={key: getattr(tried, key) for key in SETTINGS},
        env=tuple(env_line(key, settings[key]) for key in SETTINGS if key in settings),
        was=ring.done.report(),
        would=decide_over(ring.trace, tried, compiled=many).report(),
    )


def _read(view: View, kept: int) -> tuple[Trace, Array]:
    """Return the newest *kept* samples, and what was told of each limit in them, shape (n, limits, _TOLD)."""
    schema, slot = view.schema, view.slot
    table = Table.of(view)
    places = [schema.places[metric.name] for metric in table.metrics]
    columns = [schema.track_fields.index(name) if name in schema.track_fields else -1 for name in TRACK_FIELDS[:_TOLD]]
    newest = view.sample()
    heads, values, states = [], [], []
    for sample in [*view.samples(after=max(newest.number - kept, 0))] or [newest]:
        heads.append((sample.mono_ns, sample.realtime_ns, sample.verdict))
        values.append(_numbers(sample, slot.values, slot.metric_count)[places])
        given = _numbers(sample, slot.limits, slot.limit_count * slot.track_width).reshape(slot.limit_count, -1)
        states.append(np.where(np.array(columns) < 0, np.nan, given[:, columns]))
    words = np.array(heads, np.uint64)
    trace = Trace(
        table, words[:, 0].astype(np.int64), words[:, 1], words[:, 2].copy(), np.array(values), source=view.name
    )
    return trace, np.array(states)


def _numbers(sample: Sample, offset: int, count: int) -> Array:
    return np.frombuffer(sample.data, "<f8", count, offset)


def _config_of(view: View, trace: Trace, states: Mapping[str, Array]) -> ResourceConfig:
    """Return the settings that decide, as the newest *states* show them; by the name of each limit, shape (_TOLD,)."""
    interval = trace.interval_seconds
    period = view.word(layout.PERIOD_OFFSET) / 1e9 or ResourceConfig().observation_period
    targets = [float(state[step.TARGET] / state[step.LIMIT]) for state in states.values() if state[step.TARGET] > 0]
    memory = _memory_limit(trace, states)
    return ResourceConfig(
        check_interval=interval,
        observation_period=max(period, interval),
        target_utilization=min(round(targets[0], 9), 1.0) if targets else ResourceConfig().target_utilization,
        max_memory_usage_mb=None if memory is None else memory / MEBIBYTE,
        max_cpu_usage_percent=_limit(states, "cpu"),
        max_network_usage_bytes_per_second=_limit(states, "network"),
        max_gpu_usage_percent=_limit(states, "gpu:"),
        max_gpu_memory_percent=_limit(states, "gpu-memory:"),
    )


def _limit(states: Mapping[str, Array], start: str) -> float | None:
    """Return the limit of the first whose name begins with *start*; None where none is set."""
    found = [float(state[step.LIMIT]) for name, state in states.items() if name.startswith(start)]
    return found[0] if found and found[0] > 0 else None


def _memory_limit(trace: Trace, states: Mapping[str, Array]) -> float | None:
    """Return the limit in bytes of the innermost level of memory that has one; None where that is the default."""
    levels = [rule for rule in rules(ResourceConfig(), trace.table.metrics) if rule.limit.name in states]
    depths = {rule.limit.name: 0.0 if math.isnan(rule.depth) else rule.depth for rule in levels if rule.urgent}
    limited = [name for name in depths if states[name][step.LIMIT] > 0]
    if not limited:
        return None
    state = states[min(limited, key=lambda name: depths[name])]
    limit, default = float(state[step.LIMIT]), _DEFAULT_SHARE * float(state[step.CAPACITY])
    return None if math.isclose(limit, default, rel_tol=1e-9) else limit
