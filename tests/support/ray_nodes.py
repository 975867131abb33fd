"""A Ray cluster of two nodes on this machine: no dashboard, no usage statistics, small object stores."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import time
import warnings
from typing import TYPE_CHECKING, Any
from unittest import mock

from tests.support.surroundings import child_environment, remove_files

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

STORE_BYTES = 80 << 20  # Ray wants at least 75 MB
NODE = {"num_cpus": 2, "object_store_memory": STORE_BYTES}
ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_metrics_report_interval_ms": "1000",  # 10 s by default
}
WAIT_SECONDS = 60.0


class Nodes:
    """The cluster, with this process as its driver.

    Attributes:
        first: the id of the node that the driver is on, and second that of the other one.
    """

    def __init__(self, cluster: Any, other: Any) -> None:
        self._cluster = cluster
        self._other = other
        self.first: str = cluster.head_node.node_id
        self.second: str = other.node_id

    def kill_second(self) -> None:
        """Kill the other node: SIGKILL to all of its processes."""
        self._cluster.remove_node(self._other, allow_graceful=False)


@contextlib.contextmanager
def two_nodes() -> Iterator[Nodes]:
    """Start a cluster of two nodes and connect to it; all is gone afterwards, files too."""
    import ray
    from ray.cluster_utils import Cluster

    directory = tempfile.mkdtemp(prefix="ray-", dir="/tmp")  # the path of a socket has at most 107 bytes
    with mock.patch.dict(os.environ, {**child_environment(), **ENVIRONMENT}), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Ray's own
        cluster = Cluster(
            initialize_head=True, head_node_args={**NODE, "include_dashboard": False, "temp_dir": directory}
        )
        try:
            other = cluster.add_node(**NODE)
            ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
            nodes = Nodes(cluster, other)
            try:
                yield nodes
            finally:
                for node in (nodes.first, nodes.second):
                    remove_files(f"ray-{node[:16]}")
        finally:
            ray.shutdown()
            cluster.shutdown()
            shutil.rmtree(directory, ignore_errors=True)


def until(condition: Callable[[], object]) -> None:
    """Wait until *condition* holds."""
    deadline = time.monotonic() + WAIT_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "it did not come to be"
        time.sleep(0.1)
