"""A reader that needs no sampler: whatever is asked, and whatever there is in place of a sampler, it does not raise."""

from __future__ import annotations

import asyncio
import ctypes
import logging
import math
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from shm_monitor.errors import ConfigError, NotFoundError, StaleError
from shm_monitor.schema import Level
from shm_monitor.segment import names
from shm_monitor.snapshot.structs import Memory
from shm_monitor.worker.attaching import attach
from shm_monitor.worker.reader import Reader

if TYPE_CHECKING:
    from shm_monitor.worker.attachment import OnStale
    from tests.support.publishing import Bench


def warnings_in(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return the warnings that were logged."""
    return [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]


EVERY_QUESTION: dict[str, Callable[[Reader], object]] = {
    "should_prune": lambda reader: reader.should_prune(),
    "level": lambda reader: reader.level(),
    "reasons": lambda reader: reader.reasons(),
    "status": lambda reader: reader.status().sequence,
    "explain": lambda reader: (reader.explain().should_prune, reader.explain().level, reader.explain().reasons),
    "snapshot": lambda reader: (reader.snapshot().sequence, reader.snapshot().stale, reader.snapshot().memory),
    "headroom": lambda reader: tuple(reader.headroom()),
    "shed_fraction": lambda reader: reader.shed_fraction(),
    "shed_bytes": lambda reader: reader.shed_bytes(),
    "outlook": lambda reader: reader.outlook().is_live,
    "episode": lambda reader: reader.episode(),
    "on_change": lambda reader: reader.on_change(print)(),
    "paused_while_pressed": lambda reader: reader.paused_while_pressed(0.01)(lambda: 7)(),
    "history": lambda reader: reader.history(["memory.usage_bytes"], seconds=60).columns,
    "age": lambda reader: reader.age(),
    "wait": lambda reader: reader.wait(0.01),
    "changed": lambda reader: asyncio.run(reader.changed(0.01)),
}
WITHOUT_A_SAMPLER: dict[str, object] = {
    "should_prune": False,
    "level": Level.OK,
    "reasons": (),
    "status": None,
    "explain": (False, "ok", ()),
    "snapshot": (0, True, Memory()),
    "headroom": ("", None, None, ""),
    "shed_fraction": 0.0,
    "shed_bytes": 0,
    "outlook": False,
    "episode": None,
    "on_change": None,
    "paused_while_pressed": 7,
    "history": {"memory.usage_bytes": []},
    "age": math.inf,
    "wait": False,
    "changed": False,
}


@pytest.mark.parametrize("question", EVERY_QUESTION)
@pytest.mark.parametrize("trouble", ["absent", "closed", "unpickled", "damaged", "of a wrong name"])
def test_a_reader_that_needs_no_sampler_never_raises(name: str, question: str, trouble: str) -> None:
    """Monitoring must never break a training run."""
    if trouble == "damaged":
        path = Path(names.object_path(name))
        path.write_bytes(b"\xff" * 8192)
        path.chmod(0o600)
    with attach("a/b" if trouble == "of a wrong name" else name, timeout=0.0, required=False, on_stale="hold") as one:
        reader = pickle.loads(pickle.dumps(one)) if trouble == "unpickled" else one
        if trouble == "closed":
            reader.close()
        assert EVERY_QUESTION[question](reader) == WITHOUT_A_SAMPLER[question]


def test_without_a_sampler_the_explanation_and_the_snapshot_say_so(name: str) -> None:
    with attach(name, timeout=0.0, required=False) as reader:
        explanation, snapshot = reader.explain(), reader.snapshot()

    assert explanation.no_sampler.startswith(f"no sampler named {name!r}")
    assert str(explanation).startswith("NO SAMPLER: no sampler named")
    assert snapshot.unavailable == {"sampler": explanation.no_sampler}
    assert (snapshot.name, snapshot.stale, snapshot.gpus, snapshot.limits) == (name, True, [], [])
    assert snapshot.memory == Memory()
    assert all(getattr(snapshot.stall, field) is None for field in snapshot.stall.__struct_fields__)


@pytest.mark.parametrize("on_stale", ["never", "always"])
def test_what_to_shed_without_a_sampler_is_what_on_stale_stands_for(name: str, on_stale: OnStale) -> None:
    with attach(name, timeout=0.0, required=False, on_stale=on_stale) as reader:
        assert reader.shed_fraction() == float(on_stale == "always")


def test_only_on_stale_raise_asks_for_an_error_all_the_same(name: str) -> None:
    with attach(name, timeout=0.0, required=False, on_stale="raise") as reader:
        with pytest.raises(StaleError):
            reader.should_prune()
        with pytest.raises(StaleError):
            reader.shed_fraction()
        assert reader.explain().no_sampler
        assert reader.snapshot().sequence == 0


def test_a_wrong_name_of_a_reader_that_needs_no_sampler_is_logged(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("SHM_MONITOR_NAME", "job/7")
    with attach(timeout=0.0, required=False) as reader:
        assert reader.should_prune() is False
        assert "job/7" in reader.explain().no_sampler
    assert [line for line in warnings_in(caplog) if "job/7" in line]
    with pytest.raises(ConfigError):
        attach(timeout=0.0)


def test_a_metric_that_the_sampler_lacks_is_a_column_of_none_where_none_is_required(bench: Bench) -> None:
    metric = bench.schema.metrics[0].name
    with attach(bench.name, required=False) as reader:
        columns = reader.history([metric, "gpu:3.power_watts"]).columns
    assert columns == {metric: [1.0], "gpu:3.power_watts": [None]}


def test_the_limits_of_the_readme_are_watched_as_far_as_they_exist(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    """On a machine without a GPU; the log says which limits there are."""
    with attach(bench.name, watch=["memory", "gpu:3"], required=False) as reader:
        bench.publish(Level.OK, Level.PRUNE)  # the second limit of this sampler is cpu
        assert reader.should_prune() is False
        bench.publish(Level.PRUNE)
        assert reader.should_prune() is True
    assert [line for line in warnings_in(caplog) if "'gpu:3'; this sampler has: memory, cpu" in line]


def test_an_unpickled_reader_requires_what_the_first_one_did(bench: Bench) -> None:
    with attach(bench.name) as strict, attach(bench.name, required=False) as lenient:
        data = [pickle.dumps(strict), pickle.dumps(lenient)]
    with pickle.loads(data[0]) as strict, pickle.loads(data[1]) as lenient:
        assert (strict.required, lenient.required) == (True, False)
        for one in (strict, lenient):
            one.close()
        with pytest.raises(NotFoundError):
            strict.explain()
        assert lenient.explain().no_sampler


@pytest.mark.parametrize(("on_stale", "answer"), [("never", False), ("hold", False), ("always", True), ("raise", True)])
def test_a_compiled_loop_without_a_sampler_reads_what_on_stale_stands_for(
    name: str, on_stale: OnStale, answer: bool
) -> None:
    """Where it stands for an error the loop ends, and should_prune() raises it."""
    with attach(name, timeout=0.0, required=False, on_stale=on_stale) as reader:
        assert bool(ctypes.c_uint8.from_address(reader.flag_address).value) is answer
        reader.required = True
        with pytest.raises(NotFoundError):
            _ = reader.flag_address
