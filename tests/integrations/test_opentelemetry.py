"""Every gauge of the table is sent with the numbers of the newest sample, and nothing that is unknown."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

pytest.importorskip("opentelemetry.sdk", reason="opentelemetry-sdk is not installed")

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

import shm_monitor as sm
from shm_monitor.integrations.opentelemetry import GAUGES, instrument

if TYPE_CHECKING:
    from tests.support.pressed import Driven


def collected(reader: sm.Reader) -> dict[str, list[tuple[float, dict[str, Any]]]]:
    """Return the points of one collection by the name of their gauge."""
    memory = InMemoryMetricReader()
    provider = MeterProvider([memory])
    instrument(reader=reader, provider=provider)
    data = memory.get_metrics_data()
    provider.shutdown()
    found: dict[str, list[tuple[float, dict[str, Any]]]] = {}
    for resource in data.resource_metrics if data else ():
        for scope in resource.scope_metrics:
            for metric in scope.metrics:
                points: Any = metric.data.data_points
                found[metric.name] = [(point.value, dict(point.attributes)) for point in points]
    return found


def test_the_gauges_have_the_numbers_of_the_sample(driven: Driven) -> None:
    driven.press(95.0)

    found = collected(driven.reader)

    assert found["system.memory.usage"] == [(95.0, {"system.memory.state": "used"})]
    assert found["system.memory.limit"] == [(100.0, {})]
    assert found["system.cpu.utilization"] == [(0.05, {})]
    assert found["shm_monitor.prune.active"] == [(1, {})]
    assert (2, {"shm_monitor.limit": "memory"}) in found["shm_monitor.limit.level"]


def test_what_is_unknown_is_not_sent(driven: Driven) -> None:
    assert "hw.temperature" not in collected(driven.reader)


def test_without_a_live_sampler_nothing_is_sent(name: str, driven: Driven) -> None:
    reader = sm.attach(name, required=False, timeout=0.0)
    driven.close()

    assert collected(reader) == {}


def test_no_name_is_there_twice_and_each_has_a_unit() -> None:
    names = [gauge.name for gauge in GAUGES]

    assert len(set(names)) == len(names)
    assert all(gauge.unit and gauge.description for gauge in GAUGES)


def test_the_names_are_those_of_the_conventions() -> None:
    pytest.importorskip("opentelemetry.semconv._incubating.metrics", reason="no semantic conventions")
    from opentelemetry.semconv._incubating.metrics import hw_metrics, system_metrics

    tables = (vars(hw_metrics), vars(system_metrics))
    known = {value for table in tables for value in table.values() if isinstance(value, str)}
    ours = {gauge.name for gauge in GAUGES if not gauge.name.startswith("shm_monitor.")}
    assert ours <= known
