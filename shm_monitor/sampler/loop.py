"""One sample after the other: read the sources, roll the statistics, decide, publish."""

from __future__ import annotations

import contextlib
import logging
import math
import os
import time
from typing import TYPE_CHECKING, Any

import numpy as np

from shm_monitor import collectors
from shm_monitor.collectors.cgroup.scope import Cgroups, Scope
from shm_monitor.collectors.files import Roots
from shm_monitor.collectors.sources import Source, source_for
from shm_monitor.config import in_force
from shm_monitor.decision.decider import Decider
from shm_monitor.decision.rules import Rule, rules
from shm_monitor.errors import FencedError
from shm_monitor.kernels import Rolling
from shm_monitor.sampler.attendance import Attendance, Told
from shm_monitor.sampler.episodes import Episodes
from shm_monitor.sampler.holdings import highest, holdings
from shm_monitor.sampler.kernel_support import NO_SUPPORT, KernelSupport
from shm_monitor.sampler.own_cost import OwnCost
from shm_monitor.sampler.process_publisher import ProcessPublisher
from shm_monitor.sampler.publisher import Publisher
from shm_monitor.sampler.readings import Readings
from shm_monitor.schema import TRACK_FIELDS, Metric, Schema, Unknown, unknown
from shm_monitor.segment.flags import BETWEEN, INJECTED, INJECTED_BEFORE
from shm_monitor.segment.injection import Injector
from shm_monitor.segment.memory_identity import packed

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from shm_monitor.config.resource import ResourceConfig
    from shm_monitor.supervision.handshake import Order

_log = logging.getLogger("shm_monitor.sampler")


class Sampler:
    """One sampler of one name, from its first sample to its clean stop."""

    def __init__(
        self,
        order: Order,
        sources: Sequence[Source],
        *,
        support: KernelSupport = NO_SUPPORT,
        clock: Callable[[], int] = time.monotonic_ns,
        realtime: Callable[[], int] = time.time_ns,
    ) -> None:
        """Open the segment; the lock of its name must be held.

        Raises:
            NoSpaceError: shared memory is full.
        """
        config = order.config
        self._clock, self._realtime = clock, realtime
        self._cost = OwnCost(sources, clock)
        self._readings = Readings([*sources, source_for(self._cost, config.check_interval, clock)])
        table, facts = self._readings.metrics, _facts(sources)
        devices = {one["instance"]: one["uuid"] for one in facts.get("gpu", {}).get("devices", ())}
        chosen = rules(config, table, devices=devices)
        schema = Schema(table, tuple(rule.limit for rule in chosen), _names(sources), facts, TRACK_FIELDS)
        self._publisher = _publisher(config, schema, support)
        self._interval_place, self._began_ns = schema.places["sampler.interval_seconds"], 0
        self._injector = (
            Injector(config.name, schema.places, period_ns=int(config.observation_period * 1e9), clock=clock)
            if config.allow_injection
            else None
        )
        self._rolling, self._decider = _deciders(config, chosen, table, self._publisher)
        self._holdings = holdings(chosen, table)
        self._attendance = Attendance(
            config.name,
            self._holdings,
            lambda: clock() / 1e9,
            gpu_interval_seconds=config.gpu_interval or config.check_interval,
        )
        is_asked_for = {"memory", "gpu-memory"}
        self._others = np.array([rule.limit.name.partition(":")[0] not in is_asked_for for rule in chosen], bool)
        self._episodes = Episodes(config.name, chosen)
        self._processes = ProcessPublisher(config.name, [source.collector for source in sources])
        self._name = config.name
        in_force.publish(config)

    @property
    def taken_over(self) -> bool:
        """True when the history of a dead sampler goes on."""
        return self._publisher.taken_over

    @property
    def limits_count(self) -> int:
        """How many limits each sample is decided for."""
        return len(self._decider.words)

    @property
    def missed_turns_count(self) -> int:
        """Turns that were skipped for being late; the loop writes it for the next sample."""
        return self._cost.missed_turns_count

    @missed_turns_count.setter
    def missed_turns_count(self, count: int) -> None:
        self._cost.missed_turns_count = count

    def sample(self) -> None:
        """Take one sample: readings, statistics, decision, flags.

        Raises:
            Fenced: another sampler took the segment; nothing was written.
        """
        began_ns, realtime_ns = self._clock(), self._realtime()
        values = self._publisher.record["values"][0]
        self._readings.read(values)
        self._processes.turn(self._publisher.check_fence)
        self._publish(began_ns, realtime_ns, verdict=0)
        for index, source in enumerate(self._readings.sources[:-1]):
            self._publisher.tell_collector(
                index, last_ok_mono_ns=source.last_ok_mono_ns, error_count=source.errors_count
            )
        self._cost.sample_duration_seconds = (self._clock() - began_ns) / 1e9

    @property
    def wait_seconds(self) -> float:
        """In how many seconds memory should be looked at again; infinite while it does not rise and nobody is asked."""
        return min(self._decider.wait_seconds, self._attendance.wait_seconds) if self._readings.has_urgent else math.inf

    def sample_between(self) -> None:
        """Take a sample between two turns: memory is read again, all else stays as it was.

        Raises:
            Fenced: another sampler took the segment; nothing was written.
        """
        began_ns, realtime_ns = self._clock(), self._realtime()
        values = self._publisher.record["values"][0]
        self._readings.read_urgent(values)
        self._publish(began_ns, realtime_ns, verdict=BETWEEN)

    def _publish(self, began_ns: int, realtime_ns: int, *, verdict: int) -> None:
        """Roll, decide and publish the values of the record, which were taken at *began_ns*."""
        record = self._publisher.record
        values = record["values"][0]
        values[self._interval_place] = (
            (began_ns - self._began_ns) / 1e9 if self._began_ns else unknown(Unknown.NOT_YET_SAMPLED)
        )
        self._began_ns = began_ns
        record["verdict"] = verdict
        false_marks = 0 if self._injector is None else self._inject(values)
        record["mono_ns"] = began_ns
        record["number"] = self._publisher.head + 1
        self._rolling.advance(record)
        self._decider.decide(record, injected=bool(false_marks))
        record["verdict"] |= np.uint64(verdict | false_marks)
        words = self._decider.words
        told = self._told(record, words) if self._attendance.is_wanted else None
        self._publisher.publish(mono_ns=began_ns, realtime_ns=realtime_ns, verdicts=words, told=told)
        self._episodes.turn(record, words)

    def _inject(self, values: NDArray[np.float64]) -> int:
        """Put injected readings into *values*; return the bits that mark the sample."""
        assert self._injector is not None
        injected = self._injector.current()
        for place, value in injected.items():
            values[place] = value
        return (INJECTED if injected else 0) | (INJECTED_BEFORE if self._injector.counts else 0)

    def close(self) -> None:
        """Stop cleanly: readers see "stopped" at once, and the name goes."""
        self._readings.close()
        del self._rolling, self._decider  # their views pin the mapping
        with contextlib.suppress(FencedError):  # else what is open is the next sampler's to go on with
            self._publisher.check_fence()
            self._episodes.stop(self._clock() / 1e9, self._realtime() / 1e9)
            self._processes.close()
            in_force.remove(self._name)
        self._publisher.close()

    def _told(self, record: NDArray[np.void], words: NDArray[np.uint64]) -> Told:
        """Return what the workers that are present are told."""
        pressures = [one.pressure(record, words) for one in self._holdings]
        return self._attendance.turn(pressures, highest(words[self._others]))


def _publisher(config: ResourceConfig, schema: Schema, support: KernelSupport) -> Publisher:
    return Publisher(
        config.name,
        schema,
        slot_count=config.history_slots,
        interval_ns=int(config.check_interval * 1e9),
        stale_after_ns=int(config.stale_after_seconds * 1e9),
        period_ns=int(config.observation_period * 1e9),
        support=support,
        accepts_injection=config.allow_injection,
        memory_cgroups=_memory_cgroups(config.scope),
    )


def _memory_cgroups(scope: str) -> bytes:
    """Return the identities of the memory cgroups of *scope*; none for the host, which is everybody's."""
    if scope == "host":
        return b""
    cgroups = Cgroups(Scope.parse(scope), Roots())
    try:
        return packed([str(one.path) for one in cgroups.of("memory")])
    finally:
        cgroups.close()


def _deciders(
    config: ResourceConfig, chosen: Sequence[Rule], table: Sequence[Metric], publisher: Publisher
) -> tuple[Rolling, Decider]:
    """Return what computes the statistics and what decides; both go on where a dead sampler stopped."""
    rolling = Rolling(
        publisher.ring,
        rolled=publisher.record["means"].shape[1],
        period_seconds=config.observation_period,
        urgent=[metric.group == "memory" for metric in table if metric.rolled],
    )
    decider = Decider(chosen, period_seconds=config.observation_period, horizon_seconds=config.forecast_horizon)
    if publisher.taken_over:
        rolling.rebuild(publisher.head)
        decider.resume(publisher.ring, publisher.head)
    return rolling, decider


def sources_for(order: Order) -> list[Source]:
    """Return the sources that *order* asks for."""
    config = order.config
    found = collectors.discover(
        config.collectors,
        scope=config.scope,
        interfaces=config.interfaces,
        mounts=config.mounts,
        gpus=config.gpus,
        gpu_interval=config.gpu_interval,
        cuda_visible_devices=os.environ.get("CUDA_VISIBLE_DEVICES") if config.only_visible_gpus else None,
        cuda_device_order=os.environ.get("CUDA_DEVICE_ORDER") or "FASTEST_FIRST",
        owner_pid=order.owner_pid,
    )
    if not any(collector.name == "memory" for collector in found):
        _log.warning("COLLECTORS leaves memory out: nothing is decided about memory")
    return [source_for(collector, config.check_interval) for collector in found]


def _names(sources: Sequence[Source]) -> tuple[str, ...]:
    return tuple(source.collector.name for source in sources)


def _facts(sources: Sequence[Source]) -> dict[str, Any]:
    return {source.collector.name: dict(source.collector.facts) for source in sources}
