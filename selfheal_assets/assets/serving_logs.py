"""Serving logs: predictions and labels, copied from the journal into Postgres."""

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import dagster as dg

from selfheal.adapters.journal import LABEL_JOURNAL, JournalKind, prediction_journal
from selfheal_assets.assets import EACH_TICK, described
from selfheal_assets.metadata import Facts, Metadata, plain
from selfheal_assets.resources.platform import PlatformResource

if TYPE_CHECKING:
    from collections.abc import Callable

    from selfheal.adapters.postgres.predictions import TableSummary
    from selfheal.adapters.postgres.store import Store


@dg.asset(
    kinds={"csv", "postgres"},
    tags=EACH_TICK,
    description=described(
        "Every prediction the API acknowledged, with all features as the model saw them. The API copies its journal here "
        "within a second; this asset copies what may be left.",
        runs="with each monitoring tick: every `MONITORING_INTERVAL` seconds if there is new traffic.",
        red="Postgres does not answer, or a journal file is damaged: the message says which. Nothing acknowledged is lost; "
        "`selfheal replay-journal` copies all of it again.",
    ),
)
def prediction_logs(context: dg.AssetExecutionContext, platform: PlatformResource) -> dg.MaterializeResult[None]:
    from selfheal.adapters.postgres.predictions import summary_of_predictions

    kind = prediction_journal(platform.open().contract)
    return dg.MaterializeResult(metadata=_ingested(context, platform, kind, summary_of_predictions))


@dg.asset(
    kinds={"csv", "postgres"},
    tags=EACH_TICK,
    description=described(
        "What became of the predictions. A label may come early (before its prediction is copied), late, or be corrected. "
        "Labels for ids nobody issued are counted as orphans.",
        runs="with each monitoring tick.",
        red="As `prediction_logs`. Is its check red? The sender of labels uses other ids than `POST /predict` answered with.",
    ),
)
def label_store(context: dg.AssetExecutionContext, platform: PlatformResource) -> dg.MaterializeResult[None]:
    from selfheal.adapters.postgres.predictions import count_orphan_labels, summary_of_labels

    orphans = plain({"orphan_labels": count_orphan_labels(platform.open().store)})
    return dg.MaterializeResult(metadata=_ingested(context, platform, LABEL_JOURNAL, summary_of_labels) | orphans)


def _ingested(
    context: dg.AssetExecutionContext,
    platform: PlatformResource,
    kind: JournalKind,
    summarise: "Callable[[Store], TableSummary]",
) -> Metadata:
    from selfheal.adapters.postgres.alerts import SERVING, open_or_update_alert
    from selfheal.adapters.postgres.ingest import ingest
    from selfheal.domain.monitoring.unusable_values import left_out_of_copy

    opened = platform.open()
    result = ingest(opened.store, kind, opened.settings.data_dir)
    for place in result.corrupt:
        context.log.warning("damaged journal line left out: %s", place)
    if result.unusable:
        said = "%d lines were copied without a derived value that its column cannot hold, the last: %s"
        context.log.warning(said, len(result.unusable), result.unusable[-1])
        alert = left_out_of_copy(len(result.unusable), result.unusable[-1])
        open_or_update_alert(opened.store, SERVING, None, alert, datetime.now(UTC))
    summary = summarise(opened.store)
    metadata: Facts = {
        "dagster/row_count": summary.n_rows,
        "rows_copied_now": result.n_new,
        "damaged_lines": len(result.corrupt),
        "unusable_lines": len(result.unusable),
    }
    if summary.first is not None and summary.last is not None:
        metadata["first"] = dg.MetadataValue.timestamp(summary.first)
        metadata["last"] = dg.MetadataValue.timestamp(summary.last)
    return plain(metadata)
