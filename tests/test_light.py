"""The named tuples of the worker's stack are what typing's would be."""

from __future__ import annotations

import pickle

import pytest

from shm_monitor.schema import Metric
from shm_monitor.segment.view import Sample


def test_fields_defaults_and_methods_are_those_of_the_class_body() -> None:
    metric = Metric("memory", "usage_bytes", "bytes", "help", "source")

    assert metric._fields == ("group", "field", "unit", "help", "source", "instance", "integer", "rolled")
    assert (metric.instance, metric.integer, metric.name) == ("", False, "memory.usage_bytes")
    assert Metric.__doc__ is not None


def test_a_field_without_a_default_must_be_given() -> None:
    with pytest.raises(TypeError, match="missing"):
        Metric("memory")  # type: ignore[call-arg]


def test_they_pickle_and_replace() -> None:
    sample = Sample(1, 2, 3, 4, 5, b"")

    assert pickle.loads(pickle.dumps(sample)) == sample
    assert sample._replace(degraded=True).degraded
