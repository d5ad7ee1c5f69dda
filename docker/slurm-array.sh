#!/usr/bin/env bash
# A batch shared out over a Slurm array, in Apptainer: each task works on its shard of the same cases.
#   apptainer build liverseg.sif docker-daemon://liverseg:latest
#   export INPUT=/data/ct OUTPUT=/data/results WEIGHTS=/data/weights IMAGE=$PWD/liverseg.sif
#   sbatch --array=1-8 docker/slurm-array.sh
# To run one shard again, say in how many they were cut: SHARDS=8 ... sbatch --array=3 docker/slurm-array.sh
# What follows the script's name goes to `liverseg batch`, such as --report.
#SBATCH --job-name=liverseg
#SBATCH --array=1-4
#SBATCH --cpus-per-task=4
#SBATCH --mem=6G
#SBATCH --time=04:00:00
#SBATCH --signal=TERM@60
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=liverseg-%A_%a.log
# For a GPU add: --gres=gpu:1, and APPTAINER_OPTIONS=--nv
set -uo pipefail

for name in INPUT OUTPUT WEIGHTS IMAGE; do
  [ -e "${!name:-}" ] || { echo "slurm-array.sh: $name names no file or folder: '${!name:-}'" >&2; exit 2; }
done
shards=${SHARDS:-${SLURM_ARRAY_TASK_COUNT:?not in a Slurm array: sbatch --array=1-N}}
cpus=${SLURM_CPUS_PER_TASK:-1}
shard=${SLURM_ARRAY_TASK_ID:?not in a Slurm array: sbatch --array=1-N}
if [ "$shard" -lt 1 ] || [ "$shard" -gt "$shards" ]; then
  echo "slurm-array.sh: task $shard is no shard of $shards; number them from 1, or say how many there are: SHARDS=N" >&2
  exit 2
fi

# a contained Apptainer gives 64 MB of memory for /tmp; zips are unpacked there
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

# In a step of its own (srun), because --signal goes to steps: 60 s before the time is up liverseg gets SIGTERM, takes
# no new case, gives the one in hand --grace seconds and ends with 143.
status=0
# shellcheck disable=SC2086  # options are words
srun --cpus-per-task="$cpus" \
  apptainer run --containall --cleanenv --env "OMP_NUM_THREADS=$cpus" ${APPTAINER_OPTIONS:-} \
  --bind "$INPUT:/input:ro" --bind "$OUTPUT:/output" --bind "$WEIGHTS:/opt/liverseg/weights:ro" --bind "$scratch:/tmp" \
  "$IMAGE" batch /input /output --shard "$shard/$shards" --grace 30 "$@" || status=$?

# --requeue is for nodes that fail and jobs that are preempted; time that ran out is told here. Twenty times at most:
# cases that last longer than the job would go round for ever (see --case-timeout).
if [ "$status" -eq 143 ] && [ "${SLURM_RESTART_COUNT:-0}" -lt 20 ]; then
  echo "slurm-array.sh: stopped before all cases were done; task $shard is put back into the queue" >&2
  scontrol requeue "$SLURM_JOB_ID" && exit 0
fi
exit "$status"
