"""One way to print bytes, counts, durations and names that others chose, for every face.

Bytes go in steps of 1024 with the names that the configuration uses: ``max_memory_usage_mb`` counts MB of 2^20 bytes,
so everything that is printed beside it does too.
"""

from __future__ import annotations

from shm_monitor.forks import importing
from shm_monitor.light import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

UNKNOWN = "-"  # in tables; a sentence says "unknown"

Cell = str | float | int | None


def size(number: float | None) -> str:
    """Return a number of bytes with the largest unit that leaves at least one before the point.

    >>> size(3 * 2**20), size(15.2 * 2**30), size(512), size(None)
    ('3.0 MB', '15.2 GB', '512 B', '-')
    """
    if number is None:
        return UNKNOWN
    for unit in ("B", "KB", "MB", "GB", "TB"):
        if abs(number) < 1024 or unit == "TB":
            break
        number /= 1024
    return f"{number:.0f} B" if unit == "B" else f"{number:.1f} {unit}"


def duration(seconds: float) -> str:
    """Return *seconds* in the two largest units that say enough.

    >>> duration(0.0125), duration(12.34), duration(90), duration(86_400)
    ('12.50 ms', '12.3 s', '1 min 30 s', '24 h 0 min')
    """
    if 0 < abs(seconds) < 1:
        return f"{seconds * 1e3:.2f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def amount(number: float | None, unit: str) -> str:
    """Return *number* with its *unit*, one of ``shm_monitor.schema.Metric``.

    >>> amount(3 * 2**20, "bytes"), amount(97.25, "percent"), amount(None, "bytes")
    ('3.0 MB', '97.2 %', 'unknown')
    """
    if number is None:
        return "unknown"
    if unit.startswith("bytes"):
        return size(number) + ("/s" if unit == "bytes_per_second" else "")
    return f"{number:.1f} {'%' if unit == 'percent' else unit}"


def printable(text: str) -> str:
    r"""Return *text* with everything in it that is not printed written as JSON escapes it.

    The names of interfaces, mounts, processes and GPUs are not ours: an ESC in one would be obeyed by the terminal,
    a newline would make a line that nobody printed, a lone surrogate (a byte that is not UTF-8) cannot be encoded.

    >>> print(printable("eth\x1b[2J"), printable("a\nb"))
    eth\u001b[2J a\nb
    """
    if text.isprintable():
        return text
    with importing:
        import json  # 3 ms, only where there is something to escape

    return "".join(one if one.isprintable() else json.dumps(one)[1:-1] for one in text)


def printable_lines(text: str) -> str:
    """Return *text* as ``printable`` does, less its newlines, which stay."""
    return "\n".join(map(printable, text.split("\n")))


def _count(value: float) -> str:
    return f"{value:,d}" if isinstance(value, int) else f"{value:g}"  # half a CPU is a count, too


_FORMATS: dict[str, Callable[[float], str]] = {  # the longest first: _bytes_per_second ends in _second, too
    "_bytes_per_second": lambda value: f"{size(value)}/s",
    "_bytes_count": size,
    "_percent": "{:.1f} %".format,
    "_bytes": size,
    "_count": _count,
    "_seconds": duration,
    "_celsius": "{:.0f} °C".format,
    "_watts": "{:.0f} W".format,
    "_mhz": "{:.0f} MHz".format,
}


def human(field: str, value: Cell) -> str:
    """Return *value* of the metric field *field*, in the unit that ends the name; ``-`` for None."""
    if value is None:
        return UNKNOWN
    if isinstance(value, str):
        return value
    ending = suffix(field)
    if ending in _FORMATS:
        return _FORMATS[ending](value)
    return f"{value:,d}" if isinstance(value, int) else f"{value:.2f}"


def suffix(field: str) -> str:
    """Return the unit that ends the name *field*, with its underscore; empty where none does."""
    return next((ending for ending in _FORMATS if field.endswith(ending)), "")
