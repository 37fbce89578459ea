#!/usr/bin/env bash
# A Dagster run that fails leaves a FINISHED run in MLflow, although dagster-mlflow's resource and hook are both in place.
#
# Expected: with `mlflow_tracking` and `end_mlflow_on_run_finished` a Dagster run is one MLflow run: RUNNING while it runs,
#     FAILED if it fails, and all that its steps log is in it.
# Seen, in a job whose step `fit` fails while another branch, `report`, goes on and succeeds:
#     - Multiprocess executor: the MLflow run has ended once before the second step begins, since MLflow ends the active run
#       when a process exits. dagster-mlflow unregisters `mlflow.end_run`, but MLflow 3 registers another function. Then
#       `fit`'s hook sets FAILED; then `report`, the last operation in topological order, succeeds and its hook sets FINISHED.
#     - In-process executor: the run stays FAILED, but it is closed by then, so that what `report` logs opens a second MLflow
#       run, which carries no `dagster_run_id` and ends as FINISHED.
# Versions: dagster 1.13.27, dagster-mlflow 0.29.27, mlflow 3.17.2. Run on 2026-11-27 with Python 3.11; it takes some
#     minutes, most of them for the installation, and printed:
#     multiprocess: Dagster FAILURE; MLflow FINISHED with dagster_run_id, metrics ['reported']; ended before `report`: True
#     in process: Dagster FAILURE; MLflow FAILED with dagster_run_id, metrics []; MLflow FINISHED without dagster_run_id, metrics
#         ['reported']
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/python -m pip --disable-pip-version-check install -qq dagster==1.13.27 dagster-mlflow==0.29.27 mlflow==3.17.2 \
    pandas==2.3.3 sqlalchemy==2.0.58

cat > check.py <<'EOF'
import time
from pathlib import Path

import dagster as dg
import mlflow
from dagster_mlflow import end_mlflow_on_run_finished, mlflow_tracking

URI = f"sqlite:///{Path('mlflow.db').absolute()}"


def tracking(experiment: str) -> dict:
    config = {"experiment_name": experiment, "mlflow_tracking_uri": URI, "env": {}, "extra_tags": {}}
    return {"mlflow": mlflow_tracking.configured(config)}


def runs(experiment: str) -> list:
    client = mlflow.MlflowClient(URI)
    ids = [client.get_experiment_by_name(experiment).experiment_id]
    return client.search_runs(ids, order_by=["attributes.start_time"])


def wait_until(is_so) -> None:
    end = time.monotonic() + 180
    while not is_so():
        assert time.monotonic() < end, "the other branch did not get there"
        time.sleep(0.2)


@dg.op(required_resource_keys={"mlflow"})
def prepare() -> str:
    mlflow.log_param("rows", 1000)
    return "prepared"


@dg.op(required_resource_keys={"mlflow"})
def fit(context: dg.OpExecutionContext, prepared: str) -> None:
    if context.job_name == "parallel":
        wait_until(Path("reporting").exists)
    raise ValueError("no convergence")


@dg.op(required_resource_keys={"mlflow"})
def report(context: dg.OpExecutionContext, prepared: str) -> None:
    if context.job_name == "parallel":
        Path("ended").write_text(str(runs("parallel")[0].info.end_time is not None))
        Path("reporting").touch()
        wait_until(lambda: runs("parallel")[0].info.status == "FAILED")
    mlflow.log_metric("reported", 1.0)


@end_mlflow_on_run_finished
@dg.job(resource_defs=tracking("parallel"), executor_def=dg.multiprocess_executor.configured({"max_concurrent": 2}))
def parallel() -> None:
    prepared = prepare()
    fit(prepared), report(prepared)


@end_mlflow_on_run_finished
@dg.job(resource_defs=tracking("serial"), executor_def=dg.in_process_executor)
def serial() -> None:
    prepared = prepare()
    fit(prepared), report(prepared)


def outcome(job: dg.JobDefinition) -> str:
    with dg.DagsterInstance.local_temp() as instance:
        dg.execute_job(dg.reconstructable(job), instance)
        lines = [f"Dagster {instance.get_runs()[0].status.value}"]
    for run in runs(job.name):
        tagged = "with dagster_run_id" if "dagster_run_id" in run.data.tags else "without dagster_run_id"
        lines.append(f"MLflow {run.info.status} {tagged}, metrics {list(run.data.metrics)}")
    return "; ".join(lines)


if __name__ == "__main__":
    print("expected: Dagster FAILURE; MLflow FAILED with dagster_run_id, metrics ['reported']; not ended before `report`\nseen:")
    seen = [outcome(parallel), Path("ended").read_text(), outcome(serial)]
    print(f"  multiprocess: {seen[0]}; ended before `report`: {seen[1]}\n  in process: {seen[2]}")
    before = [
        "Dagster FAILURE; MLflow FINISHED with dagster_run_id, metrics ['reported']",
        "True",
        "Dagster FAILURE; MLflow FAILED with dagster_run_id, metrics []; "
        "MLflow FINISHED without dagster_run_id, metrics ['reported']",
    ]
    raise SystemExit(None if seen == before else "changed")
EOF
OMP_NUM_THREADS=1 DAGSTER_DISABLE_TELEMETRY=1 nice -n 5 venv/bin/python check.py 2> log || { tail -n 20 log >&2; exit 1; }
