#!/usr/bin/env bash
# Run a command again when it fails, ten times in all, but not when its input is bad (exit code 2):
#   launch/again.sh python -m xactor_jax.main --config=... --workdir=...
set -uo pipefail

for attempt in {1..10}; do
    "$@"
    code=$?
    if [[ $code == 0 || $code == 2 ]]; then
        break
    fi
    echo "attempt $attempt ended with exit code $code" >&2
    sleep "${PAUSE:-30}"
done
exit "$code"
