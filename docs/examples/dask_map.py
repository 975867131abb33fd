"""Workers of a cluster that pause for their container, never all of a host (pip install "shm-monitor[dask]")."""

from distributed import Client, LocalCluster

from shm_monitor.integrations.dask import PressurePlugin


def work(seed: int) -> int:
    """Take some memory for a moment."""
    return len(bytearray(1_000_000)) + seed


if __name__ == "__main__":
    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster, Client(cluster) as client:
        client.register_plugin(PressurePlugin(keep_running=1, max_pause=60.0))
        print(sum(client.gather(client.map(work, range(10)))))
