"""A full or tiny /dev/shm is a clear error that leaves nothing behind; each test has a /dev/shm of its own."""

from __future__ import annotations

import os
import sys

import pytest

from tests.support.children import NOT_PERMITTED, PRIVATE_SHM, run_python

pytestmark = [pytest.mark.processes, pytest.mark.skipif(sys.platform != "linux", reason="mount namespaces are Linux's")]

PUBLISH = (
    PRIVATE_SHM
    + """
import os, sys, time
import numpy as np
from shm_monitor.errors import MonitorError
from tests.support.publishing import Bench, small_schema

def publish(slot_count):
    try:
        bench = Bench("tiny", slot_count=slot_count)
        try:
            for _ in range(20):
                bench.publish()
            print("published", bench.publisher.head)
        finally:
            bench.close()
    except MonitorError as error:
        print(type(error).__name__, error)
    print("left:", sorted(os.listdir("/dev/shm")), sum((files for _, _, files in os.walk("/dev/shm")), []))
"""
)


LEFT_NOTHING = f"left: ['shm-monitor.{os.getuid()}'] []"  # the directory of the side files stays


def said_by(code: str, *arguments: object) -> list[str]:
    """Return the lines that *code* printed; skip where it may not mount."""
    done = run_python(code, *arguments)
    if done.returncode == NOT_PERMITTED:
        pytest.skip("mounting a /dev/shm of one's own is not permitted here")
    assert done.returncode == 0, f"status {done.returncode}: {done.stdout}{done.stderr}"
    return done.stdout.splitlines()


def test_a_segment_that_does_not_fit_is_refused_cleanly() -> None:
    """Without reserving its memory first, the sampler would die of SIGBUS at the first sample that does not fit."""
    error, left = said_by(PUBLISH + "private_shm('size=64k')\npublish(5000)")
    assert error.startswith("NoSpaceError")
    assert "/dev/shm" in error
    assert "try:" in error
    assert "65536 are free" in error
    assert left == LEFT_NOTHING.replace("[]", "['tiny~lock']"), "of a bench that was never made, and so never closed"


def test_the_owner_of_a_sampler_that_does_not_fit_learns_how_much_is_free() -> None:
    code = """
import shm_monitor as sm
private_shm("size=64k")
try:
    sm.ResourceManager(sm.ResourceConfig(name="tiny", history_seconds=3600.0))
except sm.NoSpaceError as error:
    print(error.path, error.needed_bytes > error.free_bytes, error.free_bytes)
"""
    assert said_by(PRIVATE_SHM + code) == ["/dev/shm/shm-monitor.0.tiny True 65536"]


def test_a_segment_that_fits_a_tiny_one_works() -> None:
    published, left = said_by(PUBLISH + "private_shm('size=64k')\npublish(8)")
    assert published == "published 20"
    assert left == LEFT_NOTHING


def test_no_inode_left_is_no_space() -> None:
    error, *_ = said_by(PUBLISH + "private_shm('size=1m,nr_inodes=1')\npublish(8)")
    assert error.startswith("NoSpaceError")


def test_what_fills_up_after_the_start_does_not_hurt_the_sampler() -> None:
    """Its memory is reserved."""
    code = """
private_shm("size=256k")
bench = Bench("tiny", slot_count=500)
bench.publish()
try:
    with open("/dev/shm/filler", "wb") as file:
        file.write(bytes(2**20))
except OSError as error:
    print("full:", error.errno)
for _ in range(1000):
    bench.publish()
print("published", bench.publisher.head)
"""
    assert said_by(PUBLISH + code) == ["full: 28", "published 1001"]


def test_the_sampler_process_reports_it_and_the_supervisor_raises_it() -> None:
    code = """
private_shm("size=64k")
from shm_monitor.config.resource import ResourceConfig
from shm_monitor.manager import ResourceManager
try:
    ResourceManager(ResourceConfig(name="tiny"))
except MonitorError as error:
    print(type(error).__name__, error)
print("left:", sorted(os.listdir("/dev/shm")), sum((files for _, _, files in os.walk("/dev/shm")), []))
"""
    error, left = said_by(PUBLISH + code)
    assert error.startswith("NoSpaceError")
    assert left == LEFT_NOTHING


def test_the_command_line_says_it_in_one_line_and_exits_with_a_status() -> None:
    code = """
private_shm("size=64k")
import subprocess
done = subprocess.run([sys.executable, "-m", "shm_monitor", "run", "--name", "tiny"], capture_output=True, text=True)
print(done.returncode, [line for line in done.stderr.splitlines() if line.startswith("shm-monitor: ")])
print("Traceback" in done.stderr)
print("left:", sorted(os.listdir("/dev/shm")), sum((files for _, _, files in os.walk("/dev/shm")), []))
"""
    status, trace, left = said_by(PUBLISH + code)
    assert status.startswith("3 ['shm-monitor: /dev/shm/")
    assert "shared memory" in status
    assert trace == "False"
    assert left == LEFT_NOTHING


def test_the_machine_is_as_it_was() -> None:
    """The mounts above were private."""
    assert os.statvfs("/dev/shm").f_blocks * os.statvfs("/dev/shm").f_frsize > 2**20
