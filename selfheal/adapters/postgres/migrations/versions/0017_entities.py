"""The entity that a prediction is about, as a pseudonym: null where no key was sent, and in all rows from before."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("prediction_logs", sa.Column("_entity", sa.Text(), nullable=True))


def downgrade() -> None:
    op.drop_column("prediction_logs", "_entity")
