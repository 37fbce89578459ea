"""Two kinds of alerts get names that say what has happened. Stored ones follow: an open one can still be resolved."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

NEW_NAMES = {
    "registry_strayed": "registry_out_of_sync",
    "probation_blind": "probation_cannot_compare",
}


def upgrade() -> None:
    for old, new in NEW_NAMES.items():
        _rename(old, new)


def downgrade() -> None:
    for old, new in NEW_NAMES.items():
        _rename(new, old)


def _rename(kind: str, into: str) -> None:
    statement = sa.text("UPDATE monitoring_alerts SET kind = :into WHERE kind = :kind")
    op.execute(statement.bindparams(kind=kind, into=into))
