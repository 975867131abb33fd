"""An error arrives whole: through pickle, a pool of processes, and from a sampler to its owner."""

from __future__ import annotations

import copy
import json
import multiprocessing
import pickle
import re
from concurrent.futures import ProcessPoolExecutor
from typing import TYPE_CHECKING

import pytest

import shm_monitor as sm
from shm_monitor import errors
from shm_monitor.supervision.handshake import decode_report, encode_report, error_of, report_of
from tests.support.children import output_of

if TYPE_CHECKING:
    from collections.abc import Iterator

EXAMPLES = (
    sm.MonitorError("something"),
    sm.ConfigError("port", "x", "SHM_MONITOR_PORT", "must be a number", other="bind"),
    sm.InterpreterError("this application is frozen"),
    sm.MissingDependencyError("the sampler", "sampler", "numba"),
    sm.SamplerError("it ended"),
    sm.InterpreterError("this program is frozen"),
    sm.AlreadyRunningError("one", 41),
    sm.OtherConfigError("one", {"check_interval": [0.1, 1.0]}),
    sm.NoSpaceError("/dev/shm/one", 4096, 1024),
    sm.FencedError("taken"),
    sm.SegmentError("one", "unreadable"),
    sm.NotFoundError("one", "/dev/shm/one"),
    sm.NotReadyError("one", "no sample yet"),
    sm.IncompatibleError("one", "layout 3", "layout 2"),
    sm.CorruptError("one", "a size of 0"),
    sm.UntrustedError("one", "/dev/shm/one", "mode 0666"),
    sm.OtherMemoryError("one", "/a (limit 200 MB)", "/b (limit 2,000 MB)"),
    sm.MemoryWaitError("a task", 1.5, 3_000_000),
    sm.StaleError("one", "dead", 4.5),
    sm.UnknownLimitError("memroy", ("memory", "cpu")),
    sm.UnknownMetricError("cpu.percent", ("cpu.cpu_percent",)),
    sm.UnsafeSplitError("encoder.norm", "BatchNorm1d"),
    sm.TraceError("a.trace", "12 bytes", "a header has 64"),
)


def in_the_tree(root: type[sm.MonitorError] = sm.MonitorError) -> Iterator[type[sm.MonitorError]]:
    """Yield every error of ``shm_monitor.errors``."""
    if root.__module__ == errors.__name__:
        yield root
        for kind in root.__subclasses__():
            yield from in_the_tree(kind)


def told(error: BaseException) -> tuple[object, ...]:
    """Return all that somebody who catches *error* can see of it."""
    return type(error), str(error), error.args, vars(error)


def test_there_is_an_example_of_every_error() -> None:
    assert {type(example) for example in EXAMPLES} == set(in_the_tree())


def test_every_error_is_a_public_name() -> None:
    assert {kind.__name__ for kind in in_the_tree()} <= set(sm.__all__)


def test_the_drawing_shows_the_tree() -> None:
    drawn = re.findall(r"^    ([ |`+-]*)(\w+Error)\b", errors.__doc__ or "", re.MULTILINE)
    depth = {kind.__name__: sum(issubclass(one, sm.MonitorError) for one in kind.__mro__) - 1 for kind in in_the_tree()}

    assert {name: len(line) // 4 for line, name in drawn} == depth


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("error", EXAMPLES, ids=lambda error: type(error).__name__)
def test_an_error_survives_pickle_with_its_attributes(error: sm.MonitorError, protocol: int) -> None:
    assert told(pickle.loads(pickle.dumps(error, protocol))) == told(error)


@pytest.mark.parametrize("error", EXAMPLES, ids=lambda error: type(error).__name__)
def test_an_error_survives_copy_and_keeps_its_notes(error: sm.MonitorError) -> None:
    noted = copy.copy(error)
    noted.add_note("while attaching")

    assert copy.deepcopy(noted).__notes__ == ["while attaching"]
    assert not hasattr(error, "__notes__")


@pytest.mark.parametrize("error", EXAMPLES, ids=lambda error: type(error).__name__)
def test_an_error_of_a_sampler_reaches_its_owner_with_its_attributes(error: sm.MonitorError) -> None:
    assert told(error_of(decode_report(encode_report(report_of(error, 1))))) == told(error)


def test_a_value_that_json_cannot_carry_reaches_the_owner_as_its_repr() -> None:
    error = sm.ConfigError("labels", {1, 2}.union, "the program", "must be text")

    assert "union" in str(vars(error_of(decode_report(encode_report(report_of(error, 1)))))["value"])


def test_an_error_that_this_version_does_not_know_is_a_sampler_error_with_its_message() -> None:
    line = json.dumps({"pid": 1, "error": "MeltdownError", "message": "too hot", "attributes": {"celsius": 99}})
    error = error_of(decode_report(line.encode()))

    assert told(error) == (sm.SamplerError, "too hot", ("too hot",), {"celsius": 99})


def attach_to_nothing(name: str) -> None:
    """Raise what a worker meets that starts before its sampler; runs in a process of a pool."""
    sm.attach(name, timeout=0.0)


@pytest.mark.processes
@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_an_attach_that_fails_in_a_pool_raises_in_the_parent(name: str, method: str) -> None:
    with multiprocessing.get_context(method).Pool(1) as pool, pytest.raises(sm.NotFoundError) as caught:
        pool.apply_async(attach_to_nothing, (name,)).get(60.0)

    assert caught.value.name == name
    assert name in caught.value.path


@pytest.mark.processes
def test_an_attach_that_fails_in_an_executor_raises_in_the_parent_and_leaves_it_usable(name: str) -> None:
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as executor:
        for _ in range(2):
            with pytest.raises(sm.NotFoundError, match=name):
                executor.submit(attach_to_nothing, name).result(60.0)


@pytest.mark.processes
def test_the_errors_load_nothing_of_ours_but_what_makes_forks_safe() -> None:
    code = "import sys, shm_monitor.errors; print(*sorted(name for name in sys.modules if 'shm_monitor' in name))"

    assert output_of(code).split() == ["shm_monitor", "shm_monitor.errors", "shm_monitor.forks", "shm_monitor.light"]
