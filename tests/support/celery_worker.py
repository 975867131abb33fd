"""A real Celery worker with two processes in the app of docs/examples/celery_calm.py; speaks by lines.

``start N`` sends N tasks, ``begun`` prints how many have begun, ``sum`` waits for all and prints their sum.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

from celery.contrib.testing.worker import start_worker
from celery.signals import task_postrun

path = Path(sys.argv[1])
spec = importlib.util.spec_from_file_location(path.stem, path)
assert spec is not None
assert spec.loader is not None
example = importlib.util.module_from_spec(spec)
sys.modules[path.stem] = example
spec.loader.exec_module(example)
begun = Path(sys.argv[2])
example.app.conf.result_backend = f"file://{sys.argv[3]}"


def note(task_id: str, **_: Any) -> None:
    """Note each task that was done, by whom."""
    with begun.open("a") as file:
        file.write(f"{task_id}\n")


task_postrun.connect(note)
with start_worker(example.app, pool="prefork", concurrency=2, perform_ping_check=False):
    print("ready", flush=True)
    sent: list[Any] = []
    for line in sys.stdin:
        what, _, count = line.partition(" ")
        if what == "start":
            sent += [example.work.delay(seed) for seed in range(int(count))]
            print(len(sent), flush=True)
        else:
            print(sum(one.get(timeout=60) for one in sent), flush=True)
