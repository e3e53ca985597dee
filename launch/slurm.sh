#!/usr/bin/env bash
# Train on GPU nodes with Slurm, from the root of this repository:
#   sbatch launch/slurm.sh --config=configs/autoencoder.py:full --workdir=runs/autoencoder
# Checkout, data and workdir lie on a file system that all nodes see. Once before the first job:
#   python3.12 -m venv .venv && .venv/bin/python -m pip install --editable ".[gpu]"
# The same command again continues a training that was stopped.
#SBATCH --job-name=xactor
#SBATCH --nodes=2
#SBATCH --gpus-per-node=8
#SBATCH --ntasks-per-node=8
#SBATCH --cpus-per-task=8
#SBATCH --time=24:00:00
#SBATCH --signal=TERM@300
#SBATCH --requeue
#SBATCH --open-mode=append
set -euo pipefail

# One process a GPU. Each saves and leaves at the signal, five minutes before the time is over.
srun --cpus-per-task="$SLURM_CPUS_PER_TASK" --kill-on-bad-exit=1 \
    .venv/bin/python -m xactor_jax.main --distributed "$@"
