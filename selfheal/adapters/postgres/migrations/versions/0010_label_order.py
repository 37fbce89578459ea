"""The time that orders the labels of a prediction, beside the one at which the wall clock says they were received."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # Null in rows and journal lines of earlier releases, which were ordered by `received_at` and stay so.
    op.add_column("label_store", sa.Column("ordered_at", sa.DateTime(timezone=True), nullable=True))


def downgrade() -> None:
    op.drop_column("label_store", "ordered_at")
