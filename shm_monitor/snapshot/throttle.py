"""Names for the bits of ``throttle_reasons``: why the clocks of a GPU are lower than they could be.

Light on purpose: a worker decodes a reading without pynvml.
Source: nvml.h, nvmlClocksEventReasons (called nvmlClocksThrottleReasons before driver 535).
"""

from __future__ import annotations

from shm_monitor.schema import names_of_bits

THROTTLE_REASONS: dict[int, str] = {
    0x001: "gpu_idle",
    0x002: "applications_clocks_setting",
    0x004: "sw_power_cap",
    0x008: "hw_slowdown",
    0x010: "sync_boost",
    0x020: "sw_thermal_slowdown",
    0x040: "hw_thermal_slowdown",
    0x080: "hw_power_brake_slowdown",
    0x100: "display_clock_setting",
    0x200: "board_limit",
    0x400: "reliability",
}


def throttle_names(bits: int) -> tuple[str, ...]:
    """Return the names of the reasons that are set in *bits*, lowest bit first; () when nothing holds the clocks.

    A bit that NVML has added since is called ``bit_N``, so that it is seen rather than dropped.
    """
    return names_of_bits(bits, THROTTLE_REASONS)
