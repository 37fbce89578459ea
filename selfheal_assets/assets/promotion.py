"""What serves, and whether it does better than what it replaced."""

from collections.abc import Iterator
from datetime import UTC, datetime

import dagster as dg

from selfheal.records import GateVerdict, ModelVersion, ProbationReport
from selfheal_assets.assets import OWNERS
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
    description="The version in production. Staging, a last validation, then production if its predecessor is still the one "
    "the gates compared with; the API swaps to it within seconds. Gives nothing if the gates did not pass. **Red?** The "
    "last validation failed, or another version went live meanwhile: production is as it was.",
)
def production_model(
    context: dg.AssetExecutionContext, gate_verdict: GateVerdict, platform: PlatformResource
) -> Iterator[dg.Output[ModelVersion]]:
    from selfheal.promotion.going_live import promote

    if not gate_verdict.is_promotion:
        context.log.info(f"Not promoted ({gate_verdict.decision.action}): {gate_verdict.decision.reason}")
        return
    version = promote(platform.open(), gate_verdict, datetime.now(UTC), on_step=context.log.info)
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
    description="The new version watched by the one it replaced: both score the matured, labelled rows served since the "
    "promotion. A paired loss beyond noise rolls back by itself, once. **Runs** while a version is on probation and new labels "
    "come in. **`no_evidence`?** Too few labels came in time: the version serves on, unproven.",
)
def probation_report(platform: PlatformResource) -> dg.Output[ProbationReport]:
    from selfheal.alerting.notify import tell
    from selfheal.stages.probation import watch_probation

    opened = platform.open()
    report = watch_probation(opened, datetime.now(UTC))
    tell(opened.settings, opened.store, datetime.now(UTC))
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
