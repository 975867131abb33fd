"""joblib's tasks wait for room, and all of them are done, in order."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

import pytest

pytest.importorskip("joblib", reason="joblib is not installed (make test-frameworks)")

from joblib import delayed

from shm_monitor.integrations.joblib import Parallel

if TYPE_CHECKING:
    from tests.support.pressed import Driven


def double(x: int) -> int:
    return 2 * x


@pytest.mark.parametrize("backend", ["loky", "threading", "multiprocessing"])
def test_all_tasks_are_done_in_order(driven: Driven, backend: str) -> None:
    found = Parallel(2, backend=backend, reader=driven.reader)(delayed(double)(x) for x in range(20))

    assert found == [2 * x for x in range(20)]


def test_under_pressure_they_wait_and_all_are_done_after_it(driven: Driven) -> None:
    driven.press()
    done: list[int] = []
    calm = threading.Thread(target=lambda: (time.sleep(0.5), done.append(-1), driven.calm()))  # type: ignore[func-returns-value]

    def work(x: int) -> int:
        done.append(x)
        return x

    calm.start()
    found = Parallel(4, backend="threading", reader=driven.reader)(delayed(work)(x) for x in range(6))
    calm.join()

    assert found == list(range(6))
    assert done.index(-1) <= 1, "one never waits, the others waited for calm"


def test_a_wait_has_an_end(driven: Driven) -> None:
    driven.press()

    assert Parallel(2, backend="threading", reader=driven.reader, max_wait=0.01)(
        delayed(double)(x) for x in range(4)
    ) == [0, 2, 4, 6]


def test_a_generator_of_results_and_a_failing_task_are_joblib_s_own(driven: Driven) -> None:
    stream = Parallel(2, backend="threading", reader=driven.reader, return_as="generator")(
        delayed(double)(x) for x in range(4)
    )
    assert list(stream) == [0, 2, 4, 6]

    with pytest.raises(ZeroDivisionError):
        Parallel(2, backend="threading", reader=driven.reader)(delayed(divmod)(1, x) for x in (1, 0))


def test_what_is_decided_here_cannot_be_given() -> None:
    with pytest.raises(TypeError, match="pre_dispatch"):
        Parallel(2, pre_dispatch="all")
