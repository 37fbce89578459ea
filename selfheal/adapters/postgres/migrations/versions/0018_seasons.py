"""What each version has learned of its seasons, and declarations by people in the chain of decisions."""

from __future__ import annotations

import re

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None

DECLARE = "declare"


def upgrade() -> None:
    op.create_table(
        "season_memories",
        sa.Column("model_name", sa.Text(), primary_key=True),
        sa.Column("model_version", sa.Integer(), primary_key=True),
        sa.Column("tick_id", sa.Text(), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("memory", postgresql.JSONB(), nullable=False),
    )
    op.add_column("retraining_decisions", sa.Column("declared", sa.Text(), nullable=True))
    _allow([*_allowed(), DECLARE])


def downgrade() -> None:
    op.execute(f"UPDATE retraining_decisions SET action = 'skip' WHERE action = '{DECLARE}'")
    _allow([action for action in _allowed() if action != DECLARE])
    op.drop_column("retraining_decisions", "declared")
    op.drop_table("season_memories")


def _allowed() -> list[str]:
    """Return the actions that the constraint allows now: other migrations may have added some."""
    query = "SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE conname = 'retraining_decisions_action'"
    return re.findall(r"'(\w+)'", op.get_bind().execute(sa.text(query)).scalar_one())


def _allow(actions: list[str]) -> None:
    op.drop_constraint("retraining_decisions_action", "retraining_decisions")
    allowed = ", ".join(f"'{action}'" for action in actions)
    op.create_check_constraint("retraining_decisions_action", "retraining_decisions", f"action IN ({allowed})")
