"""What went live when and by which decision, requests for a retraining, and what a decision needs to be checked again."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("retraining_decisions", sa.Column("look", sa.Integer()))
    op.add_column("retraining_decisions", sa.Column("gate_config", postgresql.JSONB()))
    op.create_table(
        "promotions",
        sa.Column("position", sa.BigInteger(), sa.Identity(always=True), primary_key=True),
        sa.Column("model_name", sa.Text(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("replaced_version", sa.Integer()),
        sa.Column(
            "decision_id",
            sa.Text(),
            sa.ForeignKey("retraining_decisions.decision_id"),
            nullable=False,
            unique=True,
        ),
        sa.Column("promoted_at", sa.DateTime(timezone=True), nullable=False),
    )
    op.create_index("promotions_by_time", "promotions", ["model_name", "promoted_at"])
    # Of what is known: where a version was in production more than once, its last time.
    op.execute("""
        INSERT INTO promotions (model_name, version, replaced_version, decision_id, promoted_at)
        SELECT m.model_name, m.version, m.previous_version, m.decision_id, m.promoted_at
        FROM model_metadata m JOIN retraining_decisions USING (decision_id)
        WHERE m.promoted_at IS NOT NULL ORDER BY m.promoted_at
    """)
    op.execute("""
        CREATE TRIGGER promotions_are_immutable BEFORE UPDATE OR DELETE OR TRUNCATE ON promotions
        FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()
    """)
    op.create_table(
        "probations",
        sa.Column("model_name", sa.Text(), primary_key=True),
        sa.Column("version", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("promoted_at", sa.DateTime(timezone=True), primary_key=True),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("outcome", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("n_labels", sa.Integer(), nullable=False),
        sa.Column("brier_change", sa.Double()),
        sa.Column("brier_change_low", sa.Double()),
        sa.CheckConstraint("outcome IN ('passed', 'failed', 'no_evidence')", name="probations_outcome"),
    )
    op.execute("""
        CREATE TRIGGER probations_are_immutable BEFORE UPDATE OR DELETE OR TRUNCATE ON probations
        FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()
    """)
    op.create_table(
        "retraining_requests",
        sa.Column("request_id", sa.Uuid(), primary_key=True),
        sa.Column("model_name", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("taken_at", sa.DateTime(timezone=True)),
    )
    op.create_index(
        "retraining_requests_to_take",
        "retraining_requests",
        ["model_name", "created_at"],
        postgresql_where=sa.text("taken_at IS NULL"),
    )


def downgrade() -> None:
    op.drop_table("retraining_requests")
    op.drop_table("probations")
    op.drop_table("promotions")
    op.drop_column("retraining_decisions", "gate_config")
    op.drop_column("retraining_decisions", "look")
