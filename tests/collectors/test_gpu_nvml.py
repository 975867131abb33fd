"""Around the GPU collector: names of throttle bits, distributions in the way, threads that call, cost of imports."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shm_monitor.collectors.gpu.calls import Caller
from shm_monitor.collectors.gpu.nvml import shadowing_distribution
from shm_monitor.collectors.gpu.reader import METRICS
from shm_monitor.snapshot.throttle import THROTTLE_REASONS, throttle_names


def test_throttle_bits_have_names_lowest_first() -> None:
    assert throttle_names(0) == ()
    assert throttle_names(0x1) == ("gpu_idle",)
    assert throttle_names(0x4 | 0x40) == ("sw_power_cap", "hw_thermal_slowdown")


def test_a_throttle_bit_of_a_newer_driver_is_shown_by_its_place() -> None:
    assert throttle_names(1 << 12 | 0x8) == ("hw_slowdown", "bit_12")


@given(st.integers(0, 2**53))
def test_as_many_throttle_names_as_bits(bits: int) -> None:
    assert len(set(throttle_names(bits))) == bits.bit_count()


@pytest.mark.processes
def test_throttle_names_are_those_of_nvml() -> None:
    """In a process of its own: importing nvidia-ml-py here would be seen by other tests."""
    code = (
        "import pynvml, json; print({v for k, v in vars(pynvml).items() if k.startswith('nvmlClocksThrottleReason')})"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout

    known = {int(bit) for bit in shown.strip(" {}\n").split(",")}
    assert {bit for bit in known if bit.bit_count() == 1} == set(THROTTLE_REASONS)


def test_every_metric_says_what_it_is() -> None:
    assert len({metric.field for metric in METRICS}) == len(METRICS)
    assert all(metric.group == "gpu" and metric.help.endswith(".") and metric.source for metric in METRICS)
    assert [metric.field for metric in METRICS if metric.rolled] == [
        "utilization_percent",
        "memory_used_bytes",
        "memory_percent",
    ]


@pytest.mark.parametrize("distribution", ["pynvml", "nvidia_ml_py3"])
def test_a_distribution_in_the_way_of_nvidia_ml_py_is_named(distribution: str, tmp_path: Path) -> None:
    info = tmp_path / f"{distribution}-11.5.3.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution.replace('_', '-')}\nVersion: 11.5.3\n")

    sentence = shadowing_distribution([str(tmp_path)])

    assert distribution.replace("_", "-") in sentence
    assert "11.5.3" in sentence
    assert "pip uninstall" in sentence


def test_a_folder_called_pynvml_in_the_way_is_named(tmp_path: Path) -> None:
    (tmp_path / "pynvml").mkdir()
    (tmp_path / "pynvml" / "__init__.py").touch()

    assert str(tmp_path / "pynvml") in shadowing_distribution([str(tmp_path)])


def test_nvidia_ml_py_alone_is_in_nobodys_way(tmp_path: Path) -> None:
    info = tmp_path / "nvidia_ml_py-13.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: nvidia-ml-py\nVersion: 13.0\n")
    (tmp_path / "pynvml.py").touch()

    assert shadowing_distribution([str(tmp_path)]) == ""


@pytest.mark.processes
def test_importing_the_collector_loads_no_nvml() -> None:
    code = "import sys, shm_monitor.collectors.gpu.collector; sys.exit('pynvml' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.processes
def test_throttle_names_load_nothing() -> None:
    code = "import sys, shm_monitor.snapshot.throttle; sys.exit(bool({'pynvml', 'numpy', 'ctypes'} & set(sys.modules)))"

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_caller_takes_no_second_call_while_the_first_is_stuck() -> None:
    gate = threading.Event()
    caller: Caller[bool] = Caller("test")

    stuck = caller.start(lambda: gate.wait(60))
    refused = caller.start(lambda: True)
    gate.set()

    assert stuck is not None
    assert stuck.result(60) is True
    assert refused is None
    again = caller.start(lambda: True)
    assert again is not None
    assert again.result(60) is True
    caller.close()


def test_what_a_call_raises_reaches_whoever_asked_and_the_thread_goes_on() -> None:
    caller: Caller[float] = Caller("test")

    failed = caller.start(lambda: 1 / 0)
    assert failed is not None
    assert isinstance(failed.exception(60), ZeroDivisionError)
    fine = caller.start(lambda: 2.0)

    assert fine is not None
    assert fine.result(60) == 2.0
    caller.close()
