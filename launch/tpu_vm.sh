#!/usr/bin/env bash
# Train on every host of a slice of Google Cloud TPU VMs, from the root of this repository:
#   launch/tpu_vm.sh create NAME ZONE v5litepod-16 --spot   ask for a slice, and wait until it is there
#   launch/tpu_vm.sh install NAME ZONE                      copy this checkout there and install it
#   launch/tpu_vm.sh run NAME ZONE --config=configs/autoencoder.py:full --workdir=/mnt/store/run \
#       --config.data.folders="('/mnt/store/data/footage','/mnt/store/data/actors')"
#   launch/tpu_vm.sh follow NAME ZONE                       what the first host prints
#   launch/tpu_vm.sh stop NAME ZONE                         save and stop; `run` continues
#   launch/tpu_vm.sh delete NAME ZONE
# --dry-run in front of the command prints what would be executed, and executes nothing.
#
# The data and the workdir lie in a folder that all hosts see, such as a Filestore share: mount it at
# /mnt/store on every host, by a startup script or `gcloud compute tpus tpu-vm ssh --worker=all`.
# Set JAX_COMPILATION_CACHE_DIR to a folder there, and new hosts find the programs compiled.
# `create` passes further flags to gcloud, such as --reserved or --valid-until-duration=6h.
# A slice that Google takes back (--spot) is SUSPENDED and does not return: delete it, and create,
# install and run again. The training then continues from its last checkpoint.
set -euo pipefail

usage() {
    sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "${BASH_SOURCE[0]}" >&2
    exit 2
}

execute() {
    if [[ $dry_run ]]; then
        printf '%q ' "$@"
        echo
    else
        "$@"
    fi
}

queue() { execute gcloud compute tpus queued-resources "$1" "$name" --zone="$zone" "${@:2}"; }

ssh_to() {
    execute gcloud compute tpus tpu-vm ssh "$name" --zone="$zone" --worker="$1" --command="$2"
}

runtime_of() {
    case $1 in
        v5litepod-*) echo v2-alpha-tpuv5-lite ;;
        v5p-*) echo v2-alpha-tpuv5 ;;
        v6e-*) echo v2-alpha-tpuv6e ;;
        *) echo tpu-ubuntu2204-base ;;
    esac
}

create() {
    local type=${1:?the accelerator type is missing, such as v5litepod-16}
    queue create --node-id="$name" --accelerator-type="$type" \
        --runtime-version="$(runtime_of "$type")" "${@:2}"
    while true; do
        local state
        state=$(queue describe --format="value(state.state)")
        [[ $dry_run ]] && echo "$state" && return
        echo "$name is $state"
        case $state in
            ACTIVE) return ;;
            FAILED | SUSPENDING | SUSPENDED) exit 1 ;;
        esac
        sleep 30
    done
}

install() {
    ssh_to all "mkdir -p xactor_jax"
    execute gcloud compute tpus tpu-vm scp --recurse --zone="$zone" --worker=all \
        xactor_jax configs launch pyproject.toml README.md LICENSE "$name":xactor_jax
    # The system's Python may be older than 3.11; uv brings its own.
    ssh_to all "cd xactor_jax && python3 -m pip install --quiet --user uv && \
~/.local/bin/uv venv --quiet --allow-existing --python=3.12 && \
~/.local/bin/uv pip install --quiet --editable '.[tpu]'"
}

# The training outlives this connection; a host that fails begins again, and then all others do.
run() {
    local flags cache=""
    flags=$(printf '%q ' "$@")
    if [[ ${JAX_COMPILATION_CACHE_DIR:-} ]]; then
        cache="JAX_COMPILATION_CACHE_DIR=$(printf '%q' "$JAX_COMPILATION_CACHE_DIR") "
    fi
    ssh_to all "cd xactor_jax && ${cache}nohup setsid launch/again.sh .venv/bin/python \
-m xactor_jax.main --distributed --maintenance_events --stopped_exit_code=75 ${flags}\
>training.log 2>&1 </dev/null &"
}

follow() { ssh_to 0 "tail -n 100 -F xactor_jax/training.log"; }

# In brackets, so that the pattern does not find the shell that it stands in.
stop() { ssh_to all "pkill -f '[l]aunch/again.sh'; pkill -TERM -f '[x]actor_jax.main'"; }

delete() { queue delete --force --quiet; }

dry_run=""
if [[ ${1:-} == --dry-run ]]; then
    dry_run=yes
    shift
fi
[[ $# -ge 3 ]] || usage
command=$1 name=$2 zone=$3
shift 3
case $command in
    create | install | run | follow | stop | delete) "$command" "$@" ;;
    *) usage ;;
esac
