"""The first label of each prediction, where another one counts: what its sender calls a label decides no longer."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # Null where the stored label is the first one: a row that is there needs no change, whatever its sender called it.
    op.add_column("label_store", sa.Column("first_received_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("label_store", sa.Column("first_label", sa.SmallInteger(), nullable=True))
    op.create_check_constraint(
        "label_store_first_label_has_a_time", "label_store", "(first_label IS NULL) = (first_received_at IS NULL)"
    )
    # Labels that were replaced since migration 0011 by one of another journal file are known. Of others nothing is left
    # but the journal: `selfheal replay-journal` fills them in.
    op.execute(
        """
        UPDATE label_store l SET first_received_at = e.received_at, first_label = e.true_label
        FROM (SELECT DISTINCT ON (prediction_id) prediction_id, received_at, true_label FROM overruled_labels
              ORDER BY prediction_id, received_at, true_label) e
        WHERE l.prediction_id = e.prediction_id AND (e.received_at, e.true_label) < (l.received_at, l.true_label)
        """
    )


def downgrade() -> None:
    op.drop_constraint("label_store_first_label_has_a_time", "label_store")
    op.drop_column("label_store", "first_label")
    op.drop_column("label_store", "first_received_at")
