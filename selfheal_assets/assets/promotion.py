"""What serves, and whether it does better than what it replaced."""

from collections.abc import Iterator
from datetime import UTC, datetime

import dagster as dg

from selfheal.domain.records import GateVerdict, ModelVersion, ProbationReport
from selfheal_assets import links
from selfheal_assets.assets import ON_PROBATION, ON_REQUEST, OWNERS, described
from selfheal_assets.assets.serving_logs import label_store, prediction_logs
from selfheal_assets.resources import PlatformResource

GROUP = "promotion"


@dg.asset(
    group_name=GROUP,
    kinds={"mlflow", "postgres"},
    owners=OWNERS,
    code_version="1",
    io_manager_key="record_io",
    output_required=False,
    tags=ON_REQUEST,
    description=described(
        "The version in production. Staging, a last validation, then production if its predecessor is still the one the gates "
        "compared with; the API swaps to it within seconds. Gives nothing if the gates did not pass.",
        runs="at the end of each retraining and of the bootstrap.",
        red="The last validation failed, or another version went live meanwhile: production is as it was, and the message says "
        "what to change. To go back to an earlier version: the job `rollback_job`, or `selfheal rollback --reason ...`.",
    ),
)
def production_model(
    context: dg.AssetExecutionContext, gate_verdict: GateVerdict, platform: PlatformResource
) -> Iterator[dg.Output[ModelVersion]]:
    from selfheal.services.promotion.going_live import promote

    if not gate_verdict.is_promotion:
        context.log.info(f"Not promoted ({gate_verdict.decision.action}): {gate_verdict.decision.reason}")
        return
    opened = platform.open()
    version = promote(opened, gate_verdict, datetime.now(UTC), on_step=context.log.info)
    yield dg.Output(
        version,
        metadata={
            "version": version.version,
            "stage": version.stage.value,
            "replaced_version": version.previous_version or "none",
            "decision_id": version.decision_id or "none",
            "threshold": version.threshold,
            "trigger": version.trigger_reason,
            "rows_learned_and_judged_on": version.n_samples,
            "mlflow_run": links.mlflow_run(opened, version.mlflow_run_id),
            **{f"evaluation_{k}": v for k, v in version.metrics.items() if isinstance(v, int | float)},
        },
    )


@dg.asset(
    group_name=GROUP,
    kinds={"scikitlearn", "postgres"},
    owners=OWNERS,
    code_version="1",
    io_manager_key="record_io",
    deps=[production_model, prediction_logs, label_store],
    retry_policy=dg.RetryPolicy(max_retries=3, delay=20, backoff=dg.Backoff.EXPONENTIAL),
    tags=ON_PROBATION,
    description=described(
        "The new version watched by the one it replaced: both score the matured, labelled rows served since the promotion. "
        "A paired loss beyond noise rolls back by itself, once. Outcome `no_evidence`: too few labels came in time, the "
        "version serves on, unproven.",
        runs="while a version is on probation: a look for every tenth more labels from `MIN_PROBATION_LABELS` on, and at the "
        "end.",
        red="Postgres or MLflow does not answer: it is tried again three times, then by the next look. A rollback that failed "
        "is an alert and is taken up again every hour.",
    ),
)
def probation_report(platform: PlatformResource) -> dg.Output[ProbationReport]:
    from selfheal.adapters.alerting.delivery import deliver_due_alerts
    from selfheal.services.probation import watch_probation

    opened = platform.open()
    report = watch_probation(opened, datetime.now(UTC))
    deliver_due_alerts(opened.settings, opened.store, datetime.now(UTC))
    metadata: dict[str, object] = {
        "version": report.version,
        "is_on_probation": report.is_on_probation,
        "outcome": "none yet" if report.outcome is None else report.outcome.value,
        "labels": report.n_labels,
        "finding": report.reason,
        "ends_at": "-" if report.ends_at is None else dg.MetadataValue.timestamp(report.ends_at),
    }
    if report.brier_change is not None and report.brier_change_low is not None:
        metadata |= {"brier_change": report.brier_change, "brier_change_low": report.brier_change_low}
    return dg.Output(report, metadata=metadata)
