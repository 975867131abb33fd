"""shm-monitor: one sampler measures, any number of workers ask ``should_prune()`` in nanoseconds.

Importing this package loads nothing but the standard library; every name below is loaded when first used (PEP 562).
"""

from shm_monitor.forks import importing

TYPE_CHECKING = False  # as typing's, which takes longer to import than all of this

__version__ = "0.1.0"

_HOMES = {
    "AgreedVerdict": "acting.ranks",
    "BoundedExecutor": "acting.pools",
    "HostRanks": "acting.ranks",
    "bounded": "acting.reservations.reservation",
    "bounded_map": "acting.bounded_map",
    "reserve": "acting.reservations.reservation",
    "wait_for_memory": "acting.reservations.reservation",
    "calm": "acting.wait_for_calm",
    "calm_async": "acting.wait_for_calm",
    "throttle": "acting.wait_for_calm",
    "when_pressed": "acting.wait_for_calm",
    "Episode": "worker.episode",
    "Explanation": "worker.explanation",
    "Governor": "acting.governor",
    "History": "worker.history",
    "Level": "schema",
    "MicroBatch": "acting.microbatch",
    "Reader": "worker.reader",
    "ResourceConfig": "config.resource",
    "ResourceManager": "manager",
    "ResourceMonitor": "monitor",
    "Snapshot": "snapshot.structs",
    "Status": "segment.status",
    "attach": "worker.attaching",
    "AlreadyRunningError": "errors",
    "ConfigError": "errors",
    "CorruptError": "errors",
    "FencedError": "errors",
    "IncompatibleError": "errors",
    "InterpreterError": "errors",
    "MemoryWaitError": "errors",
    "MissingDependencyError": "errors",
    "MonitorError": "errors",
    "NoSpaceError": "errors",
    "NotFoundError": "errors",
    "NotReadyError": "errors",
    "OtherMemoryError": "errors",
    "OtherConfigError": "errors",
    "SamplerError": "errors",
    "SegmentError": "errors",
    "StaleError": "errors",
    "TraceError": "errors",
    "UnknownLimitError": "errors",
    "UnknownMetricError": "errors",
    "UnsafeSplitError": "errors",
    "UntrustedError": "errors",
}

if TYPE_CHECKING:
    from shm_monitor.acting.bounded_map import bounded_map as bounded_map
    from shm_monitor.acting.governor import Governor as Governor
    from shm_monitor.acting.microbatch import MicroBatch as MicroBatch
    from shm_monitor.acting.pools import BoundedExecutor as BoundedExecutor
    from shm_monitor.acting.ranks import AgreedVerdict as AgreedVerdict
    from shm_monitor.acting.ranks import HostRanks as HostRanks
    from shm_monitor.acting.reservations.reservation import bounded as bounded
    from shm_monitor.acting.reservations.reservation import reserve as reserve
    from shm_monitor.acting.reservations.reservation import wait_for_memory as wait_for_memory
    from shm_monitor.acting.wait_for_calm import calm as calm
    from shm_monitor.acting.wait_for_calm import calm_async as calm_async
    from shm_monitor.acting.wait_for_calm import throttle as throttle
    from shm_monitor.acting.wait_for_calm import when_pressed as when_pressed
    from shm_monitor.config.resource import ResourceConfig as ResourceConfig
    from shm_monitor.errors import AlreadyRunningError as AlreadyRunningError
    from shm_monitor.errors import ConfigError as ConfigError
    from shm_monitor.errors import CorruptError as CorruptError
    from shm_monitor.errors import FencedError as FencedError
    from shm_monitor.errors import IncompatibleError as IncompatibleError
    from shm_monitor.errors import InterpreterError as InterpreterError
    from shm_monitor.errors import MemoryWaitError as MemoryWaitError
    from shm_monitor.errors import MissingDependencyError as MissingDependencyError
    from shm_monitor.errors import MonitorError as MonitorError
    from shm_monitor.errors import NoSpaceError as NoSpaceError
    from shm_monitor.errors import NotFoundError as NotFoundError
    from shm_monitor.errors import NotReadyError as NotReadyError
    from shm_monitor.errors import OtherConfigError as OtherConfigError
    from shm_monitor.errors import OtherMemoryError as OtherMemoryError
    from shm_monitor.errors import SamplerError as SamplerError
    from shm_monitor.errors import SegmentError as SegmentError
    from shm_monitor.errors import StaleError as StaleError
    from shm_monitor.errors import TraceError as TraceError
    from shm_monitor.errors import UnknownLimitError as UnknownLimitError
    from shm_monitor.errors import UnknownMetricError as UnknownMetricError
    from shm_monitor.errors import UnsafeSplitError as UnsafeSplitError
    from shm_monitor.errors import UntrustedError as UntrustedError
    from shm_monitor.manager import ResourceManager as ResourceManager
    from shm_monitor.monitor import ResourceMonitor as ResourceMonitor
    from shm_monitor.schema import Level as Level
    from shm_monitor.segment.status import Status as Status
    from shm_monitor.snapshot.structs import Snapshot as Snapshot
    from shm_monitor.worker.attaching import attach as attach
    from shm_monitor.worker.episode import Episode as Episode
    from shm_monitor.worker.explanation import Explanation as Explanation
    from shm_monitor.worker.history import History as History
    from shm_monitor.worker.reader import Reader as Reader

__all__ = [*_HOMES, "__version__"]  # noqa: PLE0604 - the keys are strings


def _loaded(name: str) -> object:
    """Return the public *name*, from its home; the next look-up finds it here."""
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'shm_monitor' has no attribute {name!r}")
    try:
        with importing:
            module = __import__(f"shm_monitor.{home}", fromlist=[name])
    except ModuleNotFoundError as error:
        from shm_monitor.errors import MissingDependencyError

        raise MissingDependencyError.of(f"shm_monitor.{name}", error) from error
    value = getattr(module, name)
    globals()[name] = value
    return value


if not TYPE_CHECKING:  # a type checker would take it for leave to write any name
    __getattr__ = _loaded


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
