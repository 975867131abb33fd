"""Whatever is written into a .env file, the environment or arguments: a configuration or a ConfigError."""

from __future__ import annotations

import logging
import tempfile
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shm_monitor.config.bounds import BOUNDS
from shm_monitor.config.origins import for_serving
from shm_monitor.config.resource import ResourceConfig
from shm_monitor.errors import ConfigError
from tests.support.fuzzing import run_for

pytestmark = pytest.mark.thorough

KEYS = st.sampled_from([key.upper() for key in BOUNDS])
NAMES = (
    KEYS | KEYS.map("SHM_MONITOR_{}".format) | st.text(max_size=12).map("SHM_MONITOR_{}".format) | st.text(max_size=8)
)
NUMBERS = (st.floats() | st.integers() | st.integers(min_value=10**300, max_value=10**320)).map(str)
WORDS = st.sampled_from(
    ["true", "none", "all", "auto", "hold", "pid:1", "/", "", "#", "'", '"', "0,1", "${X}", "1 # c"]
)
TEXTS = NUMBERS | WORDS | st.text(max_size=20)
LINES = st.one_of(st.builds("{}={}".format, NAMES, TEXTS), st.text(max_size=30), TEXTS)
OBJECTS = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=8) | st.binary(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=3) | st.tuples(inner) | st.dictionaries(st.text(max_size=3), inner, max_size=2)
    ),
    max_leaves=4,
)


def assert_usable(config: ResourceConfig) -> None:
    """A configuration that was let in can be handed over, and its ring has a size."""
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(config), type=ResourceConfig) == config
    assert 8 < config.history_slots < 2**32
    assert config.observation_period >= config.check_interval > 0
    assert config.stale_after_seconds > config.check_interval


@given(environ=st.dictionaries(NAMES, TEXTS, max_size=6))
def test_any_environment_is_obeyed_or_refused(environ: dict[str, str]) -> None:
    try:
        assert_usable(ResourceConfig.load("", environ))
    except ConfigError:
        return


@given(lines=st.lists(LINES, max_size=6), newline=st.sampled_from(["\n", "\r\n", "\r"]))
def test_any_text_file_is_obeyed_or_refused(lines: list[str], newline: str) -> None:
    assert_file_is_obeyed_or_refused(newline.join(lines).encode("utf-8", "surrogatepass"))


@given(data=st.binary(max_size=80))
def test_any_bytes_in_a_file_are_obeyed_or_refused(data: bytes) -> None:
    assert_file_is_obeyed_or_refused(data)


def assert_file_is_obeyed_or_refused(data: bytes) -> None:
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / ".env"
        path.write_bytes(data)
        try:
            assert_usable(ResourceConfig.load(path, {}))
        except ConfigError:
            return


@given(overrides=st.dictionaries(st.sampled_from(list(BOUNDS)) | st.just("no_such_setting"), OBJECTS, max_size=4))
def test_any_arguments_are_obeyed_or_refused(overrides: dict[str, object]) -> None:
    try:
        assert_usable(ResourceConfig.load("", {}, **overrides))
    except ConfigError:
        return


SECONDS = 20.0
SECRET = "hunter2-hunter2-hunter2"
SECRET_LINES = st.sampled_from(
    ["SHM_MONITOR_TOKEN=", "SHM_MONITOR_TOKN='", 'export SHM_MONITOR_TOKEN= "', "DB_PASSWORD="]
)
QUOTES = st.sampled_from(["'", '"', "`", "\\", "#", "=", "${DB_PASSWORD}", "\0", "\u2028", "export "])
FILES = st.builds(
    lambda lines, secret, newline: newline.join([*lines[:2], f"{secret}{SECRET}", *lines[2:]]).encode(
        "utf-8", "replace"
    ),
    st.lists(LINES | QUOTES | st.tuples(NAMES, QUOTES, TEXTS).map("".join), max_size=6),
    SECRET_LINES,
    st.sampled_from(["\n", "\r\n", "\r"]),
)
ENCODED = FILES | FILES.map(lambda data: data.decode().encode("utf-16")) | st.binary(max_size=80)


def assert_no_secret_is_told(data: bytes) -> None:
    """Whatever a file holds, it is obeyed or refused, and no line that is logged or raised has the token."""
    told: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: told.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("shm_monitor")
    logger.addHandler(handler)
    try:
        with tempfile.TemporaryDirectory() as place:
            path = Path(place) / ".env"
            path.write_bytes(data)
            for load in (lambda: ResourceConfig.load(path, {"DB_PASSWORD": SECRET}), lambda: for_serving(path)):
                try:
                    load()
                except ConfigError as error:
                    told.append(f"{error} {error.value!r}")
    finally:
        logger.removeHandler(handler)
    assert not [line for line in told if SECRET in line]


@given(data=ENCODED)
def test_no_secret_of_a_file_is_told(data: bytes) -> None:
    assert_no_secret_is_told(data)


@pytest.mark.slow
def test_fuzz_env_files() -> None:
    print(run_for(SECONDS, ENCODED, assert_no_secret_is_told), "files")
