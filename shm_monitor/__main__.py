"""``python -m shm_monitor`` is ``shm-monitor``."""

import sys

from shm_monitor.cli import main

sys.exit(main())
