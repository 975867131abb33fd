"""How a worker comes to its reader: ``attach``, also where a reader was pickled."""

from __future__ import annotations

from shm_monitor.errors import ConfigError, NotFoundError
from shm_monitor.forks import importing
from shm_monitor.light import TYPE_CHECKING
from shm_monitor.segment import names
from shm_monitor.worker.attachment import ON_STALE, Attachment
from shm_monitor.worker.reader import Reader

if TYPE_CHECKING:
    from collections.abc import Iterable

    from shm_monitor.worker.attachment import MemoryScope, OnStale


def attach(
    name: str | None = None,
    *,
    timeout: float = 5.0,
    watch: Iterable[str] | None = None,
    on_stale: OnStale = "never",
    required: bool = True,
    present: bool = False,
    scope: MemoryScope = "own",
) -> Reader:
    """Return a reader of the sampler *name*. Costs about 0.1 ms once its sampler runs.

    Args:
        name: of the sampler. None for that of the newest open ``ResourceManager`` of this process or of the one that
            started it, else for ``SHM_MONITOR_NAME``, else for ``default``.
        timeout: how many seconds to wait for a sampler that is absent or still starting.
        watch: the limits that ``Reader.should_prune`` asks for (``memory``, ``cpu``, ``network``, ``gpu``,
            ``gpu:3``, ``gpu-memory:3``, a UUID); None for the overall verdict.
        on_stale: what to answer while no sampler is alive: ``never`` (False), ``always`` (True),
            ``hold`` (the last verdict) or ``raise`` (``StaleError``). A sampler that died with memory at WARN or
            above was most likely killed for it: then ``never`` goes on with its last verdict for one observation
            period, and answers False after that.
        required: false never raises, here or later: until a sampler appears the reader answers by *on_stale* and
            looks again at most once a second, and ``Reader.explain`` says that there is none. Only
            ``on_stale="raise"`` asks for an error all the same.

        scope: whose memory the sampler may measure. ``own``: the innermost cgroup that limits this process must be
            among those it measures, or the sampler was told to measure the host. ``any``: a watcher reads them all.
        present: have this process seen by the sampler, and asked for its part alone; see ``Reader.present``.

    Raises:
        ConfigError: *on_stale* is none of those allowed; *name* (or ``SHM_MONITOR_NAME``) is not, and *required*.
        SegmentError: no segment that can be read (one of its kinds), and *required*.
        OtherMemoryError: the sampler measures another cgroup, and *required*; a ``SegmentError``.
        UnknownLimitError: *watch* names a limit that the sampler does not have, and *required*.
    """
    if on_stale not in ON_STALE:
        raise ConfigError("on_stale", on_stale, "argument", f"one of {', '.join(ON_STALE)}")
    if scope not in ("own", "any"):
        raise ConfigError("scope", scope, "argument", "own or any")
    wanted = None if watch is None else tuple([watch] if isinstance(watch, str) else watch)
    try:
        resolved = names.resolve(name)
    except ConfigError as error:
        if required:
            raise
        return _reader_of_nothing(error, watch=wanted, on_stale=on_stale)
    attachment = Attachment(resolved, watch=wanted, on_stale=on_stale, scope=scope)
    attachment.open(timeout=timeout, required=required)
    reader = Reader(attachment, required=required)
    if present:
        reader.present()
    return reader


def attached_again(
    name: str,
    watch: tuple[str, ...] | None,
    on_stale: OnStale,
    required: bool,
    present: bool,
    scope: MemoryScope = "own",
) -> Reader:
    """Return a reader where one was unpickled; its sampler may be gone by now."""
    reader = attach(name, timeout=0.0, watch=watch, on_stale=on_stale, required=False, present=present, scope=scope)
    reader.required = required
    return reader


def _reader_of_nothing(error: ConfigError, *, watch: tuple[str, ...] | None, on_stale: OnStale) -> Reader:
    """Return a reader under a name that no sampler can have, which *error* says."""
    with importing:
        import logging

    logging.getLogger("shm_monitor").warning("no sampler will be found: %s", error)
    name = str(error.value)
    attachment = Attachment(name, watch=watch, on_stale=on_stale)
    attachment.close()
    attachment.trouble = NotFoundError(name, names.object_path(name))
    attachment.trouble.args = (str(error),)
    return Reader(attachment, required=False)
