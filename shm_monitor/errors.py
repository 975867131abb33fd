"""The errors that a user of shm-monitor can meet.

::

    MonitorError
    +-- ConfigError              a setting that cannot be obeyed
    +-- MissingDependencyError   an optional part is not installed
    +-- SamplerError             the sampler could not start or was refused
    |   +-- InterpreterError     no Python is known that could run it
    |   +-- AlreadyRunningError  another live sampler holds this name
    |   +-- InterpreterError     no Python is known that could run a sampler
    |   +-- OtherConfigError     a running sampler has other settings (``strict=True``)
    |   +-- NoSpaceError         shared memory is full
    |   `-- FencedError          another sampler has taken the segment over
    +-- SegmentError             the segment cannot be read
    |   +-- NotFoundError        nothing under this name
    |   +-- NotReadyError        there, but its sampler has not finished starting
    |   +-- IncompatibleError    written by another major version
    |   +-- CorruptError         bytes that no sampler writes
    |   |-- UntrustedError       somebody else could have written it
    |   `-- OtherMemoryError     its sampler measures the memory of another cgroup
    +-- MemoryWaitError          a task waited for memory as long as it was allowed to
    +-- StaleError               the newest sample is too old (``on_stale="raise"``)
    +-- UnknownLimitError        a watched limit that this sampler does not have
    +-- UnknownMetricError       a metric that this sampler does not have
    +-- TraceError               a recorded trace that cannot be read
    `-- UnsafeSplitError         slices of a batch would train another model than the batch
"""

from __future__ import annotations

from shm_monitor.forks import importing

TYPE_CHECKING = False  # as typing's, which a worker does not load

if TYPE_CHECKING:
    from typing import Self

EXTRA_OF = {
    **dict.fromkeys(("llvmlite", "numba", "numpy", "psutil", "pynvml"), "sampler"),
    **dict.fromkeys(("fastapi", "fastapi_offline", "prometheus_client", "starlette", "uvicorn"), "api"),
    **dict.fromkeys(("plotly", "tqdm"), "report"),
    **dict.fromkeys(("rich", "textual"), "tui"),
}
"""The extra that brings a package, by the name it is imported by."""


class MonitorError(Exception):
    """Anything that shm-monitor raises on purpose; survives ``pickle`` and ``copy`` with its attributes."""

    def __reduce__(self) -> tuple[object, ...]:
        """Say how to make it again without its ``__init__``.

        An exception is otherwise made again as ``type(self)(*self.args)``, and *args* is the finished message: one that
        cannot be made again hangs a ``multiprocessing.Pool`` and breaks a ``ProcessPoolExecutor``.
        """
        return _made_again, (type(self), self.args), self.__dict__


def _made_again(kind: type[MonitorError], args: tuple[object, ...]) -> MonitorError:
    return kind.__new__(kind, *args)


class ConfigError(MonitorError):
    """A setting or an argument is of the wrong type, out of range, contradictory (to the setting *other*) or unknown.

    *allowed* says what to write instead; *remedy* is a command that shows more.
    """

    def __init__(
        self, key: str, value: object, origin: str, allowed: str, *, other: str = "", remedy: str = ""
    ) -> None:
        shown = repr(value)
        shown = shown if len(shown) <= 120 else f"{shown[:117]}..."
        super().__init__(f"{key}={shown} (from {origin}): {allowed}{remedy and f'; try: {remedy}'}")
        self.key = key
        self.value = value
        self.origin = origin
        self.allowed = allowed
        self.other = other


def install_command(extra: str = "") -> str:
    """Return what installs *extra*, where this package came from: in a clone, from the clone.

    Source: https://packaging.python.org/en/latest/specifications/direct-url/
    """
    import json  # by who lacks something alone
    from importlib.metadata import PackageNotFoundError, distribution

    brackets = f"[{extra}]" if extra else ""
    try:
        origin = json.loads(distribution("shm-monitor").read_text("direct_url.json") or "{}")
    except (PackageNotFoundError, OSError, ValueError):
        origin = {}
    if "dir_info" in origin:
        return f'pip install {"-e " if origin["dir_info"].get("editable") else ""}".{brackets}"'
    if "vcs_info" in origin:
        return f'pip install "shm-monitor{brackets} @ {origin["vcs_info"]["vcs"]}+{origin["url"]}"'
    return f'pip install "shm-monitor{brackets}"'


class MissingDependencyError(MonitorError, ImportError):
    """An optional part was asked for and its packages are not installed; an ``ImportError`` too."""

    def __init__(self, part: str, extra: str, package: str) -> None:
        super().__init__(f"{part} needs the package {package!r}, which is not installed; try: {install_command(extra)}")
        self.part = part
        self.extra = extra
        self.package = package

    @classmethod
    def of(cls, part: str, error: ModuleNotFoundError) -> Self:
        """Return what to raise where *part* could not be imported for *error*; *error* itself where it is no extra's.

        Raises:
            ModuleNotFoundError: *error*, where the package is none of an extra.
        """
        package = (error.name or "").partition(".")[0]
        if package not in EXTRA_OF:
            raise error
        return cls(part, EXTRA_OF[package], package)


class SamplerError(MonitorError):
    """The sampler could not start, or ended before its first sample."""


class InterpreterError(SamplerError):
    """No Python is known that could run a process of ours."""

    def __init__(self, why: str) -> None:
        super().__init__(
            f"{why}; name the Python that has shm-monitor installed: "
            "SHM_MONITOR_PYTHON=/path/to/python, or ResourceConfig(python=...)"
        )
        self.why = why


class AlreadyRunningError(SamplerError):
    """Another live sampler holds the lock of this name."""

    def __init__(self, name: str, holder_pid: int) -> None:
        who = f"process {holder_pid}" if holder_pid > 0 else "a process of another pid namespace"
        super().__init__(
            f"a sampler named {name!r} is already running ({who}); "
            f"attach to it, or choose another name; try: shm-monitor status --name {name}"
        )
        self.name = name
        self.holder_pid = holder_pid


class OtherConfigError(SamplerError):
    """The sampler that runs has other settings than those that were asked for.

    Attributes:
        missing: each setting that is not in force: what was asked for, and what is in force.
    """

    def __init__(self, name: str, missing: dict[str, list[object]]) -> None:
        settings = "; ".join(f"{key}={ours!r} was asked for, {theirs!r} is" for key, (ours, theirs) in missing.items())
        super().__init__(
            f"the sampler {name!r} that runs has other settings in force: {settings}; "
            "stop it, or choose another name; try: shm-monitor list"
        )
        self.missing = missing


class NoSpaceError(SamplerError):
    """Shared memory has no room for the segment."""

    def __init__(self, path: str, needed_bytes: int, free_bytes: int) -> None:
        super().__init__(
            f"{path} needs {needed_bytes} bytes of shared memory and {free_bytes} are free; "
            "try: a larger /dev/shm (docker run --shm-size=256m), a smaller HISTORY_SECONDS, or shm-monitor clean"
        )
        self.path = path
        self.needed_bytes = needed_bytes
        self.free_bytes = free_bytes


class FencedError(SamplerError):
    """Another sampler owns the segment now, or it was removed; this one must not touch it again."""


class SegmentError(MonitorError):
    """A segment cannot be read; *name* is the one that was asked for."""

    def __init__(self, name: str, message: str) -> None:
        super().__init__(message)
        self.name = name


class NotFoundError(SegmentError):
    """No segment has this name."""

    def __init__(self, name: str, path: str, *, root_has_one: bool = False) -> None:
        advice = f"try: shm-monitor run --name {name}"
        if root_has_one:
            advice = (
                "root has a sampler of this name, which only root's processes may read; start one as this user "
                f"({advice}), or have root serve it over HTTP: shm-monitor api"
            )
        super().__init__(name, f"no sampler named {name!r}: {path} does not exist; {advice}")
        self.path = path


class NotReadyError(SegmentError):
    """The segment exists and its sampler has not finished starting."""

    def __init__(self, name: str, detail: str) -> None:
        super().__init__(
            name, f"the sampler {name!r} is not ready: {detail}; try again, or: shm-monitor status --name {name}"
        )


class IncompatibleError(SegmentError):
    """The segment was written by a version that this one cannot read."""

    def __init__(self, name: str, found: str, expected: str) -> None:
        super().__init__(
            name,
            f"the segment {name!r} has {found}, this version reads {expected}; "
            "run the sampler and its workers with the same shm-monitor, or restart: shm-monitor run --name " + name,
        )
        self.found = found
        self.expected = expected


class CorruptError(SegmentError):
    """The segment holds bytes that no sampler writes."""

    def __init__(self, name: str, detail: str) -> None:
        super().__init__(
            name, f"the segment {name!r} is damaged: {detail}; try: shm-monitor clean, then start the sampler again"
        )
        self.detail = detail


class UntrustedError(SegmentError):
    """Somebody else could have written the segment (owner, mode, link), or has taken its name.

    Attributes:
        owner_uid: who owns what lies there; None where that is not known.
    """

    def __init__(self, name: str, path: str, detail: str, *, owner_uid: int | None = None) -> None:
        super().__init__(name, f"{path} is not trusted: {detail}; try: ls -ld {path}")
        self.path = path
        self.detail = detail
        self.owner_uid = owner_uid


class OtherMemoryError(SegmentError):
    """The sampler does not measure the innermost cgroup that limits the memory of this process.

    Attributes:
        own: the cgroup of this process, with its limit.
        measured: the cgroup that the sampler measures, with its limit.
    """

    def __init__(self, name: str, own: str, measured: str) -> None:
        super().__init__(
            name,
            f"the sampler {name!r} measures {measured}, but this process is limited by {own}; try, in the container "
            'of this process: shm-monitor run -- CMD; to watch that sampler all the same: attach(..., scope="any")',
        )
        self.own = own
        self.measured = measured


class StaleError(MonitorError):
    """The newest sample is older than the caller accepts."""

    def __init__(self, name: str, state: str, age_seconds: float) -> None:
        super().__init__(
            f"the sampler {name!r} is {state}, its newest sample is {age_seconds:.2f} s old; "
            f"try: shm-monitor status --name {name}"
        )
        self.name = name
        self.state = state
        self.age_seconds = age_seconds


class MemoryWaitError(MonitorError):
    """A task waited for memory for as long as it was allowed to."""

    def __init__(self, what: str, waited_seconds: float, free_bytes: int) -> None:
        super().__init__(
            f"{what} waited {waited_seconds:.1f} s for memory; {max(free_bytes, 0) / 1e6:,.0f} MB are free and partly "
            "promised to tasks that run; try: a larger max_wait, a smaller task, or a higher memory limit"
        )
        self.waited_seconds = waited_seconds
        self.free_bytes = free_bytes


class UnknownLimitError(MonitorError):
    """A watched limit does not exist in this segment."""

    def __init__(self, asked: str, known: tuple[str, ...]) -> None:
        super().__init__(
            f"no limit {asked!r}; this sampler has: {', '.join(known) or 'none'}; "
            "a limit exists once the sampler is configured to have it; try: shm-monitor config init -o -"
        )
        self.asked = asked
        self.known = known


class UnknownMetricError(MonitorError):
    """A metric does not exist in this segment."""

    def __init__(self, asked: str, known: tuple[str, ...]) -> None:
        with importing:
            from difflib import get_close_matches  # only where an error is made

        near = get_close_matches(asked, known, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        super().__init__(f"no metric {asked!r}; this sampler has {len(known)}{hint} try: shm-monitor schema")
        self.asked = asked
        self.known = known


class TraceError(MonitorError):
    """A recorded trace cannot be read; *where* is the file and, where known, the line or byte."""

    def __init__(self, where: str, seen: str, allowed: str) -> None:
        super().__init__(f"{where}: {seen}; {allowed}")
        self.where = where


class UnsafeSplitError(MonitorError):
    """The result of a model over slices of a batch is not that over the batch."""

    def __init__(self, layer: str, kind: str) -> None:
        super().__init__(
            f"layer {layer!r} ({kind}) normalises over the batch, so slices of it train another model; "
            "try: GroupNorm or LayerNorm, or scale the loader's batch with Governor instead of splitting it"
        )
        self.layer = layer
        self.kind = kind
