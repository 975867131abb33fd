"""ResourceConfig: what it takes, what it refuses, what follows from it."""

from __future__ import annotations

import math
import subprocess
import sys
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shm_monitor.config.bounds import BOUNDS
from shm_monitor.config.resource import ResourceConfig
from shm_monitor.errors import ConfigError
from shm_monitor.segment import names


def test_the_defaults_are_those_of_the_issue() -> None:
    config = ResourceConfig()

    assert (config.observation_period, config.check_interval, config.target_utilization) == (10.0, 1.0, 0.9)
    assert (config.forecast_horizon, config.enabled, config.name, config.on_stale) == (4.0, True, "default", "never")
    assert config.max_memory_usage_mb is config.max_cpu_usage_percent is config.max_network_usage_bytes_per_second
    assert config.max_memory_usage_mb is None
    assert (config.rolling_window_size, config.history_seconds, config.stale_after) == (None, None, None)
    assert (config.scope, config.interfaces, config.mounts, config.gpus) == ("auto", (), (), None)
    assert (config.only_visible_gpus, config.allow_injection) == (False, False)
    assert config.compile == "auto"


def test_every_field_has_bounds_and_all_bounds_a_field() -> None:
    assert tuple(BOUNDS) == ResourceConfig.__struct_fields__


def test_a_configuration_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        ResourceConfig().check_interval = 2.0  # type: ignore[misc]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("observation_period", 0),
        ("observation_period", -1.0),
        ("observation_period", math.nan),
        ("observation_period", math.inf),
        ("observation_period", "10"),
        ("observation_period", None),
        ("observation_period", 10**400),
        ("check_interval", True),
        ("check_interval", 0.0009),
        ("check_interval", 3600.1),
        ("target_utilization", 0.0),
        ("target_utilization", 1.01),
        ("rolling_window_size", 20.0),
        ("rolling_window_size", 0),
        ("enabled", 1),
        ("enabled", "true"),
        ("max_memory_usage_mb", 0),
        ("max_cpu_usage_percent", 101),
        ("max_gpu_usage_percent", -5),
        ("max_gpu_memory_percent", "90%"),
        ("max_network_usage_bytes_per_second", math.inf),
        ("forecast_horizon", 0),
        ("history_seconds", -1),
        ("name", ""),
        ("name", ".hidden"),
        ("name", "a/b"),
        ("name", "x" * 65),
        ("name", "new\n"),
        ("on_stale", "sometimes"),
        ("stale_after", 0),
        ("scope", "cgroup"),
        ("scope", "pid:0"),
        ("scope", "/line\nbreak"),
        ("scope", "/\udc80"),
        ("interfaces", "eth0"),
        ("interfaces", ("eth 0",)),
        ("interfaces", None),
        ("interfaces", 3),
        ("mounts", ("data",)),
        ("mounts", b"/data"),
        ("gpus", (0,)),
        ("gpus", ("first",)),
        ("gpu_interval", 0),
        ("only_visible_gpus", None),
        ("allow_injection", 0),
        ("compile", "sometimes"),
    ],
)
def test_a_value_of_the_wrong_type_or_out_of_range_is_refused(key: str, value: object) -> None:
    with pytest.raises(ConfigError) as caught:
        ResourceConfig(**{key: value})  # type: ignore[arg-type]

    assert (caught.value.key, caught.value.origin) == (key, "argument")
    assert key in str(caught.value)
    assert caught.value.allowed.startswith("must be ")


@pytest.mark.parametrize(
    ("key", "value", "kept"),
    [
        ("observation_period", 15, 15.0),
        ("observation_period", np.float32(15), 15.0),
        ("check_interval", Fraction(1, 2), 0.5),
        ("check_interval", 0.001, 0.001),
        ("target_utilization", 1, 1.0),
        ("rolling_window_size", np.int64(64), 64),
        ("max_memory_usage_mb", 4096, 4096.0),
        ("name", "rank-0.train_2", "rank-0.train_2"),
        ("name", "x" * 64, "x" * 64),
        ("scope", "/system.slice/my job.service", "/system.slice/my job.service"),
        ("scope", "pid:4194304", "pid:4194304"),
        ("interfaces", ["eth0", "eth1", "eth0"], ("eth0", "eth1")),
        ("mounts", ["/", "/data"], ("/", "/data")),
        ("gpus", [], ()),
        ("gpus", ("0", "0:1", "GPU-6f2c1b7e-0000-1111-2222-333344445555", "MIG-GPU-6f2c/1/0"), None),
    ],
)
def test_a_value_is_kept_in_one_canonical_type(key: str, value: Any, kept: object) -> None:
    held = getattr(ResourceConfig(**{key: value}), key)

    assert held == (value if kept is None else kept)
    assert type(held) is type(value if kept is None else kept)


@pytest.mark.parametrize(
    ("settings", "key", "other"),
    [
        ({"observation_period": 0.5}, "observation_period", "check_interval"),
        ({"check_interval": 11}, "observation_period", "check_interval"),
        ({"history_seconds": 9.9}, "history_seconds", "observation_period"),
        ({"rolling_window_size": 9}, "rolling_window_size", "observation_period"),
        ({"stale_after": 1.0}, "stale_after", "check_interval"),
        ({"history_seconds": 86_400, "check_interval": 0.001}, "history_seconds", "check_interval"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(settings: dict[str, Any], key: str, other: str) -> None:
    with pytest.raises(ConfigError) as caught:
        ResourceConfig(**settings)

    assert (caught.value.key, caught.value.other) == (key, other)
    assert f"{other}=" in caught.value.allowed


@pytest.mark.parametrize(
    ("settings", "samples"),
    [
        ({}, 300),
        ({"check_interval": 0.1}, 3000),
        ({"check_interval": 0.01}, 4096),
        ({"check_interval": 0.01, "observation_period": 60}, 6000),
        ({"observation_period": 600}, 600),
        ({"history_seconds": 30}, 30),
        ({"history_seconds": 30, "check_interval": 0.7}, 43),
        ({"rolling_window_size": 20}, 20),
        ({"rolling_window_size": 20, "check_interval": 0.1, "observation_period": 2.0}, 20),
        ({"rolling_window_size": 20, "history_seconds": 3600}, 3600),
        ({"check_interval": 60, "observation_period": 60}, 5),
    ],
)
def test_the_ring_holds_the_history_and_a_margin(settings: dict[str, Any], samples: int) -> None:
    slots = ResourceConfig(**settings).history_slots

    assert samples + 8 <= slots <= samples * 1.02 + 8


def test_a_history_in_samples_that_is_just_long_enough_is_not_refused_for_rounding() -> None:
    """0.3 / 0.1 is 2.9999999999999996 and 0.7 / 0.1 is 6.999999999999999; their neighbours round up."""
    for count in range(1, 2000):
        interval = 0.1
        ResourceConfig(check_interval=interval, observation_period=count * interval, rolling_window_size=count)


@pytest.mark.parametrize(
    ("settings", "seconds"),
    [({}, 3.0), ({"check_interval": 0.01}, 2.0), ({"check_interval": 10}, 30.0), ({"stale_after": 1.5}, 1.5)],
)
def test_a_sampler_counts_as_hung_after_three_samples_or_two_seconds(settings: dict[str, Any], seconds: float) -> None:
    assert ResourceConfig(**settings).stale_after_seconds == seconds


@pytest.mark.processes
@given(name=st.text(max_size=70) | st.from_regex(r"[A-Za-z0-9._-]{0,66}", fullmatch=True))
def test_the_rule_for_names_is_the_one_that_workers_use(name: str) -> None:
    try:
        ResourceConfig(name=name)
    except ConfigError:
        assert not names.is_valid(name)
    else:
        assert names.is_valid(name)


@pytest.mark.processes
def test_the_configuration_loads_without_the_packages_of_the_sampler() -> None:
    heavy = "{'numpy', 'numba', 'psutil', 'pynvml', 'fastapi'}"
    code = f"import sys, shm_monitor.config.resource; print(sorted({heavy} & {{*sys.modules}}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "[]"
