"""What a question of other settings says and what comes back: no numpy here, so that who only asks stays small.

The answer is made by another process, ``python -m shm_monitor.traces``, which reads one question per line.
"""

from __future__ import annotations

import msgspec

from shm_monitor.traces.episodes import Report

SETTINGS = (
    "max_memory_usage_mb",
    "max_cpu_usage_percent",
    "max_gpu_usage_percent",
    "max_gpu_memory_percent",
    "max_network_usage_bytes_per_second",
    "target_utilization",
    "observation_period",
    "forecast_horizon",
)
"""What can be tried: the settings that decide."""


class Question(msgspec.Struct, frozen=True):
    """What would *settings* have decided over the ring of the sampler *name*; what they leave out stays as it is."""

    name: str
    settings: dict[str, float]


class WhatIf(msgspec.Struct, frozen=True):
    """What was decided over the samples that the ring still has, and what other settings would have decided.

    Args:
        begin_time: of the first sample, in unix seconds.
        settings: all that were tried, those that nobody named as they are now; null for no limit of ours.
        env: the lines of a ``.env`` file that make the tried settings those of the next sampler.
        was: what the sampler decided; episodes that began before the first sample begin with it.
        would: what it would have decided, had it begun with the first sample.
    """

    begin_time: float
    settings: dict[str, float | None]
    env: tuple[str, ...]
    was: Report
    would: Report


class Refused(msgspec.Struct, frozen=True):
    """Why there is no answer: *setting* is what cannot be obeyed, empty where it is not about one."""

    setting: str
    detail: str


class Answer(msgspec.Struct, frozen=True, omit_defaults=True):
    """Either of both."""

    found: WhatIf | None = None
    refused: Refused | None = None


def env_line(setting: str, value: float) -> str:
    """Return the line of a ``.env`` file that sets *setting* to *value*."""
    return f"{setting.upper()}={value:.12g}"
