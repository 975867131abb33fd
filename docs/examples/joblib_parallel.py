"""Tasks that begin only when there is room for them (pip install "shm-monitor[joblib]")."""

from joblib import delayed

from shm_monitor.integrations.joblib import Parallel


def work(seed: int) -> int:
    """Take some memory for a moment."""
    return len(bytearray(1_000_000)) + seed


if __name__ == "__main__":
    print(sum(Parallel(n_jobs=2)(delayed(work)(seed) for seed in range(10))))
