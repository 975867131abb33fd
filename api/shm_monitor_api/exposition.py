"""Prometheus series of the newest sample: base units, ratios, and nothing at all for what is unknown.

Source: https://prometheus.io/docs/practices/naming/
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from prometheus_client import Metric
from prometheus_client import generate_latest as prometheus_text
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.openmetrics.exposition import generate_latest as openmetrics_text
from prometheus_client.registry import Collector

import shm_monitor as sm
from shm_monitor_api.negotiation import METRICS_FORMATS, OPENMETRICS, PROMETHEUS, chosen
from shm_monitor_api.readings import Reading

PREFIX = "shm_monitor_"
_ENCODERS: dict[str, tuple[Callable[[Collector], bytes], str]] = {
    PROMETHEUS: (prometheus_text, "text/plain; version=0.0.4; charset=utf-8"),
    OPENMETRICS: (openmetrics_text, "application/openmetrics-text; version=1.0.0; charset=utf-8"),
}
LEVELS = {level.text: int(level) for level in sm.Level}
LATE_INTERVALS = 3  # without a success for as long, a collector whose readings are missing counts as failing
LATE_SECONDS_MIN = 2.0

Row = tuple[tuple[str, ...], float | int | None]


class SampleCollector(Collector):
    """Hands one sample to prometheus-client's encoders; made anew for each, so no series outlives its device."""

    def __init__(self, snapshot: sm.Snapshot) -> None:
        self._snapshot = snapshot

    def collect(self) -> Iterable[Metric]:
        """Return the families that have a known value."""
        return families(self._snapshot)


def exposition(reading: Reading, accept: str) -> tuple[bytes, str]:
    """Return the text of *reading* and its media type: OpenMetrics where *accept* names it, else Prometheus' own."""
    # prometheus-client's choose_encoder takes the version as the client spells it, into the answer's header too.
    encode, media = _ENCODERS[chosen(accept, METRICS_FORMATS) or PROMETHEUS]
    body = reading.bodies.get(media)
    if body is None:
        body = reading.bodies[media] = encode(SampleCollector(reading.snapshot))
    return body, media


def families(snapshot: sm.Snapshot) -> Iterator[Metric]:
    """Yield every family of *snapshot* that has a value; of a dead sampler only when it last sampled."""
    yield from _gauge("sampler_live", "Whether a live sampler stands behind these series.", [((), not snapshot.stale)])
    stamp = "When the newest sample was taken, in unix seconds."
    yield from _gauge("sample_timestamp_seconds", stamp, [((), snapshot.sampled_at)])
    if not snapshot.stale:
        for part in (_cpu_and_memory, _stall, _traffic, _gpus, _limits, _sampler):
            yield from part(snapshot)


def _cpu_and_memory(snapshot: sm.Snapshot) -> Iterator[Metric]:
    memory, scope = snapshot.memory, snapshot.memory.scope or "unknown"
    yield from _gauge(
        "cpu_utilization_ratio", "CPU use over what may be used.", [((), _ratio(snapshot.cpu.cpu_percent))]
    )
    used = [((scope,), memory.usage_bytes)]
    total = [((scope,), memory.capacity_bytes)]
    if scope != "host":
        used.append((("host",), _difference(memory.host_total_bytes, memory.host_available_bytes)))
        total.append((("host",), memory.host_total_bytes))
    yield from _gauge("memory_usage_bytes", "Memory that cannot be reclaimed, of a scope.", used, ("scope",))
    yield from _gauge("memory_capacity_bytes", "Memory that there is, of a scope.", total, ("scope",))


def _stall(snapshot: sm.Snapshot) -> Iterator[Metric]:
    one = snapshot.stall
    waiting = [("cpu", one.cpu_some_seconds), ("memory", one.memory_some_seconds), ("io", one.io_some_seconds)]
    stalled = [("cpu", one.cpu_full_seconds), ("memory", one.memory_full_seconds), ("io", one.io_full_seconds)]
    for name, text, found in (
        ("pressure_waiting_seconds", "Time in which some task waited for a resource (PSI).", waiting),
        ("pressure_stalled_seconds", "Time in which all tasks waited for a resource (PSI).", stalled),
    ):
        yield from _counter(name, text, [((resource,), value) for resource, value in found], ("resource",))


def _traffic(snapshot: sm.Snapshot) -> Iterator[Metric]:
    devices = snapshot.disk.devices.items()
    interfaces = snapshot.network.interfaces.items()
    for name, text, found in (
        ("disk_read_bytes", "Bytes read from a block device.", [((n,), d.read_bytes_count) for n, d in devices]),
        ("disk_written_bytes", "Bytes written to a block device.", [((n,), d.write_bytes_count) for n, d in devices]),
        (
            "network_receive_bytes",
            "Bytes received on an interface.",
            [((n,), i.receive_bytes_count) for n, i in interfaces],
        ),
        (
            "network_transmit_bytes",
            "Bytes sent on an interface.",
            [((n,), i.transmit_bytes_count) for n, i in interfaces],
        ),
    ):
        yield from _counter(name, text, found, ("device",))


def _gpus(snapshot: sm.Snapshot) -> Iterator[Metric]:
    labels = ("gpu", "uuid")
    gpus = [((gpu.instance, gpu.uuid), gpu) for gpu in snapshot.gpus]
    for name, text, rows in (
        ("utilization_ratio", "Time in which a kernel ran.", [(key, _ratio(g.utilization_percent)) for key, g in gpus]),
        ("memory_used_bytes", "Memory in use.", [(key, g.memory_used_bytes) for key, g in gpus]),
        ("memory_total_bytes", "Memory that there is.", [(key, g.memory_total_bytes) for key, g in gpus]),
        ("temperature_celsius", "Temperature.", [(key, g.temperature_celsius) for key, g in gpus]),
        ("power_watts", "Power drawn.", [(key, g.power_watts) for key, g in gpus]),
    ):
        yield from _gauge(f"gpu_{name}", f"{text[:-1]}, of a GPU.", rows, labels)
    holding = [((*key, reason), 1) for key, gpu in gpus for reason in gpu.throttle_reasons or ()]
    text = "1 for each reason that holds the clocks of a GPU down now; no series for one that does not."
    yield from _gauge("gpu_throttle_active", text, holding, (*labels, "reason"))
    names = [((*key, gpu.name, gpu.memory_kind), 1) for key, gpu in gpus]
    yield from _gauge("gpu_info", "A GPU or MIG instance.", names, (*labels, "name", "memory_kind"))


def _limits(snapshot: sm.Snapshot) -> Iterator[Metric]:
    levels = [((one.limit,), LEVELS.get(one.level)) for one in snapshot.limits]
    yield from _gauge("limit_level", "What a limit asks: 0 ok, 1 warn, 2 prune, 3 critical.", levels, ("limit",))
    yield from _gauge("prune_active", "Whether work should be shed now.", [((), snapshot.should_prune)])
    episodes = [((one.limit, reason), count) for one in snapshot.limits for reason, count in one.episodes.items()]
    text = "How often a reason to shed work was set, since the sampler started."
    yield from _counter("prune_episodes", text, episodes, ("limit", "reason"))


def _sampler(snapshot: sm.Snapshot) -> Iterator[Metric]:
    one = snapshot.sampler
    yield from _gauge("sample_duration_seconds", "How long a sample took.", [((), one.sample_duration_seconds)])
    yield from _gauge("sampler_resident_bytes", "Resident memory of the sampler.", [((), one.rss_bytes)])
    yield from _counter("sampler_cpu_seconds", "CPU time of the sampler.", [((), one.cpu_seconds)])
    label = ("collector",)
    success = [((name,), works) for name, works in _successes(snapshot)]
    yield from _gauge("collector_success", "Whether a collector can read what it is for.", success, label)
    errors = [((name,), state.errors_count) for name, state in one.collectors.items()]
    yield from _counter("collector_errors", "Failures and time-outs of a collector.", errors, label)
    seconds = [((name,), state.duration_seconds) for name, state in one.collectors.items()]
    yield from _gauge("collector_duration_seconds", "How long the newest call of a collector took.", seconds, label)


def _successes(snapshot: sm.Snapshot) -> Iterator[tuple[str, bool]]:
    """Yield each collector and whether it works: late alone is no failure, for some have a slower cadence."""
    failing = {name.replace(":", ".").partition(".")[0] for name, why in snapshot.unavailable.items() if why in _FAILED}
    late = max(LATE_INTERVALS * snapshot.interval_seconds, LATE_SECONDS_MIN) + snapshot.age_seconds
    for name, state in snapshot.sampler.collectors.items():
        age = state.last_ok_age_seconds
        yield name, age is not None and (age <= late or name not in failing)


_FAILED = frozenset({"error", "timeout"})


def _ratio(percent: float | None) -> float | None:
    return None if percent is None else percent / 100


def _difference(whole: int | None, part: int | None) -> int | None:
    return None if whole is None or part is None else whole - part


def _gauge(name: str, text: str, rows: Iterable[Row], labels: tuple[str, ...] = ()) -> Iterator[Metric]:
    known = [(key, value) for key, value in rows if value is not None]
    if known:
        family = GaugeMetricFamily(PREFIX + name, text, labels=labels)
        for key, value in known:
            family.add_metric(key, float(value))
        yield family


def _counter(name: str, text: str, rows: Iterable[Row], labels: tuple[str, ...] = ()) -> Iterator[Metric]:
    """Yield the counter *name*, to which the encoders add ``_total``."""
    known = [(key, value) for key, value in rows if value is not None]
    if known:
        family = CounterMetricFamily(PREFIX + name, text, labels=labels)
        for key, value in known:
            family.add_metric(key, float(value))
        yield family
