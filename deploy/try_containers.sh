#!/bin/bash
# `make containers-try`: builds the image and lives through the demo in containers, for CI. Where that cannot be tried, it says so
# and ends with 0; with SELFHEAL_REQUIRE_CONTAINERS set that is a failure.
set -euo pipefail
cd "$(dirname "$0")/.."
docker="${DOCKER:-docker}"
limit="${LIMIT_SECONDS:-840}" # all of it, so that a pipeline knows when it ends
began=$(date +%s)

skip() {
    echo "############################################################################################"
    echo "# THE CONTAINERS WERE NOT TRIED: $1"
    echo "############################################################################################"
    if [ -n "${SELFHEAL_REQUIRE_CONTAINERS:-}" ]; then exit 1; fi
    exit 0
} >&2

bounded() { # runs a command in what is left of the time
    local left=$((limit - ($(date +%s) - began)))
    if [ "$left" -le 0 ]; then echo "no time is left for: $*" >&2; return 124; fi
    timeout --kill-after=60 "$left" "$@"
}

command -v "${docker%% *}" >/dev/null || skip "there is no $docker"
# shellcheck disable=SC2086  (DOCKER may have options)
if ! said=$(timeout 10 $docker info --format '{{.ServerVersion}}' 2>&1); then
    skip "no container engine answers ($(echo "$said" | tail -n 1))"
fi
# shellcheck disable=SC2086
timeout 10 $docker compose version >/dev/null 2>&1 || skip "$docker has no compose"
base=$(sed -n 's/^ARG BASE=//p' deploy/Dockerfile)
postgres="${POSTGRES_IMAGE:-$(sed -n 's/.*POSTGRES_IMAGE:-\(.*\)}/\1/p' deploy/compose.yaml)}"
for image in "$base" "$postgres"; do
    # shellcheck disable=SC2086
    if ! $docker image inspect "$image" >/dev/null 2>&1 && ! said=$(timeout 120 $docker pull --quiet "$image" 2>&1); then
        skip "$image is not here, and cannot be pulled ($(echo "$said" | tail -n 1))"
    fi
done

bounded make image
bounded make compose-demo
echo "tried the containers in $(($(date +%s) - began)) s"
