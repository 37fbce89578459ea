"""Reference: external labelled data, and the first baseline frozen from it, where the loop starts."""

from datetime import UTC, datetime

import dagster as dg

from selfheal.adapters.datasets import Dataset
from selfheal_assets.assets import AT_BOOTSTRAP, described
from selfheal_assets.metadata import plain, table
from selfheal_assets.resources.platform import PlatformResource


@dg.asset(
    kinds={"csv", "pandera", "pandas"},
    io_manager_key="frame_io",
    tags=AT_BOOTSTRAP,
    description=described(
        "Labelled rows to bootstrap from: the CSV named by `DATA`, or the synthetic stand-in where there is none. "
        "Every row is checked against the contract.",
        runs="at bootstrap and on demand.",
        red="The message is the report of `selfheal check-data`, with a remedy for each column: follow it and materialise again; "
        "nothing was stored of the wrong file.",
    ),
)
def training_data(platform: PlatformResource) -> dg.Output[Dataset]:
    from selfheal.adapters.datasets import load_dataset
    from selfheal.domain.contract import TRUE_LABEL

    opened = platform.open()
    dataset = load_dataset(opened.settings, opened.contract)
    numbers = dataset.frame.select_dtypes("number")
    quantiles = numbers.quantile([0.05, 0.5, 0.95]).T.round(3)
    quantiles["missing_pct"] = (100 * numbers.isna().mean()).round(1)
    return dg.Output(
        dataset,
        metadata=plain(
            {
                "data": dataset.description,
                "origin": dataset.origin,
                "dagster/row_count": len(dataset.frame),
                "positive_rate": dataset.frame[TRUE_LABEL].mean(),
                "sha256": dataset.sha256,
                "quantiles": table(quantiles.reset_index(names="column").to_dict("records")),
            }
        ),
    )


@dg.asset(
    kinds={"postgres", "parquet"},
    tags=AT_BOOTSTRAP,
    description=described(
        "The first baseline: written once from `training_data`, then only read and checked by digest. Long-term drift is "
        "measured against it.",
        runs="at bootstrap and on demand.",
        red="Table or file was changed: restore what the message names from a backup; the platform overwrites neither.",
    ),
)
def reference_data(training_data: Dataset, platform: PlatformResource) -> dg.MaterializeResult[None]:
    from selfheal.adapters.postgres.baseline import baseline_path, baseline_row, write_baseline

    opened = platform.open()
    data_dir = opened.settings.data_dir
    baseline = write_baseline(opened.store, training_data.frame, training_data.description, datetime.now(UTC), data_dir)
    row = baseline_row(opened.store)
    assert row is not None
    return dg.MaterializeResult(
        metadata=plain(
            {
                "data": row.source,
                "dagster/row_count": len(baseline),
                "sha256": row.sha256,
                "written_at": dg.MetadataValue.timestamp(row.created_at),
                "is_from_current_training_data": row.source == training_data.description,
                "file": dg.MetadataValue.path(str(baseline_path(opened.store, data_dir))),
            }
        )
    )
