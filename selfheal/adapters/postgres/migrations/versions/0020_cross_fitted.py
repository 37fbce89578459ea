"""The digest of what a cross-fitted challenger was judged by, in the chain of decisions; verdicts of before have none."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0020"
down_revision = "0019"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("retraining_decisions", sa.Column("cross_fitted_sha256", sa.Text(), nullable=True))


def downgrade() -> None:
    """Refuse where verdicts have the digest: without it they would not match their hashes, and `verify` fail."""
    count = sa.text("SELECT count(*) FROM retraining_decisions WHERE cross_fitted_sha256 IS NOT NULL")
    n_verdicts = op.get_bind().execute(count).scalar_one()
    if n_verdicts:
        raise RuntimeError(
            f"the chain of decisions has {n_verdicts} verdicts on cross-fitted challengers, which no release before migration 0020 "
            "can check: restore a backup made before that migration (`selfheal restore`) instead of the downgrade"
        )
    op.drop_column("retraining_decisions", "cross_fitted_sha256")
