#!/bin/bash
#SBATCH --job-name=train
#SBATCH --ntasks-per-node=8
#SBATCH --mem=64G
# One sampler per node of the job, inside the job's own cgroup, so that its memory limit is the one that counts.
# The ranks of a node find it by SHM_MONITOR_NAME; it ends with the job, however that ends.
# usage: sbatch job.sh python train.py
set -euo pipefail
export SHM_MONITOR_NAME="job-${SLURM_JOB_ID:?submit me with sbatch}"
srun --ntasks-per-node=1 --overlap shm-monitor run --no-view --no-api &
monitors=$!
trap 'kill "$monitors" 2>/dev/null || true; wait "$monitors" || true' EXIT
srun --overlap "$@"
