"""Tables: the declared schema. Timestamps are timestamptz in UTC; the features' columns come from the contract."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    Double,
    ForeignKey,
    Identity,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

from selfheal.domain.clusters import ENTITY
from selfheal.domain.records import Action, ProbationOutcome, Severity, Stage, Verdict

if TYPE_CHECKING:
    from collections.abc import Iterable

    from selfheal.domain.contract import ModelContract


ROLLUP_BUCKET = timedelta(minutes=1)

HOUR_OF_PREDICTION = "date_bin('01:00:00'::interval, created_at, '1970-01-01 00:00:00+00'::timestamptz)"
SAMPLING_HASH = "uuid_hash(prediction_id)"
"""SQL: a signed 32-bit hash, uniformly distributed for any ids."""


@dataclass(frozen=True)
class Tables:
    """Every table of the schema, by its name."""

    metadata: MetaData
    prediction_logs: Table
    label_store: Table
    prediction_rollups: Table
    model_metadata: Table
    monitoring_metrics: Table
    spoiled_periods: Table
    label_quarantines: Table
    season_memories: Table
    retraining_decisions: Table
    retraining_requests: Table
    training_failures: Table
    promotions: Table
    probations: Table
    monitoring_alerts: Table
    reference_data: Table
    journal_positions: Table
    journal_seals: Table
    overruled_labels: Table


def build_tables(contract: ModelContract) -> Tables:
    """Return the declared schema for one contract."""
    metadata = MetaData()
    return Tables(
        metadata=metadata,
        prediction_logs=_prediction_logs(metadata, contract),
        label_store=_label_store(metadata),
        prediction_rollups=_prediction_rollups(metadata),
        model_metadata=_model_metadata(metadata),
        monitoring_metrics=_monitoring_metrics(metadata),
        spoiled_periods=_spoiled_periods(metadata),
        label_quarantines=_label_quarantines(metadata),
        season_memories=_season_memories(metadata),
        retraining_decisions=_retraining_decisions(metadata),
        retraining_requests=_retraining_requests(metadata),
        training_failures=_training_failures(metadata),
        promotions=_promotions(metadata),
        probations=_probations(metadata),
        monitoring_alerts=_monitoring_alerts(metadata),
        reference_data=_reference_data(metadata),
        journal_positions=_journal_positions(metadata),
        journal_seals=_journal_seals(metadata),
        overruled_labels=_overruled_labels(metadata),
    )


def feature_columns(contract: ModelContract) -> list[Column[Any]]:
    """Return a typed column for each feature; nullable: a contract may grow, and old rows lack the new feature."""
    types = {"float": Double, "int": Integer, "bool": Boolean, "category": Text}
    return [Column(name, types[contract.kinds[name]]) for name in contract.feature_names]


def _time(name: str, *, required: bool = False) -> Column[Any]:
    return Column(name, DateTime(timezone=True), nullable=not required)


def _segment() -> Column[Any]:
    """Return the column with the journal file that a row came from; null: copied by a release that did not record it."""
    return Column("journal_segment", Integer)


def _by_segment(table: str) -> Index:
    return Index(f"{table}_by_journal_segment", "journal_segment", postgresql_where=text("journal_segment IS NOT NULL"))


def _one_of(column: str, values: Iterable[str], name: str) -> CheckConstraint:
    allowed = ", ".join(f"'{value}'" for value in values)
    return CheckConstraint(f"{column} IN ({allowed})", name=name)


def _prediction_logs(metadata: MetaData, contract: ModelContract) -> Table:
    return Table(
        "prediction_logs",
        metadata,
        Column("prediction_id", Uuid, primary_key=True),
        _time("created_at", required=True),
        Column("model_version", Integer, nullable=False),
        Column("prediction", SmallInteger, nullable=False),
        Column("probability", Double, nullable=False),
        Column("threshold", Double, nullable=False),
        Column("request_source", Text, nullable=False),
        Column("latency_ms", Double, nullable=False),
        _segment(),
        Column(ENTITY, Text),
        *feature_columns(contract),
        CheckConstraint("probability BETWEEN 0 AND 1", name="prediction_logs_probability_is_one"),
        _by_segment("prediction_logs"),
        Index("prediction_logs_by_version_and_time", "model_version", "created_at"),
        # A window's sample is its rows with the smallest hashes, because clients may choose ids.
        Index("prediction_logs_by_hour_and_hash", "model_version", text(HOUR_OF_PREDICTION), text(SAMPLING_HASH)),
    )


def _label_store(metadata: MetaData) -> Table:
    """Return the table of labels. It has no foreign key: a label may arrive before its prediction has been copied.

    `predicted_at` and `model_version` are the prediction's, filled in by triggers; both are null for an orphan.
    `first_received_at` and `first_label` are of the prediction's earliest label; both are null if that is the stored one.
    """
    return Table(
        "label_store",
        metadata,
        Column("prediction_id", Uuid, primary_key=True),
        Column("true_label", SmallInteger, nullable=False),
        _time("labelled_at", required=True),
        _time("received_at", required=True),
        Column("label_source", Text, nullable=False),
        Column("is_correction", Boolean, nullable=False, server_default=text("false")),
        _time("predicted_at"),
        Column("model_version", Integer),
        _time("ordered_at"),
        _segment(),
        _time("first_received_at"),
        Column("first_label", SmallInteger),
        _by_segment("label_store"),
        CheckConstraint("true_label IN (0, 1)", name="label_store_label_is_binary"),
        CheckConstraint(
            "(first_label IS NULL) = (first_received_at IS NULL)", name="label_store_first_label_has_a_time"
        ),
        Index("label_store_by_received_at", "received_at"),
        Index(
            "label_store_by_predicted_at",
            "predicted_at",
            "prediction_id",
            postgresql_where=text("predicted_at IS NOT NULL"),
        ),
        Index("label_store_orphans", "prediction_id", postgresql_where=text("predicted_at IS NULL")),
    )


def _prediction_rollups(metadata: MetaData) -> Table:
    """Return the table of sums over each minute's predictions of each version, and how many of them are labelled.

    Triggers (in the migration) update it in the transaction that writes or deletes predictions and labels; nothing else
    writes it. `squared_deviations` is the sum of (probability - the minute's mean)^2; `sum_entropy` is in bits.
    """
    return Table(
        "prediction_rollups",
        metadata,
        Column("bucket_start", DateTime(timezone=True), primary_key=True),
        Column("model_version", Integer, primary_key=True, autoincrement=False),
        Column("n_predictions", BigInteger, nullable=False),
        Column("n_positive", BigInteger, nullable=False),
        Column("sum_probability", Double, nullable=False),
        Column("squared_deviations", Double, nullable=False),
        Column("sum_entropy", Double, nullable=False),
        _time("first_at", required=True),
        _time("last_at", required=True),
        Column("n_labels", BigInteger, nullable=False, server_default=text("0")),
        _time("last_label_at"),
        CheckConstraint("n_labels BETWEEN 0 AND n_predictions", name="prediction_rollups_labels_have_predictions"),
    )


def _model_metadata(metadata: MetaData) -> Table:
    return Table(
        "model_metadata",
        metadata,
        Column("model_name", Text, primary_key=True),
        Column("version", Integer, primary_key=True, autoincrement=False),
        Column("stage", Text, nullable=False),
        _time("registered_at", required=True),
        _time("promoted_at"),
        _time("archived_at"),
        _time("probation_until"),
        Column("trigger_reason", Text, nullable=False),
        Column("mlflow_run_id", Text, nullable=False),
        Column("artifact_uri", Text, nullable=False),
        Column("artifact_sha256", Text, nullable=False),
        Column("reference_sha256", Text, nullable=False),
        Column("contract_hash", Text, nullable=False),
        Column("threshold", Double, nullable=False),
        Column("metrics", JSONB, nullable=False),
        _time("training_window_start"),
        _time("training_window_end"),
        Column("n_samples", Integer, nullable=False),
        Column("previous_version", Integer),
        Column("decision_id", Text),
        _one_of("stage", Stage, "model_metadata_stage"),
        # One run is one version: a repeated promotion registers nothing twice.
        Index("model_metadata_one_version_per_run", "model_name", "mlflow_run_id", unique=True),
        # The invariant of serving: never two versions in production.
        Index(
            "model_metadata_one_production", "model_name", unique=True, postgresql_where=text("stage = 'Production'")
        ),
    )


def _monitoring_metrics(metadata: MetaData) -> Table:
    return Table(
        "monitoring_metrics",
        metadata,
        Column("tick_id", Text, primary_key=True),
        _time("created_at", required=True),
        Column("model_name", Text, nullable=False),
        Column("model_version", Integer, nullable=False),
        _time("window_start", required=True),
        _time("window_end", required=True),
        Column("n_predictions", Integer, nullable=False),
        Column("n_labels", Integer, nullable=False),
        Column("positive_rate", Double),
        Column("probability_mean", Double),
        Column("probability_std", Double),
        Column("entropy", Double),
        Column("feature_drift_ratio", Double),
        Column("num_drifted_features", Integer, nullable=False),
        Column("drifted_features", JSONB, nullable=False),
        Column("dataset_drift_detected", Boolean, nullable=False),
        Column("verdict", Text, nullable=False),
        Column("reasons", JSONB, nullable=False),
        Column("estimated", JSONB, nullable=False),
        Column("realised", JSONB),
        Column("label_coverage_pct", Double),
        Column("reference_version", Integer, nullable=False),
        Column("report_ref", Text),
        Column("episode_id", Text),
        _one_of("verdict", Verdict, "monitoring_metrics_verdict"),
        Index("monitoring_metrics_by_time", "model_name", "created_at"),
    )


def _spoiled_periods(metadata: MetaData) -> Table:
    """Return the table of periods with a broken feed, one row per tick that found one; both ends belong to the period."""
    return Table(
        "spoiled_periods",
        metadata,
        Column("tick_id", Text, primary_key=True),
        Column("model_name", Text, nullable=False),
        Column("model_version", Integer, nullable=False),
        _time("started_at", required=True),
        _time("ended_at", required=True),
        Column("reasons", JSONB, nullable=False),
        Column("columns", JSONB, nullable=False),
        Column("accepted_by", Text),
        Index("spoiled_periods_by_time", "model_version", "started_at"),
    )


def _label_quarantines(metadata: MetaData) -> Table:
    """Return the table of labels that are withheld, by the time of their receipt; both ends belong to the period.

    `ended_at` is null while it goes on. A quarantine that is released withholds nothing any longer.
    """
    return Table(
        "label_quarantines",
        metadata,
        Column("quarantine_id", Text, primary_key=True),
        Column("model_name", Text, nullable=False),
        Column("model_version", Integer, nullable=False),
        _time("started_at", required=True),
        _time("ended_at"),
        Column("label_source", Text),
        Column("is_exchanged", Boolean, nullable=False),
        Column("reasons", JSONB, nullable=False),
        _time("released_at"),
        Column("released_by", Text),
        CheckConstraint(
            "(released_at IS NULL) = (released_by IS NULL)", name="label_quarantines_are_released_by_somebody"
        ),
        Index("label_quarantines_by_time", "model_version", "started_at"),
    )


def _season_memories(metadata: MetaData) -> Table:
    """Return the table of what each version's ticks have learned of its seasons, one row per version."""
    return Table(
        "season_memories",
        metadata,
        Column("model_name", Text, primary_key=True),
        Column("model_version", Integer, primary_key=True),
        Column("tick_id", Text, nullable=False),
        _time("updated_at", required=True),
        Column("memory", JSONB, nullable=False),
    )


def _retraining_decisions(metadata: MetaData) -> Table:
    return Table(
        "retraining_decisions",
        metadata,
        Column("decision_id", Text, primary_key=True),
        Column("position", BigInteger, Identity(always=True), unique=True),
        _time("created_at", required=True),
        Column("model_name", Text, nullable=False),
        Column("trigger_reason", Text, nullable=False),
        Column("action", Text, nullable=False),
        Column("reason", Text, nullable=False),
        Column("actor", Text, nullable=False),
        Column("champion_version", Integer),
        Column("challenger_version", Integer),
        Column("mlflow_run_id", Text),
        Column("episode_id", Text),
        Column("attempt", Integer, nullable=False),
        Column("look", Integer),
        Column("n_labels", Integer, nullable=False),
        Column("conditions", JSONB, nullable=False),
        Column("gates", JSONB, nullable=False),
        Column("failed_gates", JSONB, nullable=False),
        Column("data_sha256", Text),
        Column("model_sha256", Text),
        Column("gate_config", JSONB),
        Column("gate_config_sha256", Text),
        Column("code_version", Text),
        Column("onset", JSONB(none_as_null=True)),
        Column("declared", Text),
        Column("cross_fitted_sha256", Text),
        Column("prev_hash", Text, nullable=False),
        Column("hash", Text, nullable=False, unique=True),
        _one_of("action", Action, "retraining_decisions_action"),
        # A chain, not a tree: no two decisions follow the same one.
        Index("retraining_decisions_one_successor", "prev_hash", unique=True),
        Index("retraining_decisions_by_episode", "model_name", "episode_id"),
    )


def _retraining_requests(metadata: MetaData) -> Table:
    """Return the table of retrainings requested over the API; a sensor processes them."""
    return Table(
        "retraining_requests",
        metadata,
        Column("request_id", Uuid, primary_key=True),
        Column("model_name", Text, nullable=False),
        _time("created_at", required=True),
        Column("actor", Text, nullable=False),
        Column("reason", Text, nullable=False),
        _time("taken_at"),
        Index("retraining_requests_to_take", "model_name", "created_at", postgresql_where=text("taken_at IS NULL")),
    )


def _training_failures(metadata: MetaData) -> Table:
    """Return the table of trainings that failed for what their model or rows are like."""
    return Table(
        "training_failures",
        metadata,
        Column("decision_id", Text, primary_key=True),
        Column("model_name", Text, nullable=False),
        _time("failed_at", required=True),
        Column("reason", Text, nullable=False),
    )


def _promotions(metadata: MetaData) -> Table:
    """Return the table of promotions. A trigger (in the migration) refuses UPDATE, DELETE and TRUNCATE.

    The foreign key ensures that no version is served without a decision; its uniqueness, that a decision takes effect once.
    """
    return Table(
        "promotions",
        metadata,
        Column("position", BigInteger, Identity(always=True), primary_key=True),
        Column("model_name", Text, nullable=False),
        Column("version", Integer, nullable=False),
        Column("replaced_version", Integer),
        Column("decision_id", Text, ForeignKey("retraining_decisions.decision_id"), nullable=False, unique=True),
        _time("promoted_at", required=True),
        Index("promotions_by_time", "model_name", "promoted_at"),
    )


def _probations(metadata: MetaData) -> Table:
    """Return the table of how probations ended, one row per probation. A trigger (in the migration) refuses changes."""
    return Table(
        "probations",
        metadata,
        Column("model_name", Text, primary_key=True),
        Column("version", Integer, primary_key=True, autoincrement=False),
        Column("promoted_at", DateTime(timezone=True), primary_key=True),
        _time("ended_at", required=True),
        Column("outcome", Text, nullable=False),
        Column("reason", Text, nullable=False),
        Column("n_labels", Integer, nullable=False),
        Column("brier_change", Double),
        Column("brier_change_low", Double),
        _one_of("outcome", ProbationOutcome, "probations_outcome"),
    )


def _monitoring_alerts(metadata: MetaData) -> Table:
    return Table(
        "monitoring_alerts",
        metadata,
        Column("alert_id", Uuid, primary_key=True),
        Column("model_name", Text, nullable=False),
        Column("model_version", Integer),  # null: it concerns no version
        Column("source", Text, nullable=False, server_default=text("'monitoring'")),
        Column("kind", Text, nullable=False),
        Column("severity", Text, nullable=False),
        Column("message", Text, nullable=False),
        Column("metrics", JSONB, nullable=False),
        Column("episode_id", Text),
        _time("created_at", required=True),
        _time("updated_at", required=True),
        _time("acknowledged_at"),
        Column("acknowledged_by", Text),
        Column("acknowledged_note", Text),
        Column("acknowledged_severity", Text),  # the severity at that time: a higher one is sent again
        _time("resolved_at"),
        Column("resolved_by", Text),
        # Channel (by its digest) -> what it was last sent: a severity or `resolved`.
        Column("told", JSONB, nullable=False, server_default=text("'{}'::jsonb")),
        _time("notified_at"),
        Column("notify_failures", Integer, nullable=False, server_default=text("0")),
        _time("notify_after"),  # null: nothing is to be sent
        _one_of("severity", Severity, "monitoring_alerts_severity"),
        Index(
            "monitoring_alerts_to_tell", "model_name", "notify_after", postgresql_where=text("notify_after IS NOT NULL")
        ),
        # At most one open alert per source, kind and version.
        Index(
            "monitoring_alerts_one_open_per_kind",
            "model_name",
            "source",
            "kind",
            text("coalesce(model_version, 0)"),
            unique=True,
            postgresql_where=text("resolved_at IS NULL"),
        ),
    )


def _reference_data(metadata: MetaData) -> Table:
    """Return the table of the first baseline. A trigger (in the migration) refuses UPDATE, DELETE and TRUNCATE."""
    return Table(
        "reference_data",
        metadata,
        Column("model_name", Text, primary_key=True),
        _time("created_at", required=True),
        Column("source", Text, nullable=False),
        Column("n_rows", Integer, nullable=False),
        Column("sha256", Text, nullable=False),
        Column("parquet", LargeBinary, nullable=False),
    )


def _journal_positions(metadata: MetaData) -> Table:
    """Return the table of each journal file's copied position, written in the transaction that copies."""
    return Table(
        "journal_positions",
        metadata,
        Column("journal", Text, primary_key=True),
        Column("file", Text, primary_key=True),
        Column("byte_offset", BigInteger, nullable=False),
        _time("updated_at", required=True),
        Column("journal_segment", Integer, Identity(always=True), nullable=False),
        Column("folder", Text),  # null: copied by a release that did not record it
        UniqueConstraint("journal_segment", name="journal_positions_segment"),
    )


def _journal_seals(metadata: MetaData) -> Table:
    """Return the table of the journal's links of the hash chain. A trigger (in the migration) refuses changes.

    `position` is drawn from the sequence of `retraining_decisions`: the order of the chain goes over both tables.
    """
    return Table(
        "journal_seals",
        metadata,
        Column("position", BigInteger, primary_key=True, autoincrement=False),
        _time("created_at", required=True),
        Column("kind", Text, nullable=False),
        Column("journal", Text, nullable=False),
        Column("file", Text),
        Column("content", JSONB, nullable=False),
        Column("prev_hash", Text, nullable=False, unique=True),
        Column("hash", Text, nullable=False, unique=True),
        _one_of("kind", ("segment", "retention"), "journal_seals_kind"),
        UniqueConstraint("journal", "file", name="journal_seals_one_per_file"),
    )


def _overruled_labels(metadata: MetaData) -> Table:
    """Return the table of labels that another one replaced; a trigger on `label_store` fills it."""
    return Table(
        "overruled_labels",
        metadata,
        Column("journal_segment", Integer, primary_key=True, autoincrement=False),
        Column("prediction_id", Uuid, primary_key=True),
        Column("received_at", DateTime(timezone=True), primary_key=True),
        Column("is_correction", Boolean, primary_key=True),
        Column("true_label", SmallInteger, nullable=False),
        _time("labelled_at", required=True),
        Column("label_source", Text, nullable=False),
        _time("ordered_at"),
    )
