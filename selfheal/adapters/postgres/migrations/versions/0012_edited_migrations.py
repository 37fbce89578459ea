"""Databases that ran an earlier text of migration 0001 or 0007 get what was added to it after it had landed.

0007 did not make `probations` at first; in 0001 the trigger of `reference_data` let TRUNCATE pass. A landed migration is
never edited since then: a test pins their digests.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    if not sa.inspect(op.get_bind()).has_table("probations"):
        _create_probations()
    op.execute("DROP TRIGGER reference_data_is_immutable ON reference_data")
    op.execute("""
        CREATE TRIGGER reference_data_is_immutable BEFORE UPDATE OR DELETE OR TRUNCATE ON reference_data
        FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()
    """)


def downgrade() -> None:
    """Change nothing: 0001 and 0007, as they are now, make the same."""


def _create_probations() -> None:
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
