"""Model versions as Dagster partitions: each version has a page with its materialisations."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import dagster as dg

from selfheal_assets.metadata import Facts, plain
from selfheal_assets.resources import links

if TYPE_CHECKING:
    from selfheal.domain.records import Promotion
    from selfheal.services.platform import Platform

PRODUCTION_MODEL = dg.AssetKey("production_model")

MODEL_VERSIONS = dg.DynamicPartitionsDefinition(name="model_version")

Context: TypeAlias = "dg.AssetExecutionContext | dg.OpExecutionContext"


def partition_of(version: int) -> str:
    """Return a version's partition key."""
    return str(version)


def version_of(partition_key: str) -> int:
    """Return the version of a partition key.

    Raises:
        dagster.Failure: if the key, which a person may have typed, is not a version number.
    """
    if not partition_key.isdecimal():
        raise dg.Failure(
            f"partition {partition_key!r} is no model version: choose a number that `selfheal history` shows",
            allow_retries=False,
        )
    return int(partition_key)


def report_live(context: Context, platform: Platform, version: int) -> None:
    """Report in a run that a version has gone live: a materialisation of its partition of `production_model`.

    The run that trains a version learns its number only at its end, so it cannot be a run of that partition. Production has
    changed whether or not this succeeds (MLflow, to which it links, may be unavailable); `registry_sensor` reports missing
    events.
    """
    from selfheal.adapters.postgres.promotions import list_promotions

    try:
        newest = next(promotion for promotion in list_promotions(platform.store) if promotion.version == version)
        context.instance.add_dynamic_partitions(str(MODEL_VERSIONS.name), [partition_of(version)])
        context.log_event(live_materialization(platform, newest))
    except Exception:
        context.log.warning(
            "version %s is live, but not on its page yet: registry_sensor reports it", version, exc_info=True
        )


def is_reported(instance: dg.DagsterInstance, promotion: Promotion) -> bool:
    """Return whether Dagster has the event of this promotion, or of a later one of the same version."""
    of_partition = dg.AssetRecordsFilter(PRODUCTION_MODEL, asset_partitions=[partition_of(promotion.version)])
    records = instance.fetch_materializations(of_partition, limit=1).records
    event = records[0].asset_materialization if records else None
    position = None if event is None else event.metadata.get("position")
    return isinstance(position, dg.IntMetadataValue) and (position.value or 0) >= promotion.position


def live_materialization(platform: Platform, promotion: Promotion) -> dg.AssetMaterialization:
    """Return the event that a version went live, with the metrics of its promotion."""
    from selfheal.adapters.postgres.model_versions import model_version

    version = model_version(platform.store, promotion.version)
    assert version is not None, "a promotion is of a registered version"
    metadata: Facts = {
        "version": version.version,
        "position": promotion.position,
        "promoted_at": dg.MetadataValue.timestamp(promotion.promoted_at),
        "replaced_version": promotion.replaced_version or "none",
        "decision_id": promotion.decision_id,
        "threshold": version.threshold,
        "trigger": version.trigger_reason,
        "rows_learned_and_judged_on": version.n_samples,
        "mlflow_run": links.mlflow_run(platform, version.mlflow_run_id),
        **{f"evaluation_{k}": v for k, v in version.metrics.items() if isinstance(v, int | float)},
    }
    return dg.AssetMaterialization(PRODUCTION_MODEL, partition=partition_of(version.version), metadata=plain(metadata))
