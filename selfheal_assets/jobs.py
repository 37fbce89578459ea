"""Jobs: which assets run together.

Every job runs in one process, because a tick takes only seconds and a process per step would cost more.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, TypeAlias

import dagster as dg
from pydantic import Field

from selfheal.domain.records import ModelVersion
from selfheal_assets.assets.retraining import RequestTrigger, RetrainingRequest
from selfheal_assets.interruptions import MAX_RUNTIME_TAG
from selfheal_assets.job_names import (
    BOOTSTRAP_JOB,
    MONITORING_JOB,
    POLICY_REPORT_JOB,
    PROBATION_JOB,
    RETRAINING_JOB,
    RETRAINING_TAG,
)
from selfheal_assets.metadata import plain
from selfheal_assets.resources.platform import PlatformResource
from selfheal_assets.resources.tracking import END_MLFLOW_RUN
from selfheal_assets.resources.versions import PRODUCTION_MODEL, report_live
from selfheal_assets.retention import delete_old

if TYPE_CHECKING:
    from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition  # no public name

MONITORING_TAG = {"selfheal/job": "monitoring"}
PROBATION_TAG = {"selfheal/job": "probation"}
"""A tag of its own: a version that does harm is not left in place until a training has ended."""

POLICY_REPORT_TAG = {"selfheal/job": "policy_report"}
"""A tag of its own: no tick and no training waits for a report, and two reports do not run beside each other."""

Job: TypeAlias = "dg.JobDefinition | UnresolvedAssetJobDefinition"

MONITORING = dg.AssetSelection.groups("serving_logs", "monitoring") - dg.AssetSelection.assets(
    "monitoring_report", "policy_report"
)
RETRAINING = (
    dg.AssetSelection.groups("retraining")
    | dg.AssetSelection.assets("promotion")
    | dg.AssetSelection.checks(dg.AssetCheckKey(PRODUCTION_MODEL, "alias_follows_postgres"))
)
BOOTSTRAP = dg.AssetSelection.groups("reference") | RETRAINING
PROBATION = dg.AssetSelection.groups("serving_logs") | dg.AssetSelection.assets("probation_report")

monitoring_job = dg.define_asset_job(
    MONITORING_JOB,
    MONITORING,
    tags=MONITORING_TAG,
    description="One monitoring tick: logs, drift, harm, verdict. Launched by `monitoring_sensor`; a run by hand does no harm.",
)
probation_job = dg.define_asset_job(
    PROBATION_JOB,
    PROBATION,
    tags=PROBATION_TAG,
    description="Evaluate the version of the partition: on probation it is compared with the one before, and rolled back if "
    "it is worse.",
)
policy_report_job = dg.define_asset_job(
    POLICY_REPORT_JOB,
    dg.AssetSelection.assets("policy_report"),
    tags=POLICY_REPORT_TAG,
    description="Monthly, or by hand: replays the platform's own logs under several policies, and writes a report. Changes nothing.",
)


@dg.op(description="Deletes what is old by the settings `*_RETENTION_DAYS`; nothing that a decision rests on.")
def delete_what_is_old(context: dg.OpExecutionContext, platform: PlatformResource) -> None:
    from selfheal.kit.serialization import to_dict
    from selfheal.services.maintenance import maintain

    report = maintain(platform.open(), datetime.now(UTC), partial(delete_old, context.instance))
    if report.is_skipped:
        context.log.info("Another maintenance is under way: nothing was done here.")
    context.add_output_metadata(plain(to_dict(report)))


@dg.job(description="Daily: deletes what is old, so that what the platform writes stays bounded.")
def maintenance_job() -> None:
    delete_what_is_old()


class ForcedPromotion(dg.Config):
    """Which version, why, and at whose request."""

    version: int = Field(description="a registered version")
    reason: str = Field(description="why; recorded with the decision")
    actor: str = Field("dagster", description="who wants it; recorded with the decision")
    from_version: int | None = Field(
        None, description="what you believe to be in production: another one is left there"
    )


class Rollback(dg.Config):
    """Why, at whose request, and back to which version."""

    reason: str = Field(description="why; recorded with the decision")
    version: int | None = Field(None, description="an earlier version; absent: the one that the present one replaced")
    actor: str = Field("dagster", description="who wants it; recorded with the decision")
    from_version: int | None = Field(
        None, description="what you believe to be in production: another one is left there"
    )


@dg.op(description="Puts a registered version into production on a person's word. It goes on probation.")
def put_into_production(context: dg.OpExecutionContext, config: ForcedPromotion, platform: PlatformResource) -> None:
    from selfheal.services.promotion.going_live import force_promote

    opened = platform.open()
    live = force_promote(
        opened,
        config.version,
        reason=config.reason,
        actor=config.actor,
        from_version=config.from_version,
        now=datetime.now(UTC),
        on_step=context.log.info,
    )
    report_live(context, opened, live.version)
    context.add_output_metadata(plain(_live_metadata(live)))


@dg.op(description="Puts an earlier version back into production.")
def put_back(context: dg.OpExecutionContext, config: Rollback, platform: PlatformResource) -> None:
    from selfheal.services.promotion.going_live import rollback

    opened = platform.open()
    live = rollback(
        opened,
        to_version=config.version,
        reason=config.reason,
        actor=config.actor,
        from_version=config.from_version,
        now=datetime.now(UTC),
        on_step=context.log.info,
    )
    report_live(context, opened, live.version)
    context.add_output_metadata(plain(_live_metadata(live)))


def _live_metadata(live: ModelVersion) -> dict[str, int | str]:
    return {
        "version": live.version,
        "replaced_version": live.previous_version or "none",
        "decision_id": live.decision_id or "none",
    }


@dg.job(description="By hand: a registered version goes into production without a verdict of the gates.")
def promote_job() -> None:
    put_into_production()


@dg.job(description="By hand: an earlier version goes back into production.")
def rollback_job() -> None:
    put_back()


def training_jobs(timeout_seconds: int) -> Sequence[Job]:
    """Return the jobs that train; Dagster ends a run of theirs after `timeout_seconds`."""
    tags = {**RETRAINING_TAG, MAX_RUNTIME_TAG: str(timeout_seconds)}
    retraining_job = dg.define_asset_job(
        RETRAINING_JOB,
        RETRAINING,
        tags=tags,
        hooks={END_MLFLOW_RUN},
        description="Decide, train a shadow model, judge it, promote it. Launched by sensors, the weekly schedule, "
        "`selfheal retrain`; production changes only if all gates pass.",
    )
    bootstrap_job = dg.define_asset_job(
        BOOTSTRAP_JOB,
        BOOTSTRAP,
        tags=tags,
        hooks={END_MLFLOW_RUN},
        config=RetrainingRequest(
            trigger=RequestTrigger.bootstrap, reason="no version in production yet", actor="bootstrap"
        ).run_config(),
        description="From labelled data to the first production version: the same path as every later one.",
    )
    return retraining_job, bootstrap_job


def all_jobs(training_timeout_seconds: int) -> Sequence[Job]:
    """Return every job."""
    return (
        monitoring_job,
        *training_jobs(training_timeout_seconds),
        probation_job,
        maintenance_job,
        policy_report_job,
        promote_job,
        rollback_job,
    )
