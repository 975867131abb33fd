"""bench/gpu_check.py against the stand-in and an nvidia-smi that is a script: what it calls agreement."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.nvml_library import StandIn

pytestmark = pytest.mark.processes

ANSWERS = {
    "index": "0",
    "utilization.gpu": "0",
    "memory.used": "1024",
    "memory.total": "81920",
    "temperature.gpu": "40",
    "power.draw": "100.00",
    "enforced.power.limit": "400.00",
    "clocks.sm": "1410",
    "clocks.mem": "1593",
    "clocks_event_reasons.active": "0x0000000000000004",
    "clocks_throttle_reasons.active": "0x0000000000000004",
    "ecc.errors.corrected.volatile.total": "2",
    "ecc.errors.uncorrected.volatile.total": "0",
}

# As the real one: every asked name in one line, and status 2 for the whole question when it does not know one.
SMI = """#!{python} -I
import json, sys
answers = json.loads({answers!r})
names = sys.argv[1].removeprefix("--query-gpu=").split(",")
if any(name not in answers for name in names): sys.exit(2)
print(", ".join(answers[name] for name in names))
"""


def check(tmp_path: Path, answers: dict[str, str], *script: str) -> tuple[int, dict[str, Any]]:
    """Run the check, without torch, where nvidia-smi gives *answers* and NVML obeys *script*."""
    nvml = StandIn.create(tmp_path)
    nvml.script("devices 1", *script)
    smi = tmp_path / "nvidia-smi"
    smi.write_text(SMI.format(python=sys.executable, answers=json.dumps(answers)))
    smi.chmod(0o755)
    done = subprocess.run(
        [sys.executable, "-m", "bench.gpu_check", "--json", "--attempts=1"],
        cwd=Path(__file__).parents[1],
        env={**os.environ, **nvml.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"},
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    return done.returncode, json.loads(done.stdout)


def test_equal_readings_agree_and_the_cost_is_told(tmp_path: Path) -> None:
    status, answer = check(tmp_path, ANSWERS)

    assert status == 0
    assert [row["field"] for row in answer["rows"] if not row["agrees"]] == []
    assert set(answer["cost"]["device_ms"]) == {"gpu:0.read_seconds"}
    assert "pcie_receive_bytes_per_second" in answer["cost"]["call_ms"]


def test_a_reading_beyond_the_resolution_is_found(tmp_path: Path) -> None:
    status, answer = check(tmp_path, {**ANSWERS, "temperature.gpu": "42", "memory.used": "1025"})

    assert status == 1
    assert [row["field"] for row in answer["rows"] if not row["agrees"]] == ["temperature_celsius"]


@pytest.mark.parametrize("said", ["[N/A]", "[Not Supported]"])
def test_unknown_to_both_agrees_and_to_one_alone_does_not(said: str, tmp_path: Path) -> None:
    rules = ("nvmlDeviceGetTotalEccErrors 0 error 3", "nvmlDeviceGetPowerUsage 0 error 3")

    status, answer = check(tmp_path, {**ANSWERS, "ecc.errors.corrected.volatile.total": said}, *rules)

    assert status == 1
    assert [row["field"] for row in answer["rows"] if not row["agrees"]] == ["power_watts", "ecc_uncorrected_count"]


def test_a_name_that_this_nvidia_smi_does_not_know_is_left_out(tmp_path: Path) -> None:
    answers = {name: word for name, word in ANSWERS.items() if name != "clocks_event_reasons.active"}

    status, _ = check(tmp_path, answers)

    assert status == 0
