"""Promotion and probation: the version in production, with one partition of `MODEL_VERSIONS` per model version."""

from collections.abc import Iterator
from datetime import UTC, datetime

import dagster as dg

from selfheal.domain.records import GateVerdict, ModelVersion, ProbationReport
from selfheal_assets.assets import ON_PROBATION, ON_REQUEST, described
from selfheal_assets.assets.serving_logs import label_store, prediction_logs
from selfheal_assets.metadata import Facts, plain
from selfheal_assets.resources.platform import PlatformResource
from selfheal_assets.resources.versions import MODEL_VERSIONS, PRODUCTION_MODEL, report_live, version_of


@dg.asset(
    kinds={"mlflow", "postgres"},
    output_required=False,
    tags=ON_REQUEST,
    description=described(
        "The judged model goes live: staging, a last validation, then production if its predecessor is still the one the gates "
        "compared with; the API swaps to it within seconds. Gives nothing if the gates did not pass.",
        runs="at the end of each retraining and of the bootstrap.",
        red="The last validation failed, or another version went live meanwhile: production is as it was, and the message says "
        "what to change. To go back to an earlier version: the job `rollback_job`, or `selfheal rollback --reason ...`.",
    ),
)
def promotion(
    context: dg.AssetExecutionContext, gate_verdict: GateVerdict, platform: PlatformResource
) -> Iterator[dg.Output[ModelVersion]]:
    from selfheal.services.promotion.going_live import promote

    if not gate_verdict.is_promotion:
        context.log.info(f"Not promoted ({gate_verdict.decision.action}): {gate_verdict.decision.reason}")
        return
    opened = platform.open()
    version = promote(opened, gate_verdict, datetime.now(UTC), on_step=context.log.info)
    report_live(context, opened, version.version)
    yield dg.Output(
        version,
        metadata=plain(
            {
                "version": version.version,
                "replaced_version": version.previous_version or "none",
                "decision_id": version.decision_id or "none",
            }
        ),
    )


production_model = dg.AssetSpec(
    PRODUCTION_MODEL,
    kinds={"mlflow", "postgres"},
    deps=[promotion],
    partitions_def=MODEL_VERSIONS,
    tags=ON_REQUEST,
    description=described(
        "The version in production, and those before it: one partition each, with a materialisation for each time that the "
        "version went live, by a retraining, by a person, or by a rollback.",
        runs="never by itself: what brings a version into production reports it here (`promotion`, `promote_job`, "
        "`rollback_job`; for API, command line and probation `registry_sensor`).",
        red="Its check found MLflow elsewhere than Postgres says: `registry_sensor` repairs that within a minute. If the check "
        "stays red, MLflow does not answer or somebody moves its aliases.",
    ),
)


@dg.asset(
    kinds={"scikitlearn", "postgres"},
    deps=[production_model, prediction_logs, label_store],
    partitions_def=MODEL_VERSIONS,
    retry_policy=dg.RetryPolicy(max_retries=3, delay=20, backoff=dg.Backoff.EXPONENTIAL),
    tags=ON_PROBATION,
    description=described(
        "The new version watched by the one it replaced: both score the matured, labelled rows served since the promotion. "
        "A paired loss beyond noise rolls back by itself, once. Outcome `no_evidence`: too few labels came in time, the "
        "version serves on, unproven. One partition per version: that of an earlier one shows how its probation ended.",
        runs="while a version is on probation: at every tenth more labels from `MIN_PROBATION_LABELS` on, and at the end.",
        red="Postgres or MLflow does not answer: it is tried again three times, then at the next evaluation. A rollback that "
        "failed is an alert and is taken up again every hour.",
    ),
)
def probation_report(context: dg.AssetExecutionContext, platform: PlatformResource) -> dg.Output[ProbationReport]:
    from selfheal.adapters.alerting.delivery import deliver_due_alerts
    from selfheal.kit.errors import PermanentError
    from selfheal.services.probation import probation_of

    version, opened = version_of(context.partition_key), platform.open()
    try:
        report = probation_of(opened, version, datetime.now(UTC))
    except PermanentError as error:
        raise dg.Failure(str(error), allow_retries=False) from error
    deliver_due_alerts(opened.settings, opened.store, datetime.now(UTC))
    metadata: Facts = {
        "version": report.version,
        "is_on_probation": report.is_on_probation,
        "outcome": "none yet" if report.outcome is None else report.outcome.value,
        "labels": report.n_labels,
        "finding": report.reason,
        "ends_at": "-" if report.ends_at is None else dg.MetadataValue.timestamp(report.ends_at),
    }
    if report.brier_change is not None and report.brier_change_low is not None:
        metadata |= {"brier_change": report.brier_change, "brier_change_low": report.brier_change_low}
    return dg.Output(report, metadata=plain(metadata))
