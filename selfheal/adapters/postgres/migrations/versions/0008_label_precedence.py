"""Which label of a prediction counts, as one function: the copy of the journal and its audit ask the same rule."""

from __future__ import annotations

from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # Of two labels of a prediction the one with the higher precedence counts: any correction before any first label, the
    # latest of corrections, the earliest of first labels. Two have the same only if both arguments are equal. The moment
    # subtracted is the earliest that Postgres knows to the day, so that corrections are above zero and others below.
    # Immutable and a single expression: Postgres puts it in place of the call, so calling it costs nothing.
    op.execute(
        """
        CREATE FUNCTION label_precedence(is_correction boolean, received_at timestamptz) RETURNS interval
        LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
            SELECT CASE WHEN is_correction THEN received_at - timestamptz '4713-01-01 00:00:00+00 BC'
                        ELSE timestamptz '4713-01-01 00:00:00+00 BC' - received_at END
        $$
        """
    )


def downgrade() -> None:
    op.execute("DROP FUNCTION label_precedence")
