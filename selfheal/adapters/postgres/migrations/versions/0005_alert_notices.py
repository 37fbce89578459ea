"""Who has been told of an alert and who acknowledged it how: notifications are tried again until they arrive."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

TO_TELL = "monitoring_alerts_to_tell"


def columns() -> list[sa.Column[Any]]:
    return [
        sa.Column("acknowledged_note", sa.Text()),
        sa.Column("acknowledged_severity", sa.Text()),
        sa.Column("told", postgresql.JSONB(), server_default=sa.text("'{}'::jsonb"), nullable=False),
        sa.Column("notified_at", sa.DateTime(timezone=True)),
        sa.Column("notify_failures", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("notify_after", sa.DateTime(timezone=True)),
    ]


def upgrade() -> None:
    # Alerts from before stay untold: whoever had to hear of them has, and nothing tells whom they went to.
    for column in columns():
        op.add_column("monitoring_alerts", column)
    op.create_index(
        TO_TELL,
        "monitoring_alerts",
        ["model_name", "notify_after"],
        postgresql_where=sa.text("notify_after IS NOT NULL"),
    )


def downgrade() -> None:
    op.drop_index(TO_TELL, "monitoring_alerts")
    for column in columns():
        op.drop_column("monitoring_alerts", column.name)
