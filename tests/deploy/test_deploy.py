"""The files of docs/deploy are what the tools that read them accept, and speak only of series that exist."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from shm_monitor.config.resource import ResourceConfig
from shm_monitor.snapshot.decoder import Decoder
from tests.support.fake_sampler import FakeSampler
from tests.support.samples import GPU, MONO_NS, USUAL, WORKERS, sample_of, schema_of
from tests.support.surroundings import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

DEPLOY = ROOT / "docs" / "deploy"
PROMETHEUS = DEPLOY / "prometheus"
SERIES = re.compile(r"\bshm_monitor_[a-z0-9_]+\b")


def known_series() -> set[str]:
    """Return the names of every series that the API can expose, from its source."""
    exposition = pytest.importorskip("shm_monitor_api.exposition", reason="the extra api is not installed")
    schema = schema_of(USUAL, WORKERS, GPU)
    sample = sample_of(schema, {"memory.scope": 1.0, "gpu:0.throttle_reasons": 4.0})
    snapshot = Decoder(schema).snapshot(
        sample, name="job", now_ns=MONO_NS, interval_ns=10**9, stale=False, collectors=[MONO_NS, 0] * 3, injected=()
    )
    names: set[str] = set()
    for family in exposition.families(snapshot):
        names |= {family.name, *(sample.name for sample in family.samples)}
    return names


def tool(name: str) -> str:
    """Return the path of the command *name*, or skip."""
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed (Debian: prometheus, systemd)")
    return found


def run(*command: str, cwd: Path = PROMETHEUS, **environ: str) -> str:
    """Return what *command* prints; it must succeed."""
    whole = {**os.environ, **environ}
    done = subprocess.run(command, cwd=cwd, env=whole, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def expressions() -> dict[str, str]:
    """Return every PromQL expression of the dashboard by the title of its panel, variables filled in."""
    dashboard = json.loads((DEPLOY / "grafana" / "dashboard.json").read_text())
    found = {
        f"{panel['title']} {target['refId']}": target["expr"]
        for panel in dashboard["panels"]
        for target in panel["targets"]
    }
    found |= {one["name"]: one["expr"] for one in dashboard["annotations"]["list"]}
    return {
        title: text.replace("$__rate_interval", "1m").replace("$job", ".*").replace("$instance", ".*")
        for title, text in found.items()
    }


@pytest.mark.processes
def test_prometheus_takes_the_rules_and_they_do_what_they_say() -> None:
    promtool = tool("promtool")

    run(promtool, "check", "rules", "rules.yml", "alerts.yml")
    run(promtool, "test", "rules", "tests.yml")


@pytest.mark.processes
def test_prometheus_takes_every_expression_of_the_dashboard(tmp_path: Path) -> None:
    promtool = tool("promtool")
    rules = [{"record": f"check:{at}", "expr": text} for at, text in enumerate(expressions().values())]
    file = tmp_path / "rules.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}))

    run(promtool, "check", "rules", str(file))


def test_rules_and_dashboard_speak_only_of_series_that_exist() -> None:
    known = known_series()
    texts = {file.name: yaml.safe_load(file.read_text()) for file in PROMETHEUS.glob("[ar]*s.yml")}
    asked = {
        name: SERIES.findall(rule["expr"])
        for table in texts.values()
        for group in table["groups"]
        for rule in group["rules"]
        for name in [rule.get("alert") or rule["record"]]
    }
    asked |= {title: SERIES.findall(text) for title, text in expressions().items()}

    strays = {title: sorted(set(names) - known) for title, names in asked.items() if set(names) - known}
    assert not strays


def test_every_alert_has_its_chapter_in_the_runbook() -> None:
    headings = re.findall(r"^### (\w+)$", (ROOT / "docs" / "fleet.md").read_text(), re.MULTILINE)
    alerts = [rule["alert"] for rule in yaml.safe_load((PROMETHEUS / "alerts.yml").read_text())["groups"][0]["rules"]]

    assert sorted(headings) == sorted(alerts)


def test_the_panels_of_the_dashboard_do_not_overlap() -> None:
    panels = json.loads((DEPLOY / "grafana" / "dashboard.json").read_text())["panels"]
    cells: dict[tuple[int, int], str] = {}
    for panel in panels:
        at = panel["gridPos"]
        for cell in ((x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])):
            assert cell not in cells, f"{panel['title']} lies on {cells[cell]}"
            assert cell[0] < 24
            cells[cell] = panel["title"]


@pytest.mark.processes
@pytest.mark.parametrize("unit", ["shm-monitor.service", "shm-monitor-user.service"])
def test_systemd_takes_the_units(unit: str, tmp_path: Path) -> None:
    analyze = tool("systemd-analyze")
    # Only the paths of the programs are replaced: they are not installed where tests run.
    text = (DEPLOY / "systemd" / unit).read_text()
    copy = tmp_path / unit
    copy.write_text(re.sub(r"^ExecStart=\S+", "ExecStart=/bin/true", text, flags=re.MULTILINE))
    scope = ["--user"] if "user" in unit else []

    run(analyze, *scope, "verify", "--man=no", str(copy), XDG_RUNTIME_DIR=str(tmp_path))


@pytest.mark.processes
def test_the_system_unit_is_locked_in() -> None:
    analyze = tool("systemd-analyze")
    told = run(analyze, "security", "--offline=true", "--threshold=25", str(DEPLOY / "systemd" / "shm-monitor.service"))

    assert "OK" in told


def documents() -> list[tuple[str, dict[str, Any]]]:
    """Return each Kubernetes object with the file that it is in."""
    files = sorted((DEPLOY / "kubernetes").glob("*.yaml"))
    return [(file.name, one) for file in files for one in yaml.safe_load_all(file.read_text())]


@pytest.mark.parametrize(("file", "document"), documents(), ids=lambda value: value if isinstance(value, str) else "")
def test_kubernetes_takes_its_objects(file: str, document: dict[str, Any]) -> None:
    kubernetes = pytest.importorskip("kubernetes_validate", reason="kubernetes-validate is not installed")

    kubernetes.validate(document, "1.29", strict=True)


@pytest.mark.parametrize(("file", "document"), documents(), ids=lambda value: value if isinstance(value, str) else "")
def test_the_monitor_has_no_privileges_in_kubernetes(file: str, document: dict[str, Any]) -> None:
    pod = document["spec"] if document["kind"] == "Pod" else document["spec"]["template"]["spec"]
    (container,) = pod["containers"]

    assert pod["securityContext"]["runAsNonRoot"]
    assert container["securityContext"]["readOnlyRootFilesystem"] is (container["name"] == "monitor")
    assert container["securityContext"]["allowPrivilegeEscalation"] is False
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert container["resources"]["limits"]["memory"]


def test_the_sampler_is_in_the_container_whose_work_it_protects() -> None:
    """A sampler measures the container that it runs in."""
    (pod,) = [one for file, one in documents() if file == "trainer.yaml"]
    (container,) = pod["spec"]["containers"]

    assert container["command"] == ["shm-monitor", "run", "--bind", "0.0.0.0:8909", "--"]
    assert container["args"] == ["python", "train.py"]


@pytest.mark.processes
@pytest.mark.parametrize("script", ["prolog.sh", "job.sh", "epilog.sh"])
def test_the_shell_takes_the_scripts_of_slurm(script: str) -> None:
    run("bash", "-n", script, cwd=DEPLOY / "slurm")


@pytest.mark.processes
def test_a_slurm_job_has_a_sampler_per_node_and_ends_with_its_command(tmp_path: Path) -> None:
    """Slurm is played by a script that runs what it is given: what counts is who is started, and what is left."""
    srun = tmp_path / "srun"
    srun.write_text('#!/bin/bash\nwhile [[ "$1" == --* ]]; do shift; done\nexec "$@"\n')
    monitor = tmp_path / "shm-monitor"
    monitor.write_text(f'#!/bin/bash\necho "$SHM_MONITOR_NAME $*" > {tmp_path}/started\nexec sleep 60\n')
    for file in (srun, monitor):
        file.chmod(0o755)
    environ = {"PATH": f"{tmp_path}:/usr/bin:/bin", "SLURM_JOB_ID": "7"}
    waits = f"until [ -s {tmp_path}/started ]; do sleep 0.05; done; echo $SHM_MONITOR_NAME; exit 3"
    done = subprocess.run(
        ["bash", str(DEPLOY / "slurm" / "job.sh"), "bash", "-c", waits],
        env=environ,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert done.returncode == 3
    assert done.stdout.strip() == "job-7"
    assert (tmp_path / "started").read_text().strip() == "job-7 run --no-view --no-api"


@pytest.fixture
def prolog(tmp_path: Path) -> Callable[[str], subprocess.CompletedProcess[str]]:
    """Run the prolog of a node whose ``shm-monitor`` is the given script; notes each time it slept."""

    def run_with(monitor: str) -> subprocess.CompletedProcess[str]:
        for name, text in (("shm-monitor", monitor), ("sleep", f"echo $1 >> {tmp_path}/slept")):
            (tmp_path / name).write_text(f"#!/bin/bash\n{text}\n")
            (tmp_path / name).chmod(0o755)
        command = ["bash", str(DEPLOY / "slurm" / "prolog.sh")]
        environ = {"PATH": f"{tmp_path}:/usr/bin:/bin"}
        return subprocess.run(command, env=environ, capture_output=True, text=True, timeout=120, check=False)

    return run_with


@pytest.mark.processes
@pytest.mark.parametrize(
    "monitor",
    ["exit 0", "exit 3", "echo usage >&2; exit 2", "echo Traceback >&2; exit 1", "exec no-such-command"],
    ids=["calm", "no sampler", "another limit", "an error", "not installed"],
)
def test_a_prolog_of_slurm_lets_jobs_in_where_nothing_says_that_memory_is_short(
    prolog: Callable[[str], subprocess.CompletedProcess[str]], monitor: str
) -> None:
    """One that fails drains its node."""
    done = prolog(monitor)

    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.processes
def test_a_prolog_of_slurm_waits_half_a_minute_for_calm(
    prolog: Callable[[str], subprocess.CompletedProcess[str]], name: str, tmp_path: Path
) -> None:
    """The real command, of a sampler whose only level of memory is called memory."""
    real = f'exec {sys.executable} -m shm_monitor "${{@/memory:host/memory}}" --name {name}'
    sampler = FakeSampler(name, observation_period=4.0)
    sampler.feed(*[95.0] * 8)
    pressed = prolog(real)
    sampler.feed(*[10.0] * 8)
    calm = prolog(real)
    sampler.close()

    assert pressed.returncode == 1
    assert pressed.stderr.startswith("this node is short of memory: PRUNE")
    assert (tmp_path / "slept").read_text().split() == ["5"] * 6, "and none of it when calm"
    assert calm.returncode == 0


def test_every_setting_in_the_deploy_files_exists() -> None:
    keys = {f"SHM_MONITOR_{key.upper()}" for key in ResourceConfig.__struct_fields__}
    keys |= {"SHM_MONITOR_BIND", "SHM_MONITOR_TOKEN_FILE", "SHM_MONITOR_ALLOWED_HOSTS"}
    text = "".join(file.read_text() for file in DEPLOY.rglob("*") if file.is_file())

    assert set(re.findall(r"\bSHM_MONITOR_[A-Z_]+\b", text)) <= keys
