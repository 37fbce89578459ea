"""Which assets run together. Every job runs in one process: a tick is seconds of work, not worth a process a step."""

from datetime import UTC, datetime, timedelta

import dagster as dg

from selfheal_assets.resources import PlatformResource

MONITORING_TAG = {"selfheal/job": "monitoring"}
RETRAINING_TAG = {"selfheal/job": "retraining"}
"""dagster.yaml lets one run with this tag at a time: two retrainings would compete for the same promotion."""

MAX_RUNS_DELETED_A_DAY = 2_000

MONITORING = dg.AssetSelection.groups("serving_logs", "monitoring")
RETRAINING = dg.AssetSelection.groups("retraining") | dg.AssetSelection.assets("production_model")
BOOTSTRAP = dg.AssetSelection.groups("reference") | RETRAINING
PROBATION = dg.AssetSelection.groups("serving_logs") | dg.AssetSelection.assets("probation_report")

monitoring_job = dg.define_asset_job(
    "monitoring_job",
    MONITORING,
    tags=MONITORING_TAG,
    description="One look at the traffic: logs, drift, harm, verdict.",
)
retraining_job = dg.define_asset_job(
    "retraining_job", RETRAINING, tags=RETRAINING_TAG, description="Decide, train a shadow model, judge it, promote it."
)
bootstrap_job = dg.define_asset_job(
    "bootstrap_job",
    BOOTSTRAP,
    tags=RETRAINING_TAG,
    config={
        "ops": {
            "retraining_decision": {
                "config": {"trigger": "bootstrap", "reason": "no version in production yet", "actor": "bootstrap"}
            }
        }
    },
    description="From labelled data to the first production version: the same path as every later one.",
)
probation_job = dg.define_asset_job(
    "probation_job", PROBATION, tags=RETRAINING_TAG, description="Watch the new version; roll back if it is worse."
)


@dg.op
def prune_monitoring_runs(context: dg.OpExecutionContext, platform: PlatformResource) -> int:
    """Deletes old monitoring runs with their events: Dagster itself keeps them for ever."""
    settings = platform.open().settings
    before = datetime.now(UTC) - timedelta(days=settings.monitoring_results_keep_days)
    old = dg.RunsFilter(
        tags=MONITORING_TAG, created_before=before, statuses=[dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE]
    )
    records = context.instance.get_run_records(old, limit=MAX_RUNS_DELETED_A_DAY, ascending=True)
    for record in records:
        context.instance.delete_run(record.dagster_run.run_id)
    context.log.info(f"Deleted {len(records)} monitoring runs from before {before:%Y-%m-%d %H:%M} UTC")
    return len(records)


@dg.job(description="Daily: keeps what the platform writes bounded.")
def maintenance_job() -> None:
    prune_monitoring_runs()


ALL_JOBS = (monitoring_job, retraining_job, bootstrap_job, probation_job, maintenance_job)
