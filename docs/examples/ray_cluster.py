"""A sampler on every node, tasks that fit, and pipelines that brake (pip install "shm-monitor[ray]")."""

import ray

import shm_monitor as sm
from shm_monitor.integrations.ray import RayExecutor, cluster_verdict, enable, node_reader, start_samplers


def work(seed: int) -> int:
    """Take some memory for a moment; a task asks the node that it runs on."""
    with node_reader() as reader:
        size = 1_000 if reader.should_prune() else 1_000_000
    return len(bytearray(size)) + seed


if __name__ == "__main__":
    ray.init(num_cpus=2, object_store_memory=80 << 20, include_dashboard=False)
    start_samplers()  # again after nodes have joined; it leaves those that run
    enable()  # datasets made from here on run fewer tasks while nodes press

    with sm.BoundedExecutor(RayExecutor(num_cpus=1), limit=2, reader=node_reader(watch=["memory"])) as pool:
        print(sum(pool.map(work, range(10))))
    print(ray.data.range(100, override_num_blocks=2).map_batches(lambda batch: batch).count(), "rows")
    print(f"{len(cluster_verdict().nodes)} node: {cluster_verdict().level.text}")
