"""The first schema. The features' columns of prediction_logs are not here: they follow the contract (see `migrate`)."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "journal_positions",
        sa.Column("journal", sa.Text(), nullable=False),
        sa.Column("file", sa.Text(), nullable=False),
        sa.Column("byte_offset", sa.BigInteger(), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("journal", "file"),
    )
    op.create_table(
        "label_store",
        sa.Column("prediction_id", sa.Uuid(), nullable=False),
        sa.Column("true_label", sa.SmallInteger(), nullable=False),
        sa.Column("labelled_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("received_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("label_source", sa.Text(), nullable=False),
        sa.CheckConstraint("true_label IN (0, 1)", name="label_store_label_is_binary"),
        sa.PrimaryKeyConstraint("prediction_id"),
    )
    op.create_index("label_store_by_received_at", "label_store", ["received_at"], unique=False)
    op.create_table(
        "model_metadata",
        sa.Column("model_name", sa.Text(), nullable=False),
        sa.Column("version", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("stage", sa.Text(), nullable=False),
        sa.Column("registered_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("promoted_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("archived_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("probation_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("trigger_reason", sa.Text(), nullable=False),
        sa.Column("mlflow_run_id", sa.Text(), nullable=False),
        sa.Column("artifact_uri", sa.Text(), nullable=False),
        sa.Column("artifact_sha256", sa.Text(), nullable=False),
        sa.Column("reference_sha256", sa.Text(), nullable=False),
        sa.Column("contract_hash", sa.Text(), nullable=False),
        sa.Column("threshold", sa.Double(), nullable=False),
        sa.Column("metrics", postgresql.JSONB(), nullable=False),
        sa.Column("training_window_start", sa.DateTime(timezone=True), nullable=True),
        sa.Column("training_window_end", sa.DateTime(timezone=True), nullable=True),
        sa.Column("n_samples", sa.Integer(), nullable=False),
        sa.Column("previous_version", sa.Integer(), nullable=True),
        sa.Column("decision_id", sa.Text(), nullable=True),
        sa.CheckConstraint("stage IN ('Staging', 'Production', 'Archived')", name="model_metadata_stage"),
        sa.PrimaryKeyConstraint("model_name", "version"),
    )
    op.create_index(
        "model_metadata_one_production",
        "model_metadata",
        ["model_name"],
        unique=True,
        postgresql_where=sa.text("stage = 'Production'"),
    )
    op.create_index(
        "model_metadata_one_version_per_run", "model_metadata", ["model_name", "mlflow_run_id"], unique=True
    )
    op.create_table(
        "monitoring_alerts",
        sa.Column("alert_id", sa.Uuid(), nullable=False),
        sa.Column("model_name", sa.Text(), nullable=False),
        sa.Column("model_version", sa.Integer(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("severity", sa.Text(), nullable=False),
        sa.Column("message", sa.Text(), nullable=False),
        sa.Column("metrics", postgresql.JSONB(), nullable=False),
        sa.Column("episode_id", sa.Text(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("acknowledged_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("acknowledged_by", sa.Text(), nullable=True),
        sa.Column("resolved_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("resolved_by", sa.Text(), nullable=True),
        sa.CheckConstraint("severity IN ('info', 'warning', 'critical')", name="monitoring_alerts_severity"),
        sa.PrimaryKeyConstraint("alert_id"),
    )
    op.create_index(
        "monitoring_alerts_one_open_per_kind",
        "monitoring_alerts",
        ["model_name", "model_version", "kind"],
        unique=True,
        postgresql_where=sa.text("resolved_at IS NULL"),
    )
    op.create_table(
        "monitoring_metrics",
        sa.Column("tick_id", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("model_name", sa.Text(), nullable=False),
        sa.Column("model_version", sa.Integer(), nullable=False),
        sa.Column("window_start", sa.DateTime(timezone=True), nullable=False),
        sa.Column("window_end", sa.DateTime(timezone=True), nullable=False),
        sa.Column("n_predictions", sa.Integer(), nullable=False),
        sa.Column("n_labels", sa.Integer(), nullable=False),
        sa.Column("positive_rate", sa.Double(), nullable=True),
        sa.Column("probability_mean", sa.Double(), nullable=True),
        sa.Column("probability_std", sa.Double(), nullable=True),
        sa.Column("entropy", sa.Double(), nullable=True),
        sa.Column("feature_drift_ratio", sa.Double(), nullable=True),
        sa.Column("num_drifted_features", sa.Integer(), nullable=False),
        sa.Column("drifted_features", postgresql.JSONB(), nullable=False),
        sa.Column("dataset_drift_detected", sa.Boolean(), nullable=False),
        sa.Column("verdict", sa.Text(), nullable=False),
        sa.Column("reasons", postgresql.JSONB(), nullable=False),
        sa.Column("estimated", postgresql.JSONB(), nullable=False),
        sa.Column("realised", postgresql.JSONB(), nullable=True),
        sa.Column("label_coverage_pct", sa.Double(), nullable=True),
        sa.Column("reference_version", sa.Integer(), nullable=False),
        sa.Column("report_ref", sa.Text(), nullable=True),
        sa.Column("episode_id", sa.Text(), nullable=True),
        sa.CheckConstraint(
            "verdict IN ('stable', 'benign_shift', 'harmful_shift', 'broken_feed', 'insufficient')",
            name="monitoring_metrics_verdict",
        ),
        sa.PrimaryKeyConstraint("tick_id"),
    )
    op.create_index("monitoring_metrics_by_time", "monitoring_metrics", ["model_name", "created_at"], unique=False)
    op.create_table(
        "prediction_logs",
        sa.Column("prediction_id", sa.Uuid(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("model_version", sa.Integer(), nullable=False),
        sa.Column("prediction", sa.SmallInteger(), nullable=False),
        sa.Column("probability", sa.Double(), nullable=False),
        sa.Column("threshold", sa.Double(), nullable=False),
        sa.Column("request_source", sa.Text(), nullable=False),
        sa.Column("latency_ms", sa.Double(), nullable=False),
        sa.CheckConstraint("probability BETWEEN 0 AND 1", name="prediction_logs_probability_is_one"),
        sa.PrimaryKeyConstraint("prediction_id"),
    )
    op.create_index(
        "prediction_logs_by_version_and_time", "prediction_logs", ["model_version", "created_at"], unique=False
    )
    op.create_table(
        "reference_data",
        sa.Column("model_name", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("n_rows", sa.Integer(), nullable=False),
        sa.Column("sha256", sa.Text(), nullable=False),
        sa.Column("parquet", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("model_name"),
    )
    op.create_table(
        "retraining_decisions",
        sa.Column("decision_id", sa.Text(), nullable=False),
        sa.Column("position", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("model_name", sa.Text(), nullable=False),
        sa.Column("trigger_reason", sa.Text(), nullable=False),
        sa.Column("action", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("champion_version", sa.Integer(), nullable=True),
        sa.Column("challenger_version", sa.Integer(), nullable=True),
        sa.Column("mlflow_run_id", sa.Text(), nullable=True),
        sa.Column("episode_id", sa.Text(), nullable=True),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("n_labels", sa.Integer(), nullable=False),
        sa.Column("conditions", postgresql.JSONB(), nullable=False),
        sa.Column("gates", postgresql.JSONB(), nullable=False),
        sa.Column("failed_gates", postgresql.JSONB(), nullable=False),
        sa.Column("data_sha256", sa.Text(), nullable=True),
        sa.Column("model_sha256", sa.Text(), nullable=True),
        sa.Column("gate_config_sha256", sa.Text(), nullable=True),
        sa.Column("code_version", sa.Text(), nullable=True),
        sa.Column("prev_hash", sa.Text(), nullable=False),
        sa.Column("hash", sa.Text(), nullable=False),
        sa.CheckConstraint(
            "action IN ('skip', 'train', 'promote', 'reject', 'inconclusive', 'rollback', 'force_promote')",
            name="retraining_decisions_action",
        ),
        sa.PrimaryKeyConstraint("decision_id"),
        sa.UniqueConstraint("hash"),
        sa.UniqueConstraint("position"),
    )
    op.create_index(
        "retraining_decisions_by_episode", "retraining_decisions", ["model_name", "episode_id"], unique=False
    )
    op.create_index("retraining_decisions_one_successor", "retraining_decisions", ["prev_hash"], unique=True)
    op.execute(
        """
        CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            RAISE EXCEPTION '% is written once and never changed', TG_TABLE_NAME;
        END $$
        """
    )
    op.execute(
        """
        CREATE TRIGGER reference_data_is_immutable BEFORE UPDATE OR DELETE OR TRUNCATE ON reference_data
        FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()
        """
    )


def downgrade() -> None:
    for table in (
        "prediction_logs",
        "label_store",
        "model_metadata",
        "monitoring_metrics",
        "retraining_decisions",
        "monitoring_alerts",
        "reference_data",
        "journal_positions",
    ):
        op.drop_table(table)
    op.execute("DROP FUNCTION refuse_change()")
