"""Crash tests: is what was acknowledged ever lost, doubled or changed, and does the platform go on by itself?

    python -m benchmarks.crash [--data cs-training.csv] [--json crash.json] [--quick]

Three ordeals, one after the other; what each leaves behind is counted under the same names:

- `points`: a process ends itself (SIGKILL or `os._exit`) at every point between two durable steps of ingest, tick,
  retraining, promotion, probation, rollback, retention, backup and first start, in random states; then whoever comes next
  has three rounds to finish the work.
- `processes`: a running `selfheal up` under traffic loses one of its processes, Postgres or itself at random moments.
- `api`: API processes that share a folder are killed under load, Postgres too; then the disk is full, and fails a sync.
"""
