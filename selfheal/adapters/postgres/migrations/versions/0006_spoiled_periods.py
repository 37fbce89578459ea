"""When the feed was broken: what was predicted then is never learned from."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "spoiled_periods",
        sa.Column("tick_id", sa.Text(), primary_key=True),
        sa.Column("model_name", sa.Text(), nullable=False),
        sa.Column("model_version", sa.Integer(), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("reasons", postgresql.JSONB(), nullable=False),
    )
    op.create_index("spoiled_periods_by_time", "spoiled_periods", ["model_version", "started_at"])


def downgrade() -> None:
    op.drop_table("spoiled_periods")
