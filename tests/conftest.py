"""What every test may use: a name of its own, cleaned up whatever happens, and samplers of every kind."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, settings

ROOT = Path(__file__).parent.parent
if sys.flags.isolated:
    sys.path.append(str(ROOT))  # python -I -m pytest: last, so that the installed wheel is tested, not the checkout
else:
    sys.path.insert(0, str(ROOT / "api"))  # python -m pytest has put the checkout itself first

from shm_monitor.segment import names
from tests.support import processes
from tests.support.publishing import Bench
from tests.support.surroundings import files_of, remove_files

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # the suite runs in the background of a shell
    signal.signal(signal.SIGINT, signal.default_int_handler)  # what tests start must hear the Ctrl-C that they send

# No test depends on how busy the machine is, or is given a fixture that an example could change for the next one.
UNHURRIED = (HealthCheck.too_slow, HealthCheck.function_scoped_fixture)
settings.register_profile("unhurried", deadline=None, suppress_health_check=UNHURRIED)
settings.load_profile("unhurried")

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from shm_monitor.schema import Schema
    from tests.support.light_sampler import LightSamplers


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what asks for a fixture that starts a process, before the marks choose."""
    for item in items:
        if isinstance(item, pytest.Function) and not processes.FIXTURES.isdisjoint(item.fixturenames):
            item.add_marker(pytest.mark.processes)


_guard = processes.Guard()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Refuse processes to a test without the mark, its fixtures included."""
    _guard.take(item)


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    """A developer's own environment must not decide a test."""
    for key in list(os.environ):
        if key.startswith("SHM_MONITOR_"):
            monkeypatch.delenv(key)


@pytest.fixture
def name() -> Iterator[str]:
    """A sampler name that nobody else uses; its files are removed afterwards."""
    unique = f"test-{uuid.uuid4().hex[:12]}"
    _names_used.append(unique)
    yield unique
    remove_files(unique)


_names_used: list[str] = []


@pytest.fixture(scope="session", autouse=True)
def _nothing_left_in_shared_memory() -> Iterator[None]:
    """When all tests have run, no file bears a name that one of them had."""
    yield
    for directory in Path(names.side_directory()).parent.glob(f"{names.PREFIX}.*/"):
        with contextlib.suppress(OSError):  # of the users that tests become; not empty, or not ours to remove
            directory.rmdir()
    assert [path for name in _names_used for path in files_of(name)] == []


@pytest.fixture
def bench(name: str) -> Iterator[Bench]:
    """A publisher under this test's name, with one calm sample, whose death only a clock can tell."""
    made = Bench(name)
    made.publish()
    yield made
    made.close()


@pytest.fixture
def make_bench() -> Iterator[Callable[..., Bench]]:
    """Make publishers; those still open are closed afterwards."""
    made: list[Bench] = []

    def make(name: str, schema: Schema | None = None, **options: Any) -> Bench:
        made.append(Bench(name, schema, **options))
        return made[-1]

    yield make
    for one in made:
        with contextlib.suppress(Exception):
            one.close()


@pytest.fixture(scope="session")
def light() -> Iterator[LightSamplers]:
    """Samplers that start in 10 ms, one zygote for all tests; see ``tests.support.light_sampler``."""
    from tests.support.light_sampler import LightSamplers

    with LightSamplers() as made:
        yield made
