"""Marks that more than one file of tests needs."""

from __future__ import annotations

import platform

import psutil
import pytest

needs_robust_futexes = pytest.mark.skipif(
    platform.system() != "Linux" or platform.machine() not in {"x86_64", "aarch64", "riscv64"},
    reason="robust futexes, and timers that need no libc, are Linux's",
)

needs_network_interface = pytest.mark.skipif(
    not any(not name.startswith("lo") for name in psutil.net_if_addrs()),
    reason="this machine has no network interface beside loopback",
)
