"""From the names that a worker watches to the flags that it reads."""

from __future__ import annotations

from shm_monitor.errors import UnknownLimitError
from shm_monitor.forks import importing
from shm_monitor.light import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from shm_monitor.schema import Limit, Schema

OVERALL: tuple[int, ...] = (0,)
MANY = 4  # flags or more: their number may change with the sampler


def flag_indices(watch: Iterable[str], schema: Schema) -> tuple[int, ...]:
    """Return the flags of the limits in *watch*, in order, each once; flag 0, the overall verdict, stands for all.

    A name is a limit's own (``memory:host``, ``gpu:3``, ``gpu-memory:3``), ``memory`` for every level of memory,
    ``gpu`` for every limit of every GPU, or a device's UUID for every limit of that device.

    Raises:
        UnknownLimitError: a name that this sampler does not have; lists those it has.
    """
    found: dict[int, None] = {}
    for name in watch:
        matching = [index + 1 for index, limit in enumerate(schema.limits) if _matches(name, limit)]
        if not matching:
            raise UnknownLimitError(name, known_names(schema))
        found.update(dict.fromkeys(matching))
    return tuple(found) if 0 < len(found) < len(schema.limits) else OVERALL


def known_indices(watch: Iterable[str], schema: Schema) -> tuple[int, ...]:
    """Return the same less the names that are unknown, and the overall flag where none is known.

    For a reader that must not raise: its GPU may be gone after a restart, or never have been there. The log says which.
    """
    found = {name: any(_matches(name, limit) for limit in schema.limits) for name in watch}
    for name in (name for name, is_known in found.items() if not is_known):
        with importing:
            import logging  # 5 ms that only a worker pays that watches what is not there

        logging.getLogger("shm_monitor").warning("not watched: %s", UnknownLimitError(name, known_names(schema)))
    return flag_indices([name for name, is_known in found.items() if is_known], schema)


def flag_count(watch: tuple[str, ...] | None) -> int:
    """Return how many flags *watch* comes to, before there is a sampler to ask; 4 for as many as there will be."""
    single, kinds = {"cpu", "network"}, ("memory:", "gpu:", "gpu-memory:")
    if watch is not None and all(name in single or name.startswith(kinds) for name in watch):
        return min(max(len(watch), 1), MANY)
    return 1 if watch is None else MANY


def known_names(schema: Schema) -> tuple[str, ...]:
    """Return every name that can be watched."""
    names = [limit.name for limit in schema.limits]
    uuids = [limit.device for limit in schema.limits if limit.device]
    kinds = ["memory"] if any(name.startswith("memory:") for name in names) else []
    return tuple(dict.fromkeys([*kinds, *names, *(["gpu"] if uuids else []), *uuids]))


def _matches(name: str, limit: Limit) -> bool:
    if name == "memory":
        return limit.name.partition(":")[0] == name
    return (bool(name) and name in {limit.name, limit.device}) or (name == "gpu" and limit.name.startswith("gpu"))
