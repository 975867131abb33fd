"""The one process that measures and writes: ``python -m shm_monitor.sampler``."""
