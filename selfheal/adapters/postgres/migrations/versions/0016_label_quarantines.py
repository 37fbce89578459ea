"""Labels that are withheld because they contradict what was sent before; people release them by a decision."""

from __future__ import annotations

import re

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None

RELEASE = "release_labels"


def upgrade() -> None:
    op.create_table(
        "label_quarantines",
        sa.Column("quarantine_id", sa.Text(), primary_key=True),
        sa.Column("model_name", sa.Text(), nullable=False),
        sa.Column("model_version", sa.Integer(), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("ended_at", sa.DateTime(timezone=True)),
        sa.Column("label_source", sa.Text()),
        sa.Column("is_exchanged", sa.Boolean(), nullable=False),
        sa.Column("reasons", postgresql.JSONB(), nullable=False),
        sa.Column("released_at", sa.DateTime(timezone=True)),
        sa.Column("released_by", sa.Text()),
        sa.CheckConstraint(
            "(released_at IS NULL) = (released_by IS NULL)", name="label_quarantines_are_released_by_somebody"
        ),
    )
    op.create_index("label_quarantines_by_time", "label_quarantines", ["model_version", "started_at"])
    _allow([*_allowed(), RELEASE])


def downgrade() -> None:
    op.drop_table("label_quarantines")
    op.execute(f"UPDATE retraining_decisions SET action = 'skip' WHERE action = '{RELEASE}'")
    _allow([action for action in _allowed() if action != RELEASE])


def _allowed() -> list[str]:
    """Return the actions that the constraint allows now: other migrations may have added some."""
    query = "SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE conname = 'retraining_decisions_action'"
    return re.findall(r"'(\w+)'", op.get_bind().execute(sa.text(query)).scalar_one())


def _allow(actions: list[str]) -> None:
    op.drop_constraint("retraining_decisions_action", "retraining_decisions")
    allowed = ", ".join(f"'{action}'" for action in actions)
    op.create_check_constraint("retraining_decisions_action", "retraining_decisions", f"action IN ({allowed})")
