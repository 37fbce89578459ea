"""Who raised an alert: it alone says when the trouble is over. An alert need not be about a model version any more."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

ONE_OPEN = "monitoring_alerts_one_open_per_kind"


def upgrade() -> None:
    # The default stays: processes of the release before this one still write alerts while the hosts are updated.
    op.add_column(
        "monitoring_alerts", sa.Column("source", sa.Text(), server_default=sa.text("'monitoring'"), nullable=False)
    )
    op.alter_column("monitoring_alerts", "model_version", nullable=True)
    op.drop_index(ONE_OPEN, "monitoring_alerts")
    op.create_index(
        ONE_OPEN,
        "monitoring_alerts",
        ["model_name", "source", "kind", sa.text("coalesce(model_version, 0)")],
        unique=True,
        postgresql_where=sa.text("resolved_at IS NULL"),
    )


def downgrade() -> None:
    op.execute("DELETE FROM monitoring_alerts WHERE source <> 'monitoring' OR model_version IS NULL")
    op.drop_index(ONE_OPEN, "monitoring_alerts")
    op.create_index(
        ONE_OPEN,
        "monitoring_alerts",
        ["model_name", "model_version", "kind"],
        unique=True,
        postgresql_where=sa.text("resolved_at IS NULL"),
    )
    op.alter_column("monitoring_alerts", "model_version", nullable=False)
    op.drop_column("monitoring_alerts", "source")
