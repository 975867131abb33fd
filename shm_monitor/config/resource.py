"""ResourceConfig: every setting of the sampler, frozen and checked, with one door in (``ResourceConfig.load``)."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Literal

import msgspec

from shm_monitor.config import origins
from shm_monitor.config.bounds import Value, bad_setting, check_together, checked, samples
from shm_monitor.config.env_file import EnvFile
from shm_monitor.config.origins import Found
from shm_monitor.errors import ConfigError

OnStale = Literal["never", "always", "hold", "raise"]

_DEFAULT_HISTORY_SECONDS = 300.0  # five minutes: the longest view that `snapshot` and the dashboard show
_DEFAULT_HISTORY_SAMPLES = 4096  # about 4 MiB of ring with 128 metrics, of the 64 MiB that containers have
_LEAST_MARGIN_SLOTS = 8


class ResourceConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How to measure, what is too much, and where to publish it.

    The constructor takes its arguments and the defaults and nothing else: only ``load`` reads the environment and a
    ``.env`` file, as ``ResourceManager()`` without a configuration does.

    Args:
        observation_period: seconds that the mean and the maximum look back.
        check_interval: seconds between two samples.
        target_utilization: share of a limit that pressure must fall below before it is over.
        rolling_window_size: length of the history in samples, for old files; None: by ``history_seconds``.
        enabled: false publishes readings and never asks for pruning.
        max_memory_usage_mb: limit in MB of 2^20 bytes; None: 90 % of what this process may really use.
        max_cpu_usage_percent: limit in percent of the CPUs that this process may use; None: no limit.
        max_gpu_usage_percent: limit for each GPU's utilization; None: no limit.
        max_gpu_memory_percent: limit for each GPU's memory; None: no limit.
        max_network_usage_bytes_per_second: limit for received + sent; None: no limit.
        forecast_horizon: seconds ahead that a rising value is followed.
        history_seconds: length of the history; None: 300 s, at most 4096 samples, at least the period.
        name: what workers attach to.
        on_stale: what readers answer without a live sampler: never, always, hold, raise.
        stale_after: seconds without a sign of life after which a sampler counts as hung; None: 3 intervals, at least
            2 s.
        scope: whose memory and CPU count: auto, host, a cgroup path, ``pid:N`` (that process's cgroup).
        collectors: what is measured: names of collectors, ``-gpu`` for all but that one, an entry point of the group
            ``shm_monitor.collectors`` or ``module:factory`` for one of your own (``all,my_package.queue:Queue``);
            None: all built-in ones.
        interfaces: network interfaces that count, by name or shell pattern; empty: all but loopback and virtual ones.
        mounts: mount points whose space is measured; empty: none.
        gpus: GPUs that are measured, by NVML index or UUID; None: all.
        gpu_interval: seconds between two readings of the GPUs; None: at each sample.
        only_visible_gpus: measure only the GPUs that ``CUDA_VISIBLE_DEVICES`` shows.
        adaptive: look at memory alone between two samples, too, while it rises towards its end.
        allow_injection: let ``shm-monitor inject`` put false readings in, to try a worker's reaction.
        compile: whether the sampler runs compiled kernels, which takes 110 MB: auto (from 5 Hz or 24 limits on, where
            1 GB is left, and not after a death for want of memory), always, never.
        python: the interpreter that runs the sampler, where it is not the worker's own; None: the worker's own.

    Raises:
        ConfigError: a value of the wrong type or out of range, or two that contradict each other.
    """

    observation_period: float = 10.0
    check_interval: float = 1.0
    target_utilization: float = 0.9
    rolling_window_size: int | None = None
    enabled: bool = True
    max_memory_usage_mb: float | None = None
    max_cpu_usage_percent: float | None = None
    max_gpu_usage_percent: float | None = None
    max_gpu_memory_percent: float | None = None
    max_network_usage_bytes_per_second: float | None = None
    forecast_horizon: float = 4.0
    history_seconds: float | None = None
    name: str = "default"
    on_stale: OnStale = "never"
    stale_after: float | None = None
    scope: str = "auto"
    collectors: tuple[str, ...] | None = None
    interfaces: tuple[str, ...] = ()
    mounts: tuple[str, ...] = ()
    gpus: tuple[str, ...] | None = None
    gpu_interval: float | None = None
    only_visible_gpus: bool = False
    adaptive: bool = True
    allow_injection: bool = False
    compile: Literal["auto", "always", "never"] = "auto"
    python: str | None = None

    def __post_init__(self) -> None:
        # msgspec checks neither types nor bounds in the constructor, only in convert and decode.
        for key in self.__struct_fields__:
            msgspec.structs.force_setattr(self, key, checked(key, getattr(self, key)))
        check_together(self)

    @classmethod
    def load(
        cls, env_file: EnvFile = None, environ: Mapping[str, str] | None = None, **overrides: object
    ) -> ResourceConfig:
        """Return the configuration from arguments, the environment, a ``.env`` file and defaults, strongest first.

        Args:
            env_file: a path; None searches beside the running script, then from the working directory upward, where
                nobody else can put a file; False or ``""`` reads none.
            environ: in place of ``os.environ``, which is only ever read.
            overrides: settings by field name.

        Raises:
            ConfigError: names the key as written, the value, the origin and what is allowed.
        """
        found = origins.collect(env_file, os.environ if environ is None else environ, overrides)
        return _built(found)

    @property
    def stale_after_seconds(self) -> float:
        """Seconds without a beat after which a sampler counts as hung: ``stale_after``, else three samples or 2 s."""
        return max(3 * self.check_interval, 2.0) if self.stale_after is None else self.stale_after

    @property
    def history_slots(self) -> int:
        """Slots of the ring: the samples of the history and a margin, so that a slow reader is not lapped."""
        count = samples(self._history_length_seconds, self.check_interval)
        return count + max(_LEAST_MARGIN_SLOTS, count // 64)

    @property
    def _history_length_seconds(self) -> float:
        if self.history_seconds is not None:
            return self.history_seconds
        if self.rolling_window_size is not None:
            return self.rolling_window_size * self.check_interval
        default = min(_DEFAULT_HISTORY_SECONDS, _DEFAULT_HISTORY_SAMPLES * self.check_interval)
        return max(default, self.observation_period)


class Setting(msgspec.Struct, frozen=True):
    """One effective value and where it came from.

    Args:
        key: the setting.
        value: what is in force; null where a default of its own takes its place.
        origin: default, argument, environment, or the file and the line.
        written_as: the key as it stands there; empty for a default.
    """

    key: str
    value: Value
    origin: str
    written_as: str = ""


def explain(env_file: EnvFile = None, environ: Mapping[str, str] | None = None, **overrides: object) -> list[Setting]:
    """Return every setting that ``ResourceConfig.load`` with the same arguments obeys, with its origin.

    Raises:
        ConfigError: as ``load`` does.
    """
    found = origins.collect(env_file, os.environ if environ is None else environ, overrides)
    config = _built(found)
    default = Found("", None, "default")
    chosen = {key: found.get(key, default) for key in config.__struct_fields__}
    return [Setting(key, getattr(config, key), one.origin, one.key) for key, one in chosen.items()]


def _built(found: Mapping[str, Found]) -> ResourceConfig:
    """Return the configuration of *found*; an error names the origin of the value, not the constructor."""
    try:
        return ResourceConfig(**{key: one.value for key, one in found.items()})  # type: ignore[arg-type]
    except ConfigError as error:
        one = found.get(error.key, Found(error.key, error.value, "default"))
        allowed = error.allowed
        if error.other:
            allowed += f" (from {found[error.other].origin if error.other in found else 'default'})"
        raise bad_setting(one.key, error.value, one.origin, allowed, other=error.other) from None
