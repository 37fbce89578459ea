"""The change of the relation since which rows count, as a decision on retraining saw it."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("retraining_decisions", sa.Column("onset", postgresql.JSONB(), nullable=True))


def downgrade() -> None:
    op.drop_column("retraining_decisions", "onset")
