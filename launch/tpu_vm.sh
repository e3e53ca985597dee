#!/usr/bin/env bash
# Train on every host of a TPU VM slice, from the root of this repository:
#   launch/tpu_vm.sh NAME ZONE --config=configs/autoencoder.py:full --workdir=/mnt/store/autoencoder
# The data and the workdir lie in a folder that all hosts see, such as a mounted Filestore share.
# The same command again continues a training that was stopped.
set -euo pipefail
name=$1 zone=$2
shift 2

on_all_hosts() {
    gcloud compute tpus tpu-vm ssh "$name" --zone="$zone" --worker=all --command="$1"
}

on_all_hosts "mkdir -p xactor_jax"
gcloud compute tpus tpu-vm scp --recurse --zone="$zone" --worker=all \
    xactor_jax configs pyproject.toml README.md LICENSE "$name":xactor_jax
# The system's Python may be older than 3.11; uv brings its own.
on_all_hosts "cd xactor_jax && python3 -m pip install --quiet --user uv &&
    ~/.local/bin/uv venv --quiet --allow-existing --python=3.12 &&
    ~/.local/bin/uv pip install --quiet --editable '.[tpu]'"
flags=$(printf '%q ' "$@")
on_all_hosts "cd xactor_jax && .venv/bin/python -m xactor_jax.main --distributed $flags"
