"""What somebody meets who mistypes, forgets, or has installed the core alone."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import shm_monitor as sm
from shm_monitor.cli import main
from shm_monitor.errors import EXTRA_OF
from shm_monitor.schema import Level
from tests.support.surroundings import ROOT, UNMEASURED, child_environment

if TYPE_CHECKING:
    from tests.support.publishing import Bench

COMMAND = [sys.executable, "-P", "-m", "shm_monitor"]


def finished(*arguments: str, **settings: str) -> tuple[int, str, str]:
    """Run the command to its end; return status, stdout and stderr."""
    done = subprocess.run(
        [*COMMAND, *arguments],
        env=child_environment(**settings),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    return done.returncode, done.stdout, done.stderr


# Words


@pytest.mark.processes
@pytest.mark.parametrize(
    ("arguments", "meant"),
    [
        (["staus"], "did you mean status?"),
        (["rnu", "--", "true"], "did you mean run?"),
        (["config", "shwo"], "did you mean show?"),
        (["config", "show", "--set", "chek_interval=2"], "did you mean check_interval?"),
        (["run", "--set", "MAX_MEMORY_MB=2"], "did you mean max_memory_usage_mb?"),
        (["xyzzy"], "known are run, "),
        (["check", "--nmae", "x"], "did you mean --name?"),
        (["snapshot", "--jsno"], "did you mean --json?"),
        (["config", "show", "--evn-file=x"], "did you mean --env-file?"),
        (["run", "--no-vieuw"], "did you mean --no-view?"),
        (["clean", "--xyzzy"], "known are --dry-run, --json, --help"),
        (["api", "--bnid", "x"], "did you mean --bind?"),
    ],
)
def test_a_mistyped_word_is_usage_and_the_nearest_is_named(arguments: list[str], meant: str) -> None:
    status, out, err = finished(*arguments)

    assert (status, out) == (2, "")
    assert meant in err


@pytest.mark.processes
def test_a_wrong_setting_names_a_command_that_works_in_spite_of_it() -> None:
    wrong = {"SHM_MONITOR_CHECK_INTERVAL": "abc"}
    status, _, err = finished("config", "show", **wrong)
    remedy = err.rpartition("; try: shm-monitor ")[2].split()
    shown = finished(*remedy, **wrong)

    assert (status, shown[0]) == (2, 0)
    assert "#CHECK_INTERVAL=" in shown[1]


@pytest.mark.processes
@pytest.mark.parametrize("words", [["episodes", "--since", "abc"], ["check", "--name", "a b"], ["inject", "x"]])
def test_a_wrong_argument_says_what_to_write_and_sends_nobody_to_the_settings(words: list[str]) -> None:
    assert "config" not in finished(*words)[2]


def test_a_setting_may_carry_the_prefix_of_the_environment(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "show", "--env-file", "", "--set", "SHM_MONITOR_CHECK_INTERVAL=0.5"]) == 0
    assert re.search(r"check_interval +0\.5 +argument", capsys.readouterr().out)


@pytest.mark.parametrize("watch", [["memory,cpu"], ["memory", "cpu"], [" cpu , memory,"]])
def test_limits_to_watch_may_stand_between_commas(
    bench: Bench, watch: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[object] = []

    def attached(*args: object, watch: object, **options: object) -> sm.Reader:
        asked.append(watch)
        return sm.attach(*args, watch=watch, **options)  # type: ignore[arg-type]

    monkeypatch.setattr("shm_monitor.cli.look.attach", attached)
    bench.publish(Level.OK)
    main(["check", "--name", bench.name, *(word for one in watch for word in ("--watch", one))])
    assert sorted(asked[0]) == ["cpu", "memory"]  # type: ignore[call-overload]


@pytest.mark.processes
@pytest.mark.parametrize("command", [["--"], ["--", ""], ["--no-api", "--"]])
def test_an_empty_command_is_usage(command: list[str]) -> None:
    """`run -- $CMD`, with a CMD that is not set, would else run a sampler for ever."""
    status, out, err = finished("run", *command)

    assert (status, out) == (2, "")
    assert "no command after --" in err


@pytest.mark.processes
@pytest.mark.parametrize("command", [[], ["--", "true"]], ids=["alone", "beside a command"])
@pytest.mark.parametrize(("bind", "words"), [("0.0.0.0:0", "without a token"), ("0.0.0.0", "HOST:PORT")])
def test_run_refuses_where_the_api_would(name: str, bind: str, words: str, command: list[str]) -> None:
    """As `shm-monitor api` does; a sampler that runs without it would not be what was asked for."""
    status, out, err = finished("run", "--name", name, "--no-view", "--bind", bind, *command)

    assert (status, out) == (2, "")
    assert words in err


# The core alone


@pytest.fixture(scope="module")
def core(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of an installation without any extra: what the core needs, and nothing else to be found."""
    place = tmp_path_factory.mktemp("core")
    for package in ("msgspec", "dotenv"):
        spec = find_spec(package)
        assert spec is not None
        assert spec.origin is not None
        (place / package).symlink_to(Path(spec.origin).parent)
    path = os.pathsep.join([str(ROOT), str(ROOT / "api"), str(place)])
    return child_environment() | UNMEASURED | {"PYTHONPATH": path}


@pytest.mark.processes
@pytest.mark.parametrize(
    ("what", "extra"),
    [
        ("-m shm_monitor run", "sampler"),
        ("-m shm_monitor record /dev/null", "sampler"),
        ("-m shm_monitor replay /dev/null", "sampler"),
        ("-m shm_monitor api", "api"),
        ("-m shm_monitor_api", "api"),
        ("-c 'import shm_monitor_api'", "api"),
        ("-c 'from shm_monitor_api import app'", "api"),
        ("-c 'import shm_monitor.kernels'", "sampler"),
        ("-c 'from shm_monitor.kernels import should_prune_at'", "sampler"),
        ("-c 'import shm_monitor as sm; sm.ResourceMonitor()'", "sampler"),
        ("-c 'import shm_monitor as sm; sm.ResourceManager()'", "sampler"),
    ],
)
def test_the_core_alone_names_the_extra_that_is_missing(core: dict[str, str], what: str, extra: str, name: str) -> None:
    command = f"exec {sys.executable} -S -P {what}"
    done = subprocess.run(
        ["/bin/sh", "-c", command],
        env=core | {"SHM_MONITOR_NAME": name},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )

    assert done.returncode == (2 if "-m shm_monitor " in what else 1)
    last = done.stderr.strip().splitlines()[-1]
    assert f'pip install "shm-monitor[{extra}]"' in last
    assert ("Traceback" in done.stderr) == ("-m shm_monitor " not in what)


@pytest.mark.processes
def test_a_worker_needs_no_more_than_the_core(core: dict[str, str], bench: Bench) -> None:
    bench.publish(Level.PRUNE)
    code = "import sys, shm_monitor as sm; r = sm.attach(sys.argv[1]); print(r.should_prune(), r.snapshot().level)"
    done = subprocess.run(
        [sys.executable, "-S", "-c", code, bench.name], env=core, capture_output=True, text=True, check=False
    )
    assert done.stdout == "True prune\n", done.stderr


def test_every_package_of_an_extra_is_known_with_its_extra() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    imported_as = {
        distribution.lower(): package
        for package, distributions in packages_distributions().items()
        for distribution in distributions
        if not package.startswith("_")
    }
    for extra in ("sampler", "api", "report", "tui"):
        for requirement in extras[extra]:
            distribution = re.split(r"[>=\[]", requirement)[0].strip().lower()
            package = {"nvidia-ml-py": "pynvml"}.get(distribution) or imported_as.get(distribution)
            assert package is None or EXTRA_OF[package] == extra


def test_a_missing_dependency_is_an_import_error_too() -> None:
    with pytest.raises(ImportError, match=r"pip install .*\[sampler\]"):
        raise sm.MissingDependencyError.of("this", ModuleNotFoundError(name="numba.core"))
    with pytest.raises(ModuleNotFoundError, match="other"):
        raise sm.MissingDependencyError.of("this", ModuleNotFoundError("other", name="other"))
