#!/bin/sh
# Waits until every container of a compose project is healthy: `wait_until_healthy.sh docker compose --file ...`. A one-shot has
# ended with 0. `docker compose up --wait` takes the end of a one-shot for a failure.
set -eu
limit="${WAIT_SECONDS:-420}"
began=$(date +%s)
while :; do
    states=$(env "$@" ps --all --format '{{.Service}}|{{.State}}|{{.Health}}|{{.ExitCode}}')
    waiting=$(echo "$states" | awk -F '|' '!($2 == "running" && $3 == "healthy") && !($2 == "exited" && $4 == 0)')
    if [ -n "$states" ] && [ -z "$waiting" ]; then exit 0; fi
    failed=$(echo "$states" | awk -F '|' '$2 == "exited" && $4 != 0 { print $1 }' | head -n 1)
    if [ -n "$failed" ] || [ $(($(date +%s) - began)) -gt "$limit" ]; then
        echo "not healthy: $(echo "$waiting" | tr '\n' ';')" >&2
        env "$@" logs --tail 20 ${failed:-$(echo "$waiting" | awk -F '|' '{ print $1 }')} >&2
        exit 1
    fi
    sleep 2
done
