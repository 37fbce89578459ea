"""Which columns a broken feed was found broken in, and by which decision a person has declared them sound.

Periods of before do not say which columns: no declaration gives their rows back.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column(
        "spoiled_periods",
        sa.Column("columns", postgresql.JSONB(), nullable=False, server_default=sa.text("'[]'::jsonb")),
    )
    op.alter_column("spoiled_periods", "columns", server_default=None)
    op.add_column("spoiled_periods", sa.Column("accepted_by", sa.Text(), nullable=True))


def downgrade() -> None:
    """Refuse where people have declared something: the downgrade below would rewrite links of the chain, and `verify` fail."""
    count = sa.text("SELECT count(*) FROM retraining_decisions WHERE action = 'declare'")
    n_declared = op.get_bind().execute(count).scalar_one()
    if n_declared:
        raise RuntimeError(
            f"the chain of decisions has {n_declared} declarations, which no release before migration 0018 can check: "
            "restore a backup made before that migration (`selfheal restore`) instead of the downgrade"
        )
    op.drop_column("spoiled_periods", "accepted_by")
    op.drop_column("spoiled_periods", "columns")
