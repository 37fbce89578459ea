#!/usr/bin/env bash
# After one dg.materialize() a process no longer does on SIGTERM what it did before; started with `&`, it ignores SIGTERM.
#
# Expected: Dagster catches interrupts while it executes, and restores what was there when it is done. A process whose own
#     handler of SIGTERM ends it in order (a service, a worker, a supervisor) can call materialize() like any library.
# Seen: Dagster gives SIGTERM the handler of SIGINT, and restores only SIGINT's, from which SIGTERM's is copied once more. The
#     process's own handler is gone: SIGTERM raises KeyboardInterrupt. And since a shell without job control starts what it
#     runs in the background with SIGINT ignored, the copy is "ignore" there: a script's `python worker.py &` cannot be
#     stopped by `kill`, `timeout` or a service manager any more, only by SIGKILL. An interactive shell leaves SIGINT alone,
#     so that a try by hand does not show it; `env --default-signal=INT python worker.py &` avoids the second half.
# Versions: dagster 1.13.27. Run on 2026-11-27 with Python 3.11 on Linux; it takes some minutes, most of them for the
#     installation, and printed:
#     foreground: on_sigterm before, default_int_handler after; then SIGTERM: ['KeyboardInterrupt']
#     background: on_sigterm before, SIG_IGN after; then SIGTERM: nothing happens
#     background: SIG_DFL before, SIG_IGN after; then SIGTERM: nothing happens
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
trap '[ ! -e log ] || tail -n 20 log >&2' ERR
cd "$folder"
python3 -m venv venv
venv/bin/python -m pip --disable-pip-version-check install -qq dagster==1.13.27

cat > check.py <<'EOF'
import os
import signal
import sys
import time

import dagster as dg

effects = []


def on_sigterm(signum, frame) -> None:
    effects.append("on_sigterm ran")


@dg.asset
def numbers() -> int:
    return 1


def name_of(handler) -> str:
    return getattr(handler, "name", None) or handler.__name__


if sys.argv[2] == "on_sigterm":
    signal.signal(signal.SIGTERM, on_sigterm)
before = signal.getsignal(signal.SIGTERM)
dg.materialize([numbers])
after = signal.getsignal(signal.SIGTERM)
try:
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(1)
except KeyboardInterrupt:
    effects.append("KeyboardInterrupt")
print(f"{sys.argv[1]}: {name_of(before)} before, {name_of(after)} after; then SIGTERM: {effects or 'nothing happens'}")
EOF

export DAGSTER_DISABLE_TELEMETRY=1 OMP_NUM_THREADS=1
echo "expected: before and after are the same"
env --default-signal=INT nice -n 5 venv/bin/python check.py foreground on_sigterm > seen 2> log
nice -n 5 venv/bin/python check.py background on_sigterm >> seen 2>> log &
wait $!
nice -n 5 venv/bin/python check.py background SIG_DFL >> seen 2>> log &
wait $!
cat seen
cat > before <<'EOF'
foreground: on_sigterm before, default_int_handler after; then SIGTERM: ['KeyboardInterrupt']
background: on_sigterm before, SIG_IGN after; then SIGTERM: nothing happens
background: SIG_DFL before, SIG_IGN after; then SIGTERM: nothing happens
EOF
diff before seen || { echo "changed" >&2; exit 1; }
