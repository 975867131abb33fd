#!/bin/bash
# Prolog= of slurm.conf, by root on each node of a job. Where the node's own sampler (the service in ../systemd) says for
# half a minute that memory is short, the node takes no job: Slurm queues the job again and drains the node until
# `scontrol update nodename=NODE state=resume`. A node without a sampler takes its jobs.
set -uo pipefail
PATH=/opt/shm-monitor/bin:${PATH:-/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin} # Slurm sets none
for _ in 1 2 3 4 5 6; do
    said=$(shm-monitor check --watch memory:host 2>/dev/null)
    if [ $? != 1 ] || [[ $said != @(PRUNE|CRITICAL)* ]]; then exit 0; fi
    sleep 5
done
echo "this node is short of memory: $said" >&2
exit 1
