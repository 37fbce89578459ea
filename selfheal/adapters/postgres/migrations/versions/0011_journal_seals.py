"""Rows know the journal file that they came from; files that are finished get a digest in the hash chain (ADR 17)."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

TABLES = ("prediction_logs", "label_store")


def upgrade() -> None:
    # Files that are there get a number, too. Their rows stay without one: which file each came from is not known.
    op.add_column(
        "journal_positions", sa.Column("journal_segment", sa.Integer(), sa.Identity(always=True), nullable=False)
    )
    op.create_unique_constraint("journal_positions_segment", "journal_positions", ["journal_segment"])
    op.add_column("journal_positions", sa.Column("folder", sa.Text(), nullable=True))
    for table in TABLES:
        op.add_column(table, sa.Column("journal_segment", sa.Integer(), nullable=True))
        op.create_index(
            f"{table}_by_journal_segment",
            table,
            ["journal_segment"],
            postgresql_where=sa.text("journal_segment IS NOT NULL"),
        )  # nothing to build yet
    op.create_table(
        "overruled_labels",
        sa.Column("prediction_id", sa.Uuid(), nullable=False),
        sa.Column("true_label", sa.SmallInteger(), nullable=False),
        sa.Column("labelled_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("received_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("label_source", sa.Text(), nullable=False),
        sa.Column("is_correction", sa.Boolean(), nullable=False),
        sa.Column("ordered_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("journal_segment", sa.Integer(), autoincrement=False, nullable=False),
        sa.PrimaryKeyConstraint("journal_segment", "prediction_id", "received_at", "is_correction"),
    )
    op.execute(
        """
        CREATE FUNCTION record_overruled_label() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            INSERT INTO overruled_labels
                (prediction_id, true_label, labelled_at, received_at, label_source, is_correction, ordered_at,
                 journal_segment)
            VALUES (OLD.prediction_id, OLD.true_label, OLD.labelled_at, OLD.received_at, OLD.label_source,
                    OLD.is_correction, OLD.ordered_at, OLD.journal_segment)
            ON CONFLICT DO NOTHING;
            RETURN NULL;
        END $$
        """
    )
    op.execute(
        """
        CREATE TRIGGER overruled_labels_follow_update AFTER UPDATE ON label_store FOR EACH ROW
        WHEN (OLD.journal_segment IS NOT NULL AND NEW.journal_segment IS NOT NULL AND OLD.journal_segment <> NEW.journal_segment)
        EXECUTE FUNCTION record_overruled_label()
        """
    )
    op.create_table(
        "journal_seals",
        sa.Column("position", sa.BigInteger(), autoincrement=False, primary_key=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("journal", sa.Text(), nullable=False),
        sa.Column("file", sa.Text(), nullable=True),
        sa.Column("content", postgresql.JSONB(), nullable=False),
        sa.Column("prev_hash", sa.Text(), nullable=False, unique=True),
        sa.Column("hash", sa.Text(), nullable=False, unique=True),
        sa.CheckConstraint("kind IN ('segment', 'retention')", name="journal_seals_kind"),
        sa.UniqueConstraint("journal", "file", name="journal_seals_one_per_file"),
    )
    op.execute(
        """
        CREATE TRIGGER journal_seals_are_immutable BEFORE UPDATE OR DELETE OR TRUNCATE ON journal_seals
        FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()
        """
    )


def downgrade() -> None:
    op.drop_table("journal_seals")
    op.execute("DROP TRIGGER overruled_labels_follow_update ON label_store")
    op.execute("DROP FUNCTION record_overruled_label")
    op.drop_table("overruled_labels")
    for table in TABLES:
        op.drop_index(f"{table}_by_journal_segment", table)
        op.drop_column(table, "journal_segment")
    op.drop_column("journal_positions", "folder")
    op.drop_column("journal_positions", "journal_segment")
