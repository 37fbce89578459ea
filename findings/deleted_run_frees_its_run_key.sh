#!/usr/bin/env bash
# A sensor's run_key is good until somebody deletes the run: then the sensor launches the same work again.
#
# Expected: Dagster promises one run for each run_key of a sensor, whatever happens to the run. A key is remembered by the
#     sensor, like its cursor, so that a sensor may ask for the same key at each tick, and old runs may be cleaned up.
# Seen: the memory of keys is the runs themselves, found by their tag. A failed run holds its key for ever, so that work that
#     failed is never taken up again; the ticks that ask for it are skipped, with no reason in the tick. But as soon as the run
#     is deleted (by hand, or by a job that clears old runs out, as an event log that is never pruned asks for), the next tick
#     launches it anew. A retention of N days makes every condition that lasts longer than N days fire once more.
# Versions: dagster 1.13.27. Run on 2026-11-27 with Python 3.11; it takes some minutes, most of them for the installation,
#     and printed:
#     the first run of batch-7: FAILURE
#     later ticks: SKIPPED for ['batch-7'], reason None; runs: 1
#     the run deleted, next run of batch-7: FAILURE, another run: True
set -euo pipefail
folder=$(mktemp -d)
daemon=""
trap '[ -z "$daemon" ] || { kill "$daemon" && wait "$daemon"; } 2> /dev/null || true; rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/python -m pip --disable-pip-version-check install -qq dagster==1.13.27

mkdir home
echo 'telemetry: {enabled: false}' > home/dagster.yaml
export DAGSTER_HOME=$folder/home OMP_NUM_THREADS=1
cat > defs.py <<'EOF'
import dagster as dg


@dg.op
def load():
    raise ValueError("the file is not complete")


@dg.job
def loading():
    load()


@dg.sensor(job=loading, minimum_interval_seconds=1, default_status=dg.DefaultSensorStatus.RUNNING)
def batches():
    return dg.RunRequest(run_key="batch-7")


defs = dg.Definitions(jobs=[loading], sensors=[batches])
EOF

cat > check.py <<'EOF'
import time

import dagster as dg


def wait_for(found):
    end = time.monotonic() + 300
    while not (result := found()):
        assert time.monotonic() < end, "nothing within 300 s"
        time.sleep(0.5)
    return result


with dg.DagsterInstance.get() as instance:

    def finished() -> list:
        return [run for run in instance.get_runs() if run.is_finished]

    def skipped() -> list:
        (state,) = instance.all_instigator_state() or [None]
        ticks = instance.get_ticks(state.instigator_origin_id, state.selector_id) if state else []
        return [tick for tick in ticks if tick.status.value == "SKIPPED"]

    print("expected: one run of batch-7, also after the run is deleted\nseen:")
    (first,) = wait_for(finished)
    print(f"  the first run of {first.tags['dagster/run_key']}: {first.status.value}")
    tick = wait_for(lambda: len(found := skipped()) >= 3 and found[0])
    runs = len(instance.get_runs())
    print(f"  later ticks: {tick.status.value} for {tick.run_keys}, reason {tick.skip_reason}; runs: {runs}")
    instance.delete_run(first.run_id)
    (again,) = wait_for(finished)
    is_another = again.run_id != first.run_id
    print(f"  the run deleted, next run of {again.tags['dagster/run_key']}: {again.status.value}, another run: {is_another}")
    is_as_before = (runs, tick.run_keys, tick.skip_reason, is_another) == (1, ["batch-7"], None, True)
raise SystemExit(None if is_as_before else "changed")
EOF
venv/bin/python -c 'import dagster as dg; dg.DagsterInstance.get()' # the first one creates the tables
env --default-signal=INT nice -n 5 venv/bin/dagster-daemon run -f defs.py > log 2>&1 & # or it ignores SIGTERM too
daemon=$!
nice -n 5 venv/bin/python check.py || { tail -n 20 log >&2; exit 1; }
