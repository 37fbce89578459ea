"""Asset checks beside the gates: invariants whose violation should be noticed before it causes harm."""

import dagster as dg

from selfheal_assets.assets.promotion import promotion
from selfheal_assets.assets.reference import reference_data
from selfheal_assets.assets.serving_logs import label_store, prediction_logs
from selfheal_assets.metadata import plain
from selfheal_assets.resources.platform import PlatformResource
from selfheal_assets.resources.versions import PRODUCTION_MODEL

MAX_LAG_BYTES = 1_000_000
"""Largest lag in bytes: about 5,000 predictions, which the API copies within 2 s."""

MAX_ORPHAN_LABELS_PCT = 5.0
"""Largest percentage of labels without a prediction. Labels may arrive seconds before their predictions are copied; a larger
share means that the ids do not match."""


@dg.asset_check(asset=reference_data, description="Table and file still have the digest they were written with.")
def reference_is_unchanged(platform: PlatformResource) -> dg.AssetCheckResult:
    from selfheal.adapters.postgres.baseline import read_baseline
    from selfheal.kit.errors import IntegrityError

    opened = platform.open()
    try:
        baseline = read_baseline(opened.store, opened.settings.data_dir)
    except IntegrityError as error:
        return dg.AssetCheckResult(passed=False, description=str(error))
    if baseline is None:
        return dg.AssetCheckResult(passed=False, description="There is no baseline yet: run `selfheal bootstrap`.")
    return dg.AssetCheckResult(
        passed=True,
        description=f"Table and file hold the {len(baseline):,} rows that were written: the digests agree.",
        metadata=plain({"rows": len(baseline)}),
    )


@dg.asset_check(asset=prediction_logs, description="Everything in the journal is in Postgres.")
def journal_is_copied(platform: PlatformResource) -> dg.AssetCheckResult:
    from selfheal.adapters.journal import prediction_journal
    from selfheal.adapters.postgres.ingest import lag_bytes

    opened = platform.open()
    lag = lag_bytes(opened.store, prediction_journal(opened.contract), opened.settings.data_dir)
    return dg.AssetCheckResult(
        passed=lag <= MAX_LAG_BYTES,
        description=f"{lag:,} bytes of journal are not copied yet; up to {MAX_LAG_BYTES:,} are a matter of seconds.",
        metadata=plain({"lag_bytes": lag}),
    )


@dg.asset_check(asset=label_store, description="Labels belong to predictions that were made.")
def labels_have_predictions(platform: PlatformResource) -> dg.AssetCheckResult:
    from selfheal.adapters.postgres.predictions import count_orphan_labels, summary_of_labels

    store = platform.open().store
    orphans, total = count_orphan_labels(store), summary_of_labels(store).n_rows
    share_pct = 100.0 * orphans / total if total else 0.0
    return dg.AssetCheckResult(
        passed=share_pct <= MAX_ORPHAN_LABELS_PCT,
        severity=dg.AssetCheckSeverity.WARN,
        description=f"{orphans:,} of {total:,} labels ({share_pct:.1f} %) have no prediction in the log; up to "
        f"{MAX_ORPHAN_LABELS_PCT:g} % may run ahead of theirs.",
        metadata=plain({"orphan_labels": orphans, "orphan_pct": share_pct}),
    )


@dg.asset_check(
    asset=PRODUCTION_MODEL,
    additional_deps=[promotion],
    description="MLflow's aliases and stage tags are where Postgres says.",
)
def alias_follows_postgres(platform: PlatformResource) -> dg.AssetCheckResult:
    from selfheal.services.verification.artifacts import check_alias

    found = check_alias(platform.open())
    if found.findings:
        described = f"{'; '.join(found.findings)}. `registry_sensor` repairs it within a minute."
        return dg.AssetCheckResult(passed=False, description=described)
    if found.unchecked:  # unknown is not healthy
        described = f"Not known: {'; '.join(found.unchecked)}"
        return dg.AssetCheckResult(passed=False, severity=dg.AssetCheckSeverity.WARN, description=described)
    return dg.AssetCheckResult(passed=True, description="Aliases and stage tags are where Postgres says.")


ALL_CHECKS = (reference_is_unchanged, journal_is_copied, labels_have_predictions, alias_follows_postgres)
