"""A process around one GpuCollector: a line of JSON in, a line of JSON out. Started by nvml_library.py."""

from __future__ import annotations

import json
import math
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np

from shm_monitor.collectors.base import Collector
from shm_monitor.collectors.gpu.collector import discover_gpu
from shm_monitor.schema import why_unknown


class Server:
    """What a line can ask for: each public method takes the line's argument."""

    def __init__(self) -> None:
        self._now = 0.0
        self._collector: Collector | None = None

    def discover(self, arguments: dict[str, Any]) -> object:
        self.close()
        if "proc_root" in arguments:
            arguments["proc_root"] = Path(arguments["proc_root"])
        self._collector = discover_gpu(**arguments, clock=lambda: self._now)
        return self._collector.facts

    def collect(self, _: object = None) -> dict[str, float | str]:
        assert self._collector is not None
        out = np.zeros(len(self._collector.metrics))
        self._collector.collect(out)
        return {
            metric.name: why_unknown(value).text if math.isnan(value) else value
            for metric, value in zip(self._collector.metrics, out.tolist(), strict=True)
        }

    def advance(self, seconds: float) -> None:
        self._now += seconds

    def threads(self, _: object = None) -> int:
        return threading.active_count()

    def close(self, _: object = None) -> None:
        if self._collector is not None:
            self._collector.close()
        self._collector = None


def main() -> None:
    server = Server()
    for line in sys.stdin:
        what, argument = json.loads(line)
        try:
            answer = {"result": getattr(server, what)(argument)}
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
