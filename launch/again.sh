#!/usr/bin/env bash
# Run a command again when it fails, until the tenth failure, and after a planned stop (exit code
# 75) as often as it takes, but not when its input is bad (exit code 2):
#   launch/again.sh python -m xactor_jax.main --config=... --workdir=...
set -uo pipefail

failures=0
while true; do
    "$@"
    code=$?
    if [[ $code != 75 ]]; then
        failures=$((failures + 1))
    fi
    if [[ $code == 0 || $code == 2 || $failures == 10 ]]; then
        break
    fi
    echo "ended with exit code $code, after $failures failures in all" >&2
    sleep "${PAUSE:-30}"
done
exit "$code"
