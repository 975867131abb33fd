"""Observable gauges of the newest sample, named by OpenTelemetry's semantic conventions.

The conventions for system and hardware metrics are still moving, so every name is in one table, ``GAUGES``.
Source: https://opentelemetry.io/docs/specs/semconv/system/ (system, 1.37), .../hardware/gpu (hw.gpu).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, NamedTuple

from shm_monitor.errors import MissingDependencyError, MonitorError
from shm_monitor.schema import Level
from shm_monitor.worker.attaching import attach

try:
    from opentelemetry.metrics import CallbackOptions, MeterProvider, Observation, get_meter_provider
except ModuleNotFoundError as error:
    raise MissingDependencyError("shm_monitor.integrations.opentelemetry", "otel", "opentelemetry-api") from error

if TYPE_CHECKING:
    from shm_monitor.snapshot.structs import Snapshot
    from shm_monitor.worker.reader import Reader

Attributes = dict[str, str]
Points = Iterable[tuple[float | None, Attributes]]

_LEVELS = {level.text: int(level) for level in Level}


class Gauge(NamedTuple):
    """One gauge: its name and unit in the conventions, and its points in a sample; None is unknown and not sent."""

    name: str
    unit: str
    description: str
    points: Callable[[Snapshot], Points]


def _memory_used(snapshot: Snapshot) -> Points:
    return [(snapshot.memory.usage_bytes, {"system.memory.state": "used"})]


def _interfaces(snapshot: Snapshot) -> Iterator[tuple[float | None, Attributes]]:
    for name, one in snapshot.network.interfaces.items():
        yield one.receive_bytes_per_second, {"network.interface.name": name, "network.io.direction": "receive"}
        yield one.transmit_bytes_per_second, {"network.interface.name": name, "network.io.direction": "transmit"}


def _of_gpus(field: str, scale: float = 1.0) -> Callable[[Snapshot], Points]:
    def points(snapshot: Snapshot) -> Iterator[tuple[float | None, Attributes]]:
        for gpu in snapshot.gpus:
            value = getattr(gpu, field)
            yield None if value is None else value * scale, {"hw.id": gpu.uuid, "hw.name": gpu.name}

    return points


def _limits(snapshot: Snapshot) -> Points:
    return [(_LEVELS.get(one.level), {"shm_monitor.limit": one.limit}) for one in snapshot.limits]


def _percent(value: float | None) -> Points:
    return [(None if value is None else value / 100, {})]


GAUGES = (
    Gauge("system.cpu.utilization", "1", "CPU use over what may be used.", lambda one: _percent(one.cpu.cpu_percent)),
    Gauge("system.memory.usage", "By", "Memory that cannot be reclaimed.", _memory_used),
    Gauge("system.memory.limit", "By", "Memory that there is.", lambda one: [(one.memory.capacity_bytes, {})]),
    Gauge("system.memory.utilization", "1", "Memory in use.", lambda one: _percent(one.memory.usage_percent)),
    Gauge("shm_monitor.network.rate", "By/s", "Bytes per second of an interface.", _interfaces),
    Gauge("hw.gpu.utilization", "1", "Time in which a kernel ran.", _of_gpus("utilization_percent", 0.01)),
    Gauge("hw.gpu.memory.usage", "By", "GPU memory in use.", _of_gpus("memory_used_bytes")),
    Gauge("hw.gpu.memory.limit", "By", "GPU memory that there is.", _of_gpus("memory_total_bytes")),
    Gauge("hw.temperature", "Cel", "Temperature of a GPU.", _of_gpus("temperature_celsius")),
    Gauge("hw.power", "W", "Power that a GPU draws.", _of_gpus("power_watts")),
    Gauge("shm_monitor.limit.level", "1", "What a limit asks: 0 ok, 1 warn, 2 prune, 3 critical.", _limits),
    Gauge("shm_monitor.prune.active", "1", "Whether to shed work.", lambda one: [(int(one.should_prune), {})]),
)


def instrument(*, reader: Reader | None = None, provider: MeterProvider | None = None) -> None:
    """Register every gauge of ``GAUGES``; each collection reads the newest sample.

    Args:
        reader: None asks the default sampler, as ``attach()`` does, which may come later.
        provider: None is the global one.

    What is unknown is not sent, and nothing is while no live sampler stands behind the numbers.
    """
    source = attach(timeout=0.0, required=False) if reader is None else reader
    meter = (provider or get_meter_provider()).get_meter("shm_monitor")
    for gauge in GAUGES:
        meter.create_observable_gauge(gauge.name, [_callback(gauge, source)], gauge.unit, gauge.description)


def _callback(gauge: Gauge, reader: Reader) -> Callable[[CallbackOptions], Iterable[Observation]]:
    def observe(options: CallbackOptions) -> Iterator[Observation]:  # noqa: ARG001 - as the SDK calls it
        try:
            snapshot = reader.snapshot()
        except MonitorError:
            return
        if snapshot.stale:
            return
        for value, attributes in gauge.points(snapshot):
            if value is not None:
                yield Observation(value, attributes)

    return observe
