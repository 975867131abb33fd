"""The public surface as a type checker sees it. Nothing here runs: ``make check`` gives it to mypy and to pyright."""

from __future__ import annotations

from collections.abc import Callable
from multiprocessing.pool import Pool
from typing import assert_type

import shm_monitor as sm
from shm_monitor import kernels


def a_worker_asks() -> None:
    reader = sm.attach("train", timeout=1.0, watch=["memory", "gpu:3"], on_stale="hold", required=False)
    assert_type(reader, sm.Reader)
    assert_type(reader.name, str)
    assert_type(reader.should_prune(), bool)
    assert_type(reader.level(), sm.Level)
    assert_type(reader.level() >= sm.Level.PRUNE, bool)
    assert_type(reader.reasons(), tuple[str, ...])
    assert_type(reader.shed_fraction(), float)
    assert_type(reader.shed_bytes(), int)
    assert_type(reader.age(), float)
    assert_type(reader.wait(0.1), bool)
    assert_type(reader.flag_address, int)
    assert_type(kernels.should_prune_at(reader.flag_address), bool)
    reader.close()


def a_worker_asks_with_the_fewest_words() -> None:
    with sm.attach() as reader:
        assert_type(reader, sm.Reader)
        question: Callable[[], bool] = reader.should_prune
        assert_type(question(), bool)


async def a_coroutine_waits(reader: sm.Reader) -> None:
    assert_type(await reader.changed(timeout=1.0), bool)


def a_worker_asks_why(reader: sm.Reader) -> None:
    explanation = reader.explain()
    assert_type(explanation, sm.Explanation)
    assert_type(explanation.should_prune, bool)
    assert_type(explanation.level, str)
    for reason in explanation.reasons:
        assert_type(reason.limit, str)
        assert_type(reason.value, float | None)
    headroom = reader.headroom()
    assert_type(headroom.limit, str)
    assert_type(headroom.ratio, float | None)


def a_worker_reads_the_numbers(reader: sm.Reader) -> None:
    snapshot = reader.snapshot()
    assert_type(snapshot, sm.Snapshot)
    assert_type(snapshot.sequence, int)
    assert_type(snapshot.memory.usage_bytes, int | None)
    assert_type(snapshot.cpu.cpu_percent, float | None)
    assert_type([gpu.utilization_percent for gpu in snapshot.gpus], list[float | None])
    history = reader.history(["memory.usage_bytes"], seconds=10.0, since=3, step=2)
    assert_type(history, sm.History)
    assert_type(history.columns, dict[str, list[float | None]])
    assert_type(history.sequences, list[int])
    status = reader.status()
    assert_type(status, sm.Status)
    assert_type(status.state, str)
    assert_type(status.pid, int | None)
    assert_type(status._replace(detail="x"), sm.Status)


def an_owner_manages(config: sm.ResourceConfig) -> None:
    with sm.ResourceManager(config, watch="memory") as manager:
        assert_type(manager, sm.ResourceManager)
        assert_type(manager.name, str)
        assert_type(manager.should_prune(), bool)
        assert_type(manager.check_interval, float)
        assert_type(manager.explain(), sm.Explanation)
        assert_type(manager.config, sm.ResourceConfig)
        assert_type(manager.reader, sm.Reader)
        assert_type(manager.owns_sampler, bool)


def a_configuration_is_loaded() -> None:
    config = sm.ResourceConfig(
        observation_period=20.0, check_interval=2.0, target_utilization=0.85, max_memory_usage_mb=4096.0
    )
    assert_type(config.max_memory_usage_mb, float | None)
    assert_type(sm.ResourceConfig.load(environ={}, check_interval=0.5), sm.ResourceConfig)
    try:
        sm.ResourceConfig.load(env_file=".env")
    except sm.ConfigError as error:
        assert_type(error.key, str)
        assert_type(error.allowed, str)


def a_monitor_reads_directly() -> None:
    with sm.ResourceMonitor() as monitor:
        assert_type(monitor.get_cpu_percent(), float | None)
        assert_type(monitor.get_memory_usage_mb(), float | None)
        assert_type(monitor.get_gpu_percent(), tuple[float, float])
        assert_type(monitor.get_network_usage_bytes_per_second(), float | None)


def errors_carry_their_numbers() -> None:
    try:
        sm.ResourceManager()
    except sm.AlreadyRunningError as error:
        assert_type(error.holder_pid, int)
    except sm.NoSpaceError as error:
        assert_type(error.free_bytes, int)
    except sm.SegmentError as error:
        assert_type(error.name, str)
    except sm.StaleError as error:
        assert_type(error.age_seconds, float)
    except sm.UnknownLimitError as error:
        assert_type(error.known, tuple[str, ...])
    except sm.MonitorError as error:
        assert_type(error, sm.MonitorError)


def what_a_type_checker_must_refuse(reader: sm.Reader) -> None:
    reader.should_prune(1)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    sm.attach(on_stale="sometimes")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    sm.attach("train", 1.0)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    sm.ResourceConfig(20.0)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    sm.Snapshots  # type: ignore[attr-defined]  # noqa: B018  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]


def a_pool_is_mapped_as_memory_allows(pool: Pool) -> None:
    results = sm.bounded_map(pool, len, ["a", "bc"], ordered=False)
    for result in results:
        assert_type(result, int)
    results.close()
