#!/usr/bin/env bash
# Scenes of many seeds by a SLURM array:   sbatch docs/sdg.slurm.sh /shared/scenes 10000-69030 /shared/models [exact|balanced|fast]
# Each task makes its share of the seeds; the same line again makes what is missing. Any number of tasks will do.
#SBATCH --job-name=lyra-sdg
#SBATCH --array=0-63
#SBATCH --gpus=1
#SBATCH --cpus-per-task=8
#SBATCH --mem=64G
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --output=%x-%A_%a.log
set -euo pipefail

out=${1:?where the scenes go: a folder that all nodes see, or a URL such as s3://bucket/scenes}
seeds=${2:?which seeds, such as 10000-69030}
models=${3:?folder of the released weights}
mode=${4:-exact}

export OMP_NUM_THREADS=${SLURM_CPUS_PER_TASK:-8}  # files are packed on the CPU

# the shard comes from SLURM_ARRAY_TASK_ID and its like; without an array everything is made here
lyra sdg "$out" --seeds "$seeds" --teacher "$models/diffusion_models/gen3c_cosmos_7b_bf16.safetensors" --tokenizer "$models/vae/cosmos_cv8x8x8_1.0.safetensors" --mode "$mode"
