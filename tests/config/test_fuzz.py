"""Whatever is written into a .env file, the environment or arguments: a configuration or a ConfigError."""

from __future__ import annotations

import tempfile
from pathlib import Path

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from shm_monitor.config.bounds import BOUNDS
from shm_monitor.config.resource import ResourceConfig
from shm_monitor.errors import ConfigError

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
