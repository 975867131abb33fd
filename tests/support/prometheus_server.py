"""A real Prometheus with the rules of docs/deploy, that finds what to scrape in a file."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import subprocess
import time
from typing import TYPE_CHECKING, Any

import httpx
import yaml

from tests.support.surroundings import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path
    from types import TracebackType
    from typing import Self

RULES = ROOT / "docs" / "deploy" / "prometheus"
PROGRAM = shutil.which("prometheus")
SECONDS = 60.0
PENDING = "1s"  # what every `for:` becomes: a test does not wait for ten minutes


class Prometheus:
    """The process, on a port of this machine; scrapes and evaluates each second.

    Attributes:
        url: of its API.
    """

    def __init__(self, place: Path) -> None:
        """Start it with its files in *place*."""
        self._targets = place / "targets.json"
        self.discover([])
        for name in ("rules.yml", "alerts.yml"):
            (place / name).write_text(re.sub(r"\bfor: \w+", f"for: {PENDING}", (RULES / name).read_text()))
        config = {
            "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
            "rule_files": ["rules.yml", "alerts.yml"],
            "scrape_configs": [
                {"job_name": "shm-monitor", "file_sd_configs": [{"files": ["targets.json"], "refresh_interval": "1s"}]}
            ],
        }
        (place / "prometheus.yml").write_text(yaml.safe_dump(config))
        self._log = place / "prometheus.log"
        command = [PROGRAM or "", "--config.file=prometheus.yml", "--storage.tsdb.path=data"]
        with self._log.open("w") as log:
            self._process = subprocess.Popen(
                [*command, "--web.listen-address=127.0.0.1:0"], cwd=place, stdout=log, stderr=log
            )
        self.url = ""

    def discover(self, targets: Sequence[str]) -> None:
        """Write the file of targets, as a scheduler does: whole, or not at all."""
        new = self._targets.with_suffix(".new")
        new.write_text(json.dumps([{"targets": list(targets), "labels": {"cluster": "of-a-test"}}]))
        new.replace(self._targets)

    def ask(self, expression: str) -> dict[str, float]:
        """Return the value of each series of *expression* by its instance."""
        with contextlib.suppress(httpx.TransportError):
            told = httpx.get(f"{self.url}/api/v1/query", params={"query": expression}, timeout=30).json()
            return {one["metric"].get("instance", ""): float(one["value"][1]) for one in told["data"]["result"]}
        return {}

    def alerts(self) -> set[tuple[str, str]]:
        """Return the alerts that fire: name and instance."""
        told: dict[str, Any] = httpx.get(f"{self.url}/api/v1/alerts", timeout=30).json()
        return {
            (one["labels"]["alertname"], one["labels"]["instance"])
            for one in told["data"]["alerts"]
            if one["state"] == "firing"
        }

    def until(self, condition: Callable[[], object]) -> None:
        """Wait until *condition* holds."""
        deadline = time.monotonic() + SECONDS
        while not condition():
            assert time.monotonic() < deadline, self._log.read_text()[-4000:]
            time.sleep(0.2)

    def __enter__(self) -> Self:
        self.until(self._listens)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.wait()

    def _listens(self) -> bool:
        found = re.search(r'msg="Listening on" address=(\S+)', self._log.read_text())
        self.url = f"http://{found[1]}" if found else ""
        return bool(found and self.ask("vector(1)"))
