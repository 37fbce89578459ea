"""Rollups of the predictions, kept exact by triggers: what a window needs to know is not counted anew at every look.

Whoever writes predictions or labels, in whatever order, the rollups follow in the same transaction. A label knows when its
prediction was made, and by which version, as soon as both are there; until then it is an orphan.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

BUCKET = "date_bin('1 minute', {}, timestamptz '1970-01-01 00:00:00+00')"

AGGREGATES = """
    count(*), sum(prediction), sum(probability), count(*) * var_pop(probability), sum(entropy_bits(probability)),
    min(created_at), max(created_at)
"""

ROLLUP_COLUMNS = """
    bucket_start, model_version, n_predictions, n_positive, sum_probability, squared_deviations, sum_entropy,
    first_at, last_at
"""

FUNCTIONS = (
    # Of a prediction, in bits; 0 where the probability is 0 or 1.
    """
    CREATE FUNCTION entropy_bits(p double precision) RETURNS double precision
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$
        SELECT CASE WHEN p <= 0 OR p >= 1 THEN 0.0
                    ELSE -(p * ln(p) + (1 - p) * ln(1 - p)) / ln(2.0::double precision) END
    $$
    """,
    # One writer at a time. Else a label and its prediction, written at the same moment, would each not see the other.
    """
    CREATE FUNCTION take_turns_at_rollups() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        PERFORM pg_advisory_xact_lock(7352004);
        RETURN NULL;
    END $$
    """,
    f"""
    CREATE FUNCTION rebuild_prediction_rollup(of_bucket timestamptz, of_version integer) RETURNS void
    LANGUAGE plpgsql AS $$
    BEGIN
        DELETE FROM prediction_rollups WHERE bucket_start = of_bucket AND model_version = of_version;
        INSERT INTO prediction_rollups ({ROLLUP_COLUMNS}, n_labels, last_label_at)
        SELECT of_bucket, of_version, p.*, l.*
        FROM (SELECT {AGGREGATES} FROM prediction_logs
              WHERE model_version = of_version
                AND created_at >= of_bucket AND created_at < of_bucket + interval '1 minute'
              HAVING count(*) > 0) p,
             (SELECT count(*), max(received_at) FROM label_store
              WHERE model_version = of_version
                AND predicted_at >= of_bucket AND predicted_at < of_bucket + interval '1 minute') l;
    END $$
    """,
    # Two buckets' squared deviations are merged after Chan, Golub and LeVeque (1979): nothing cancels. Orphans are
    # looked up by primary key, one for each new row, whatever the planner believes of a table it has not analysed.
    f"""
    CREATE FUNCTION add_to_prediction_rollups() RETURNS trigger LANGUAGE plpgsql
    SET enable_hashjoin = off SET enable_mergejoin = off SET enable_seqscan = off AS $$
    BEGIN
        INSERT INTO prediction_rollups AS kept ({ROLLUP_COLUMNS})
        SELECT {BUCKET.format("created_at")}, model_version, {AGGREGATES} FROM added GROUP BY 1, 2
        ON CONFLICT (bucket_start, model_version) DO UPDATE SET
            n_predictions = kept.n_predictions + excluded.n_predictions,
            n_positive = kept.n_positive + excluded.n_positive,
            sum_probability = kept.sum_probability + excluded.sum_probability,
            squared_deviations = kept.squared_deviations + excluded.squared_deviations
                + (excluded.sum_probability / excluded.n_predictions - kept.sum_probability / kept.n_predictions) ^ 2
                * kept.n_predictions * excluded.n_predictions / (kept.n_predictions + excluded.n_predictions),
            sum_entropy = kept.sum_entropy + excluded.sum_entropy,
            first_at = least(kept.first_at, excluded.first_at),
            last_at = greatest(kept.last_at, excluded.last_at);
        UPDATE label_store l SET predicted_at = a.created_at, model_version = a.model_version
        FROM added a WHERE l.prediction_id = a.prediction_id AND l.predicted_at IS NULL;
        RETURN NULL;
    END $$
    """,
    f"""
    CREATE FUNCTION rebuild_changed_rollups() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        UPDATE label_store l SET predicted_at = NULL, model_version = NULL
        FROM removed r WHERE l.prediction_id = r.prediction_id;
        PERFORM rebuild_prediction_rollup(bucket, model_version)
        FROM (SELECT {BUCKET.format("created_at")} AS bucket, model_version FROM removed
              UNION SELECT {BUCKET.format("created_at")}, model_version FROM added) touched;
        UPDATE label_store l SET predicted_at = a.created_at, model_version = a.model_version
        FROM added a WHERE l.prediction_id = a.prediction_id;
        RETURN NULL;
    END $$
    """,
    f"""
    CREATE FUNCTION rebuild_thinned_rollups() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        UPDATE label_store l SET predicted_at = NULL, model_version = NULL
        FROM removed r WHERE l.prediction_id = r.prediction_id;
        PERFORM rebuild_prediction_rollup(bucket, model_version)
        FROM (SELECT DISTINCT {BUCKET.format("created_at")} AS bucket, model_version FROM removed) touched;
        RETURN NULL;
    END $$
    """,
    """
    CREATE FUNCTION empty_prediction_rollups() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        DELETE FROM prediction_rollups;
        UPDATE label_store SET predicted_at = NULL, model_version = NULL WHERE predicted_at IS NOT NULL;
        RETURN NULL;
    END $$
    """,
    """
    CREATE FUNCTION find_prediction_of_label() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        SELECT created_at, model_version INTO NEW.predicted_at, NEW.model_version
        FROM prediction_logs WHERE prediction_id = NEW.prediction_id;
        RETURN NEW;
    END $$
    """,
    f"""
    CREATE FUNCTION count_added_labels() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        UPDATE prediction_rollups r
        SET n_labels = r.n_labels + d.n_labels, last_label_at = greatest(r.last_label_at, d.last_label_at)
        FROM (SELECT {BUCKET.format("predicted_at")} AS bucket, model_version, count(*) AS n_labels,
                     max(received_at) AS last_label_at
              FROM added WHERE predicted_at IS NOT NULL GROUP BY 1, 2) d
        WHERE r.bucket_start = d.bucket AND r.model_version = d.model_version;
        RETURN NULL;
    END $$
    """,
    # Counts follow the difference. Only where the latest label may have gone is it looked for again.
    f"""
    CREATE FUNCTION recount_changed_labels() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        UPDATE prediction_rollups r
        SET n_labels = r.n_labels + d.n_labels, last_label_at = greatest(r.last_label_at, d.last_label_at)
        FROM (SELECT {BUCKET.format("predicted_at")} AS bucket, model_version, sum(sign) AS n_labels,
                     max(received_at) FILTER (WHERE sign > 0) AS last_label_at
              FROM (SELECT predicted_at, model_version, received_at, 1 AS sign FROM added
                    UNION ALL SELECT predicted_at, model_version, received_at, -1 FROM removed) changes
              WHERE predicted_at IS NOT NULL GROUP BY 1, 2) d
        WHERE r.bucket_start = d.bucket AND r.model_version = d.model_version;
        PERFORM find_last_label(bucket, model_version)
        FROM (SELECT DISTINCT {BUCKET.format("was.predicted_at")} AS bucket, was.model_version
              FROM removed was LEFT JOIN added is_now USING (prediction_id)
              WHERE was.predicted_at IS NOT NULL
                AND (is_now.predicted_at IS DISTINCT FROM was.predicted_at
                     OR is_now.model_version IS DISTINCT FROM was.model_version
                     OR is_now.received_at < was.received_at)) touched;
        RETURN NULL;
    END $$
    """,
    f"""
    CREATE FUNCTION recount_removed_labels() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        UPDATE prediction_rollups r SET n_labels = r.n_labels - d.n_labels
        FROM (SELECT {BUCKET.format("predicted_at")} AS bucket, model_version, count(*) AS n_labels
              FROM removed WHERE predicted_at IS NOT NULL GROUP BY 1, 2) d
        WHERE r.bucket_start = d.bucket AND r.model_version = d.model_version;
        PERFORM find_last_label(bucket, model_version)
        FROM (SELECT DISTINCT {BUCKET.format("predicted_at")} AS bucket, model_version
              FROM removed WHERE predicted_at IS NOT NULL) touched;
        RETURN NULL;
    END $$
    """,
    """
    CREATE FUNCTION find_last_label(of_bucket timestamptz, of_version integer) RETURNS void LANGUAGE sql AS $$
        UPDATE prediction_rollups SET last_label_at = (
            SELECT max(received_at) FROM label_store
            WHERE model_version = of_version
              AND predicted_at >= of_bucket AND predicted_at < of_bucket + interval '1 minute')
        WHERE bucket_start = of_bucket AND model_version = of_version
    $$
    """,
    """
    CREATE FUNCTION forget_labels_in_rollups() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        UPDATE prediction_rollups SET n_labels = 0, last_label_at = NULL WHERE n_labels > 0;
        RETURN NULL;
    END $$
    """,
)

TRIGGERS = (
    *(
        f"""CREATE TRIGGER rollups_take_turns BEFORE INSERT OR UPDATE OR DELETE ON {table}
        FOR EACH STATEMENT EXECUTE FUNCTION take_turns_at_rollups()"""
        for table in ("prediction_logs", "label_store")
    ),
    """CREATE TRIGGER rollups_follow_insert AFTER INSERT ON prediction_logs REFERENCING NEW TABLE AS added
    FOR EACH STATEMENT EXECUTE FUNCTION add_to_prediction_rollups()""",
    """CREATE TRIGGER rollups_follow_update AFTER UPDATE ON prediction_logs
    REFERENCING OLD TABLE AS removed NEW TABLE AS added
    FOR EACH STATEMENT EXECUTE FUNCTION rebuild_changed_rollups()""",
    """CREATE TRIGGER rollups_follow_delete AFTER DELETE ON prediction_logs REFERENCING OLD TABLE AS removed
    FOR EACH STATEMENT EXECUTE FUNCTION rebuild_thinned_rollups()""",
    """CREATE TRIGGER rollups_follow_truncate AFTER TRUNCATE ON prediction_logs
    FOR EACH STATEMENT EXECUTE FUNCTION empty_prediction_rollups()""",
    """CREATE TRIGGER label_finds_its_prediction BEFORE INSERT ON label_store
    FOR EACH ROW EXECUTE FUNCTION find_prediction_of_label()""",
    """CREATE TRIGGER rollups_follow_insert AFTER INSERT ON label_store REFERENCING NEW TABLE AS added
    FOR EACH STATEMENT EXECUTE FUNCTION count_added_labels()""",
    """CREATE TRIGGER rollups_follow_update AFTER UPDATE ON label_store
    REFERENCING OLD TABLE AS removed NEW TABLE AS added
    FOR EACH STATEMENT EXECUTE FUNCTION recount_changed_labels()""",
    """CREATE TRIGGER rollups_follow_delete AFTER DELETE ON label_store REFERENCING OLD TABLE AS removed
    FOR EACH STATEMENT EXECUTE FUNCTION recount_removed_labels()""",
    """CREATE TRIGGER rollups_follow_truncate AFTER TRUNCATE ON label_store
    FOR EACH STATEMENT EXECUTE FUNCTION forget_labels_in_rollups()""",
)


def upgrade() -> None:
    op.execute("LOCK TABLE prediction_logs, label_store IN SHARE ROW EXCLUSIVE MODE")  # no row between fill and trigger
    op.create_table(
        "prediction_rollups",
        sa.Column("bucket_start", sa.DateTime(timezone=True), nullable=False),
        sa.Column("model_version", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("n_predictions", sa.BigInteger(), nullable=False),
        sa.Column("n_positive", sa.BigInteger(), nullable=False),
        sa.Column("sum_probability", sa.Double(), nullable=False),
        sa.Column("squared_deviations", sa.Double(), nullable=False),
        sa.Column("sum_entropy", sa.Double(), nullable=False),
        sa.Column("first_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("last_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("n_labels", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("last_label_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("n_labels BETWEEN 0 AND n_predictions", name="prediction_rollups_labels_have_predictions"),
        sa.PrimaryKeyConstraint("bucket_start", "model_version"),
    )
    op.add_column("label_store", sa.Column("predicted_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("label_store", sa.Column("model_version", sa.Integer(), nullable=True))
    op.execute(
        """
        UPDATE label_store l SET predicted_at = p.created_at, model_version = p.model_version
        FROM prediction_logs p WHERE p.prediction_id = l.prediction_id
        """
    )
    op.create_index(
        "label_store_by_predicted_at",
        "label_store",
        ["predicted_at", "prediction_id"],
        postgresql_where=sa.text("predicted_at IS NOT NULL"),
    )
    op.create_index(
        "label_store_orphans", "label_store", ["prediction_id"], postgresql_where=sa.text("predicted_at IS NULL")
    )
    op.create_index(
        "prediction_logs_by_hour_and_hash",
        "prediction_logs",
        [
            "model_version",
            sa.text("date_bin('01:00:00'::interval, created_at, '1970-01-01 00:00:00+00'::timestamptz)"),
            sa.text("uuid_hash(prediction_id)"),
        ],
    )
    for statement in FUNCTIONS:
        op.execute(statement)
    op.execute(
        f"""
        INSERT INTO prediction_rollups ({ROLLUP_COLUMNS})
        SELECT {BUCKET.format("created_at")}, model_version, {AGGREGATES} FROM prediction_logs GROUP BY 1, 2
        """
    )
    op.execute(
        f"""
        UPDATE prediction_rollups r SET n_labels = d.n_labels, last_label_at = d.last_label_at
        FROM (SELECT {BUCKET.format("predicted_at")} AS bucket, model_version, count(*) AS n_labels,
                     max(received_at) AS last_label_at
              FROM label_store WHERE predicted_at IS NOT NULL GROUP BY 1, 2) d
        WHERE r.bucket_start = d.bucket AND r.model_version = d.model_version
        """
    )
    for statement in TRIGGERS:
        op.execute(statement)


def downgrade() -> None:
    for trigger, table in (
        ("rollups_take_turns", "prediction_logs"),
        ("rollups_take_turns", "label_store"),
        ("label_finds_its_prediction", "label_store"),
        *(
            (f"rollups_follow_{event}", table)
            for event in ("insert", "update", "delete", "truncate")
            for table in ("prediction_logs", "label_store")
        ),
    ):
        op.execute(f"DROP TRIGGER {trigger} ON {table}")
    for function in (
        "entropy_bits",
        "take_turns_at_rollups",
        "rebuild_prediction_rollup",
        "add_to_prediction_rollups",
        "rebuild_changed_rollups",
        "rebuild_thinned_rollups",
        "empty_prediction_rollups",
        "find_prediction_of_label",
        "count_added_labels",
        "recount_changed_labels",
        "recount_removed_labels",
        "find_last_label",
        "forget_labels_in_rollups",
    ):
        op.execute(f"DROP FUNCTION {function}")
    op.drop_index("prediction_logs_by_hour_and_hash", "prediction_logs")
    op.drop_index("label_store_orphans", "label_store")
    op.drop_index("label_store_by_predicted_at", "label_store")
    op.drop_column("label_store", "model_version")
    op.drop_column("label_store", "predicted_at")
    op.drop_table("prediction_rollups")
