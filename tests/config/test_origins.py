"""ResourceConfig.load: which origin wins, how a .env file is read, and what an error says."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import msgspec
import pytest

from shm_monitor.config.bounds import BOUNDS
from shm_monitor.config.origins import RESERVED_KEYS
from shm_monitor.config.resource import ResourceConfig, explain
from shm_monitor.errors import ConfigError


@pytest.fixture
def env_file(tmp_path: Path) -> Path:
    return tmp_path / "job.env"


def load(env_file: Path, content: str | bytes, environ: dict[str, str] | None = None) -> ResourceConfig:
    """Write *content* into *env_file* and load it."""
    env_file.write_bytes(content.encode() if isinstance(content, str) else content)
    return ResourceConfig.load(env_file, environ or {})


def refused(env_file: Path, content: str | bytes, environ: dict[str, str] | None = None) -> ConfigError:
    """Return the error that loading *content* raises."""
    with pytest.raises(ConfigError) as caught:
        load(env_file, content, environ)
    return caught.value


SPELLED: dict[str, tuple[str, object]] = {
    "observation_period": ("15.0", 15.0),
    "check_interval": ("2", 2.0),
    "target_utilization": ("0.85", 0.85),
    "rolling_window_size": ("64", 64),
    "enabled": ("no", False),
    "max_memory_usage_mb": ("4096", 4096.0),
    "max_cpu_usage_percent": ("70.0", 70.0),
    "max_gpu_usage_percent": ("95", 95.0),
    "max_gpu_memory_percent": ("90.5", 90.5),
    "max_network_usage_bytes_per_second": ("1e8", 1e8),
    "forecast_horizon": ("6", 6.0),
    "history_seconds": ("120", 120.0),
    "name": ("rank-0", "rank-0"),
    "on_stale": ("hold", "hold"),
    "stale_after": ("5", 5.0),
    "scope": ("pid:17", "pid:17"),
    "collectors": ("all, -gpu, my.module:Queue", ("all", "-gpu", "my.module:Queue")),
    "interfaces": ("eth0, eth1", ("eth0", "eth1")),
    "mounts": ("/,/data", ("/", "/data")),
    "gpus": ("0 3", ("0", "3")),
    "gpu_interval": ("5", 5.0),
    "only_visible_gpus": ("1", True),
    "python": ("/opt/venv/bin/python", "/opt/venv/bin/python"),
    "adaptive": ("false", False),
    "allow_injection": ("TRUE", True),
    "compile": ("never", "never"),
}


def test_the_table_of_this_test_has_every_setting() -> None:
    assert SPELLED.keys() == BOUNDS.keys()


@pytest.mark.parametrize("key", SPELLED)
@pytest.mark.parametrize("prefix", ["", "SHM_MONITOR_"])
def test_every_setting_is_read_from_its_upper_case_name_in_a_file(key: str, prefix: str, env_file: Path) -> None:
    text, value = SPELLED[key]

    assert getattr(load(env_file, f"{prefix}{key.upper()}={text}\n"), key) == value


@pytest.mark.parametrize("key", SPELLED)
def test_every_setting_is_read_from_its_prefixed_name_in_the_environment(key: str) -> None:
    text, value = SPELLED[key]

    assert getattr(ResourceConfig.load("", {f"SHM_MONITOR_{key.upper()}": text}), key) == value


@pytest.mark.parametrize("key", sorted(SPELLED.keys() - {"gpus", "name", "python"}))
def test_every_setting_but_three_is_read_from_its_upper_case_name_in_the_environment(key: str) -> None:
    text, value = SPELLED[key]

    assert getattr(ResourceConfig.load("", {key.upper(): text}), key) == value


def test_a_bare_name_in_the_environment_is_not_ours() -> None:
    """WSL exports NAME=<host name>, and workers look at SHM_MONITOR_NAME alone."""
    assert ResourceConfig.load("", {"NAME": "LAPTOP 7"}).name == "default"


def test_bare_gpus_in_the_environment_are_not_ours() -> None:
    """Slurm scripts export GPUS=8 and mean how many."""
    assert ResourceConfig.load("", {"GPUS": "8"}).gpus is None


def test_the_strongest_origin_wins(env_file: Path) -> None:
    env_file.write_text("CHECK_INTERVAL=2\nOBSERVATION_PERIOD=20\nFORECAST_HORIZON=6\n")
    environ = {"CHECK_INTERVAL": "3", "OBSERVATION_PERIOD": "30"}

    config = ResourceConfig.load(env_file, environ, check_interval=4.0)

    assert (config.check_interval, config.observation_period, config.forecast_horizon) == (4.0, 30.0, 6.0)
    assert config.target_utilization == 0.9


def test_the_prefixed_key_wins_within_an_origin_and_the_origin_wins_over_the_prefix(env_file: Path) -> None:
    content = "SHM_MONITOR_CHECK_INTERVAL=2\nCHECK_INTERVAL=3\n"

    assert load(env_file, content).check_interval == 2.0
    assert load(env_file, content, {"CHECK_INTERVAL": "4"}).check_interval == 4.0
    assert load(env_file, "", {"CHECK_INTERVAL": "4", "SHM_MONITOR_CHECK_INTERVAL": "5"}).check_interval == 5.0


def test_an_argument_of_none_asks_for_the_default_of_the_setting(env_file: Path) -> None:
    env_file.write_text("MAX_CPU_USAGE_PERCENT=70\n")

    assert ResourceConfig.load(env_file, {}, max_cpu_usage_percent=None).max_cpu_usage_percent is None


@pytest.mark.parametrize(
    "line",
    [
        "OBSERVATION_PERIOD=15.0",
        "OBSERVATION_PERIOD=15.0   # seconds",
        "OBSERVATION_PERIOD = 15.0",
        "export OBSERVATION_PERIOD=15.0",
        "export\tSHM_MONITOR_OBSERVATION_PERIOD=15.0 # seconds",
        'OBSERVATION_PERIOD="15.0"  # seconds',
        "OBSERVATION_PERIOD='15.0'",
        "  OBSERVATION_PERIOD=15.0  ",
        "OBSERVATION_PERIOD=99\nOBSERVATION_PERIOD=15.0",
        "# OBSERVATION_PERIOD=99\n\n\nOBSERVATION_PERIOD=15.0",
        "OBSERVATION_PERIOD=15.0\nOBSERVATION_PERIOD=",
    ],
)
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"], ids=["plain", "bom"])
def test_a_file_is_read_however_it_is_written(line: str, newline: str, mark: bytes, env_file: Path) -> None:
    content = mark + (line.replace("\n", newline) + newline).encode()

    assert load(env_file, content).observation_period == 15.0


def test_a_file_written_by_windows_powershell_is_read(env_file: Path) -> None:
    assert load(env_file, "OBSERVATION_PERIOD=15.0\r\n".encode("utf-16")).observation_period == 15.0


@pytest.mark.parametrize("text", ["15.0 # seconds", "15.0\t#", ' "15.0" ', "'15.0' # seconds", " 15.0 "])
def test_a_comment_and_quotes_are_dropped_from_the_environment_too(text: str) -> None:
    """`docker --env-file` passes both on as they stand."""
    assert ResourceConfig.load("", {"OBSERVATION_PERIOD": text}).observation_period == 15.0


@pytest.mark.parametrize("text", ["", "   ", "# 15.0", '""'])
def test_an_empty_value_is_not_set(text: str, env_file: Path) -> None:
    """Compose files write CHECK_INTERVAL=${CHECK_INTERVAL} whether it is set or not."""
    assert load(env_file, "OBSERVATION_PERIOD=12\n", {"OBSERVATION_PERIOD": text}).observation_period == 12.0


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("max_cpu_usage_percent", "none", None),
        ("gpus", "all", None),
        ("gpus", "none", ()),
        ("interfaces", "none", ()),
        ("gpus", "0,0,1,", ("0", "1")),
    ],
)
def test_words_stand_for_the_default_all_and_none(key: str, text: str, value: object, env_file: Path) -> None:
    config = load(env_file, "MAX_CPU_USAGE_PERCENT=70\nGPUS=5\nINTERFACES=eth9\n", {f"SHM_MONITOR_{key.upper()}": text})

    assert getattr(config, key) == value


def test_an_error_in_a_file_names_key_value_file_line_and_what_is_allowed(env_file: Path) -> None:
    error = refused(env_file, "# limits\n\nFOO='a\nb'\n\nMAX_CPU_USAGE_PERCENT=170.0  # too much\n")

    assert (error.key, error.value, error.origin) == ("MAX_CPU_USAGE_PERCENT", "170.0", f"{env_file} line 6")
    assert "number above 0 and at most 100 percent" in error.allowed
    assert all(part in str(error) for part in ("MAX_CPU_USAGE_PERCENT", "170.0", f"{env_file} line 6", "100 percent"))


@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
def test_lines_are_counted_for_every_kind_of_line_end(newline: str, env_file: Path) -> None:
    assert refused(env_file, newline.join(["A=1", "", "# b", "ENABLED=perhaps", ""])).origin.endswith(" line 4")


def test_an_error_in_the_environment_names_the_key_as_written() -> None:
    with pytest.raises(ConfigError) as caught:
        ResourceConfig.load("", {"SHM_MONITOR_CHECK_INTERVAL": "fast"})

    assert (caught.value.key, caught.value.value) == ("SHM_MONITOR_CHECK_INTERVAL", "fast")
    assert caught.value.origin == "environment"


def test_an_error_in_an_argument_names_the_argument() -> None:
    with pytest.raises(ConfigError) as caught:
        ResourceConfig.load("", {"CHECK_INTERVAL": "2"}, check_interval=0)

    assert (caught.value.key, caught.value.value, caught.value.origin) == ("check_interval", 0, "argument")


def test_a_contradiction_names_both_keys_and_both_origins(env_file: Path) -> None:
    error = refused(env_file, "OBSERVATION_PERIOD=5\n", {"CHECK_INTERVAL": "30"})

    assert (error.key, error.other, error.origin) == ("OBSERVATION_PERIOD", "check_interval", f"{env_file} line 1")
    assert "check_interval=30.0 (from environment)" in str(error)


def test_a_contradiction_with_a_default_says_so() -> None:
    with pytest.raises(ConfigError, match=r"observation_period=10\.0 \(from default\).*=30\.0 \(from environment\)"):
        ResourceConfig.load("", {"CHECK_INTERVAL": "30"})


@pytest.mark.parametrize(
    ("key", "nearest"),
    [
        ("SHM_MONITOR_CHEK_INTERVAL", "SHM_MONITOR_CHECK_INTERVAL"),
        ("SHM_MONITOR_MAX_CPU_PERCENT", "SHM_MONITOR_MAX_CPU_USAGE_PERCENT"),
        ("SHM_MONITOR_TOKEN_FIEL", "SHM_MONITOR_TOKEN_FILE"),
    ],
)
def test_an_unknown_key_of_ours_is_refused_with_the_nearest_known(key: str, nearest: str, env_file: Path) -> None:
    for error in (refused(env_file, f"{key}=1\n"), refused(env_file, "", {key: "1"})):
        assert error.key == key
        assert f"did you mean {nearest}?" in error.allowed


def test_an_unknown_argument_is_refused_with_the_nearest_known() -> None:
    with pytest.raises(ConfigError, match="did you mean check_interval"):
        ResourceConfig.load("", {}, chek_interval=1.0)


def test_a_key_that_looks_like_a_secret_is_refused_without_its_value(env_file: Path) -> None:
    for error in (
        refused(env_file, "", {"SHM_MONITOR_TOKN": "hunter2"}),
        refused(env_file, "SHM_MONITOR_TOKN=hunter2"),
        refused(env_file, "SHM_MONITOR_TOKEN='hunter2"),
    ):
        assert "hunter2" not in str(error)
        assert "hunter2" not in repr(error.value)


def test_foreign_keys_and_reserved_ones_are_left_alone(env_file: Path) -> None:
    foreign = {"CHECK_INTERVALS": "x", "observation_period": "x", "TOKEN": "x", **dict.fromkeys(RESERVED_KEYS, "x")}
    content = "".join(f"{key}={text}\n" for key, text in foreign.items())

    assert load(env_file, content, foreign) == ResourceConfig()


@pytest.mark.parametrize(
    ("key", "meant"),
    [
        ("CHEK_INTERVAL", "CHECK_INTERVAL"),
        ("CHECK_INTERVALS", "CHECK_INTERVAL"),
        ("CHECK_INTERVLA", "CHECK_INTERVAL"),
        ("OBSERVATION-PERIOD", "OBSERVATION_PERIOD"),
        ("ENABLE", "ENABLED"),
        ("GPU", "GPUS"),
    ],
)
def test_a_bare_key_one_edit_from_a_known_one_is_warned_of(
    key: str, meant: str, env_file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert load(env_file, f"A=1\n{key}=hunter2\n") == ResourceConfig()
    assert f"{key} (from {env_file} line 2) is no setting and is left out; did you mean {meant}?" in caplog.text
    assert "hunter2" not in caplog.text


def test_in_the_environment_too_where_the_key_is_more_than_a_word(caplog: pytest.LogCaptureFixture) -> None:
    """Strangers' variables are everywhere: GPU=0, SCOPES=read."""
    ResourceConfig.load("", {"CHEK_INTERVAL": "2", "GPU": "0", "SCOPES": "read"})
    assert [record.getMessage() for record in caplog.records] == [
        "CHEK_INTERVAL (from environment) is no setting and is left out; did you mean CHECK_INTERVAL?"
    ]


@pytest.mark.parametrize("key", ["CHEK_INTERVALS", "INTERVAL", "PERIOD", "PATH", "MAX_MEMORY_MB"])
def test_a_key_that_is_further_away_is_somebody_elses(
    key: str, env_file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert load(env_file, f"{key}=2\n") == ResourceConfig()
    assert caplog.text == ""


@pytest.mark.parametrize("text", ["${SECRET}", "$SECRET", "1${SECRET:-5}", '"${SECRET}"', "${OBSERVATION_PERIOD}"])
@pytest.mark.parametrize("key", ["OBSERVATION_PERIOD", "SHM_MONITOR_SCOPE", "MOUNTS"])
def test_no_variable_is_filled_in(key: str, text: str, env_file: Path) -> None:
    """What the environment holds must not end in a message, a name or a path."""
    error = refused(env_file, f"SECRET=hunter2\n{key}={text}\n", {"SECRET": "hunter3"})

    assert "hunter" not in f"{error} {error.value!r}"
    assert ("is not filled in" in str(error)) == ("${" in text)


def test_a_quote_that_is_never_closed_does_not_print_the_lines_after_it(env_file: Path) -> None:
    content = "CHECK_INTERVAL='2\nSHM_MONITOR_TOKEN=hunter2\nFOO='bar'\n"

    for written in (
        content,
        content.replace("CHECK_INTERVAL", "SHM_MONITOR_CHEK_INTERVAL"),
        content.replace("'2", "'"),
        content.replace("FOO='", "'"),
        content.replace("'2", "'").replace("FOO='", "#'"),
    ):
        error = refused(env_file, written)
        assert "hunter2" not in f"{error} {error.value!r}"


def test_a_broken_line_of_ours_is_refused(env_file: Path) -> None:
    error = refused(env_file, "A=1\nOBSERVATION_PERIOD='15.0\n")

    assert (error.key, error.origin) == ("OBSERVATION_PERIOD", f"{env_file} line 2")


def test_a_key_of_ours_without_a_value_is_refused(env_file: Path) -> None:
    assert "write OBSERVATION_PERIOD=" in refused(env_file, "OBSERVATION_PERIOD\n").allowed


def test_a_broken_foreign_line_is_reported_and_left_out(env_file: Path, caplog: pytest.LogCaptureFixture) -> None:
    config = load(env_file, "no key here 'x\n'FOO=1\nOBSERVATION_PERIOD=15.0\n")

    assert config.observation_period == 15.0
    assert f"{env_file} line 1" in caplog.text


def test_a_named_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "absent.env", tmp_path, Path("nul\0.env")):
        with pytest.raises(ConfigError) as caught:
            ResourceConfig.load(path, {})
        assert (caught.value.key, caught.value.origin) == ("env_file", "argument")


def test_a_file_of_an_unknown_encoding_is_refused(env_file: Path) -> None:
    assert "readable text file" in refused(env_file, b"NAME=caf\xe9\n").allowed


def test_true_is_no_file() -> None:
    with pytest.raises(ConfigError, match="env_file"):
        ResourceConfig.load(env_file=True, environ={})


SCRIPT = """
    import os, sys
    from shm_monitor.config.resource import ResourceConfig
    before = dict(os.environ)
    print(ResourceConfig.load().observation_period, ResourceConfig.load(env_file=False).observation_period)
    sys.exit(before != dict(os.environ))
"""


@pytest.mark.processes
def test_a_script_finds_its_file_and_its_environment_stays_as_it_was(tmp_path: Path) -> None:
    place, work = tmp_path / "app", tmp_path / "work"
    place.mkdir()
    work.mkdir()
    (place / "train.py").write_text(textwrap.dedent(SCRIPT))
    (work / ".env").write_text("OBSERVATION_PERIOD=40\n")
    environ = {key: text for key, text in os.environ.items() if not key.startswith("SHM_MONITOR_")}

    def answer() -> str:
        command = [sys.executable, str(place / "train.py")]
        return subprocess.run(command, cwd=work, env=environ, capture_output=True, text=True, check=True).stdout.strip()

    assert answer() == "40.0 10.0"
    (place / ".env").write_text("OBSERVATION_PERIOD=50\n")
    assert answer() == "50.0 10.0"


def test_explain_says_where_each_value_came_from(env_file: Path) -> None:
    env_file.write_text("OBSERVATION_PERIOD=20\n")
    settings = {
        one.key: one for one in explain(env_file, {"SHM_MONITOR_CHECK_INTERVAL": "2"}, max_memory_usage_mb=4096)
    }

    assert tuple(settings) == ResourceConfig.__struct_fields__
    assert (settings["observation_period"].value, settings["observation_period"].origin) == (20.0, f"{env_file} line 1")
    assert settings["check_interval"].origin == "environment"
    assert settings["check_interval"].written_as == "SHM_MONITOR_CHECK_INTERVAL"
    assert (settings["max_memory_usage_mb"].value, settings["max_memory_usage_mb"].origin) == (4096.0, "argument")
    assert (settings["gpus"].value, settings["gpus"].origin, settings["gpus"].written_as) == (None, "default", "")


def test_an_explanation_can_be_written_as_json() -> None:
    rows = msgspec.json.decode(msgspec.json.encode(explain("", {"INTERFACES": "eth0"})))

    assert {"key": "interfaces", "value": ["eth0"], "origin": "environment", "written_as": "INTERFACES"} in rows
