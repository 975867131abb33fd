#!/bin/bash
# Epilog= of slurm.conf: what a killed job left in shared memory goes; files of others, and of the living, stay.
set -uo pipefail
PATH=/opt/shm-monitor/bin:${PATH:-/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin} # Slurm sets none
[ -n "${SLURM_JOB_USER:-}" ] || exit 0
runuser -u "$SLURM_JOB_USER" -- shm-monitor clean >/dev/null 2>&1
exit 0 # an epilog that fails drains the node
