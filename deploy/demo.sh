#!/bin/sh
# `demo.sh [OPTIONS OF selfheal demo] -- docker compose ...`: the loop in containers; afterwards nothing of it is left.
set -eu
here=$(dirname "$0")
options=""
while [ $# -gt 0 ] && [ "$1" != "--" ]; do
    options="$options $1"
    shift
done
[ $# -gt 0 ] && shift

leave() {
    code=$?
    trap - EXIT INT TERM
    if [ "$code" -ne 0 ]; then env "$@" logs --tail 30 >&2 || true; fi
    env "$@" --profile demo down --volumes --remove-orphans >&2 || code=1
    exit "$code"
}
trap 'leave "$@"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

began=$(date +%s)
env "$@" up --detach
"$here/wait_until_healthy.sh" "$@"
echo "healthy after $(($(date +%s) - began)) s"
env "$@" run --rm --no-deps -T demo demo --api http://api:8000 --dagster http://webserver:3000 $options
