"""The command ``shm-monitor``: stdout for data, stderr for people, exit statuses that scripts can rely on."""

from shm_monitor.cli.main import main

__all__ = ["main"]
