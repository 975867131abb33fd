"""What each setting may be: one table of kinds and ranges, and the bounds between settings.

The bounds hold for every way a configuration comes about: constructor, ``.env``, environment.
"""

from __future__ import annotations

import math
import numbers
import re
from collections.abc import Sequence
from functools import partial
from typing import NamedTuple, Protocol

from shm_monitor.errors import ConfigError
from shm_monitor.segment.names import NAME_ALLOWED

Value = float | int | bool | str | tuple[str, ...] | None
"""What a setting can hold; ``None`` means its default."""

MOST_SAMPLES = 10_000_000
"""Largest ring that a configuration may ask for: at 1 KiB a sample it already needs 10 GiB of shared memory."""

ARGUMENT = "argument"
"""The origin that an error names when a value came from code."""

bad_setting = partial(ConfigError, remedy="shm-monitor config init -o -")
"""The error of a setting; the command prints each with its meaning and what is allowed, and needs none of them."""

_WORDS = {"true": True, "1": True, "yes": True, "on": True, "false": False, "0": False, "no": False, "off": False}


class Refused(Exception):
    """A value out of bounds; the message says what is allowed."""


class Bounds(Protocol):
    """How one setting is read from text and which values it takes."""

    @property
    def allowed(self) -> str:
        """What the setting may be, in words."""
        ...

    def read(self, text: str) -> Value:
        """Return the value that *text* spells; raises ``Refused`` or ``ValueError``."""
        ...

    def check(self, value: object) -> Value:
        """Return *value* in its canonical type; raises ``Refused``."""
        ...


class Number(NamedTuple):
    """A finite number from *low* (left out itself where it is 0) to *high*; a bool is no number."""

    low: float
    high: float
    unit: str
    whole: bool = False
    optional: bool = False

    @property
    def allowed(self) -> str:
        kind = "a whole number" if self.whole else "a number"
        bounds = f"from {self.low:g} to" if self.low else "above 0 and at most"
        return f"{kind} {bounds} {self.high:.12g} {self.unit}" + (", or none for the default" if self.optional else "")

    def read(self, text: str) -> Value:
        if self.optional and text.lower() == "none":
            return None
        return int(text) if self.whole else float(text)

    def check(self, value: object) -> Value:
        if value is None and self.optional:
            return None
        kind = numbers.Integral if self.whole else numbers.Real
        if isinstance(value, bool) or not isinstance(value, kind):
            raise Refused(self.allowed)
        try:
            number = float(value)
        except OverflowError:  # an integer beyond every float
            raise Refused(self.allowed) from None
        if not (self.low <= number <= self.high and number > 0):  # a NaN fails every comparison
            raise Refused(self.allowed)
        return int(number) if self.whole else number


class Switch(NamedTuple):
    """True or false."""

    allowed: str = "true or false (also 1/0, yes/no, on/off)"

    def read(self, text: str) -> Value:
        return _WORDS.get(text.lower(), text)

    def check(self, value: object) -> Value:
        if not isinstance(value, bool):
            raise Refused(self.allowed)
        return value


class Text(NamedTuple):
    """A text that matches *pattern* as a whole; where it is *optional*, None stands for none."""

    pattern: str
    allowed: str
    optional: bool = False

    def read(self, text: str) -> Value:
        return text

    def check(self, value: object) -> Value:
        if value is None and self.optional:
            return None
        if not _matches(self.pattern, value):
            raise Refused(self.allowed)
        return str(value)


class Names(NamedTuple):
    """Several texts that each match *pattern*; written with commas or spaces between, stored once each.

    Args:
        every: the word that stands for "no choice made" (``None``); empty where the setting takes no ``None``.
    """

    pattern: str
    allowed: str
    every: str = ""

    def read(self, text: str) -> Value:
        if self.every and text.lower() == self.every:
            return None
        return () if text.lower() == "none" else tuple(re.split(r"[,\s]+", text.strip(", \t")))

    def check(self, value: object) -> Value:
        if value is None and self.every:
            return None
        if isinstance(value, str) or not isinstance(value, Sequence):
            raise Refused(self.allowed)
        if not all(_matches(self.pattern, name) for name in value):
            raise Refused(self.allowed)
        return tuple(dict.fromkeys(value))


def _matches(pattern: str, value: object) -> bool:
    """Return whether *value* is a text of *pattern* that UTF-8 can hold (one from ``os.environ`` need not be)."""
    if not isinstance(value, str) or not re.fullmatch(pattern, value):
        return False
    return not any("\ud800" <= character <= "\udfff" for character in value)


_SECONDS = Number(0.001, 86_400, "seconds", optional=True)
_PERCENT = Number(0, 100, "percent", optional=True)

BOUNDS: dict[str, Bounds] = {
    "observation_period": Number(0.001, 86_400, "seconds"),
    "check_interval": Number(0.001, 3_600, "seconds"),
    "target_utilization": Number(0, 1, "(a share of the limit)"),
    "rolling_window_size": Number(1, MOST_SAMPLES, "samples", whole=True, optional=True),
    "enabled": Switch(),
    "max_memory_usage_mb": Number(0, 1e12, "MB (2^20 bytes)", optional=True),
    "max_cpu_usage_percent": _PERCENT,
    "max_gpu_usage_percent": _PERCENT,
    "max_gpu_memory_percent": _PERCENT,
    "max_network_usage_bytes_per_second": Number(0, 1e15, "bytes per second", optional=True),
    "forecast_horizon": Number(0.001, 3_600, "seconds"),
    "history_seconds": Number(0.001, 31_536_000, "seconds", optional=True),
    "name": Text(r"(?!\.)[A-Za-z0-9._-]{1,64}", NAME_ALLOWED),
    "on_stale": Text("never|always|hold|raise", "one of never, always, hold, raise"),
    "stale_after": _SECONDS,
    "scope": Text(
        r"auto|host|/[^\0\r\n]*|pid:[1-9][0-9]{0,9}", "auto, host, a cgroup path such as /system.slice/x, or pid:1234"
    ),
    "collectors": Names(
        r"-?[A-Za-z_][A-Za-z0-9_.-]{0,126}(:[A-Za-z_][A-Za-z0-9_.]{0,126})?",
        "names of collectors with commas between, such as memory,cpu or -gpu or all,my_package.queue:Queue; all",
        every="all",
    ),
    "interfaces": Names(
        r"[^\s,/\0]{1,127}",
        "names or patterns of network interfaces with commas between, such as eth0,ib*; none for all",
    ),
    "mounts": Names(r"/[^,\s\0]*", "absolute paths of mount points with commas between, such as /,/data"),
    "gpus": Names(
        r"[0-9]{1,4}(:[0-9]{1,2})?|(GPU|MIG)-[0-9A-Za-z/-]{1,96}",
        "GPU indices or UUIDs with commas between, such as 0,3 or GPU-6f2c...; all, or none",
        every="all",
    ),
    "gpu_interval": Number(0.01, 3_600, "seconds", optional=True),
    "only_visible_gpus": Switch(),
    "adaptive": Switch(),
    "allow_injection": Switch(),
    "compile": Text("auto|always|never", "one of auto, always, never"),
    "python": Text(r"[^\0\r\n]{1,4096}", "the path or the name of a Python interpreter", optional=True),
}


def checked(key: str, value: object) -> Value:
    """Return *value* in the canonical type of the setting *key*.

    Raises:
        ConfigError: wrong type or out of range; the origin it names is ``argument``.
    """
    try:
        return BOUNDS[key].check(value)
    except Refused as error:
        raise bad_setting(key, value, ARGUMENT, f"must be {error}") from None


def from_text(key: str, text: str) -> Value:
    """Return the value that *text* spells for the setting *key*, as ``.env``, environment and ``--set`` write it.

    Raises:
        ConfigError: not of the setting's kind, or out of range.
    """
    bounds = BOUNDS[key]
    try:
        return bounds.check(bounds.read(text))
    except (Refused, ValueError):
        raise bad_setting(key, text, ARGUMENT, f"must be {bounds.allowed}") from None


class Times(Protocol):
    """The settings that bounds between settings look at; all in seconds but the last."""

    @property
    def observation_period(self) -> float: ...
    @property
    def check_interval(self) -> float: ...
    @property
    def history_seconds(self) -> float | None: ...
    @property
    def stale_after(self) -> float | None: ...
    @property
    def rolling_window_size(self) -> int | None: ...


def check_together(config: Times) -> None:
    """Raise ``ConfigError`` where two settings of *config*, each fine alone, contradict each other."""
    period, interval = config.observation_period, config.check_interval
    if period < interval:
        raise _contradiction("observation_period", period, "at least", ("check_interval", interval))
    if config.history_seconds is not None and config.history_seconds < period:
        raise _contradiction("history_seconds", config.history_seconds, "at least", ("observation_period", period))
    _check_history_samples(config)
    if config.stale_after is not None and config.stale_after <= interval:
        raise _contradiction("stale_after", config.stale_after, "more than", ("check_interval", interval))


def _check_history_samples(config: Times) -> None:
    """Raise ``ConfigError`` where the history, counted in samples, is shorter than the period or beyond any memory."""
    period, interval, size = config.observation_period, config.check_interval, config.rolling_window_size
    if config.history_seconds is None and size is not None and samples(period, interval) > size:
        needed = f"at least {samples(period, interval)} (samples in the period) for"
        raise _contradiction("rolling_window_size", size, needed, ("observation_period", period))
    for key in ("history_seconds", "observation_period"):
        seconds = getattr(config, key)
        if seconds is not None and samples(seconds, interval) > MOST_SAMPLES:
            limit = f"at most {MOST_SAMPLES} samples long, so at most {MOST_SAMPLES * interval:g} seconds with"
            raise _contradiction(key, seconds, limit, ("check_interval", interval))


def samples(seconds: float, interval: float) -> int:
    """Return how many samples, *interval* seconds apart, cover *seconds* (rounded up, but not by rounding noise)."""
    return math.ceil(seconds / interval * (1 - 1e-12))


def _contradiction(key: str, value: float, relation: str, other: tuple[str, float]) -> ConfigError:
    return bad_setting(key, value, ARGUMENT, f"must be {relation} {other[0]}={other[1]!r}", other=other[0])
