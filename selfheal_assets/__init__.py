"""The Dagster code location: what runs when, and how Dagster shows it. The logic is in `selfheal`.

`definitions` builds everything. `assets` has the graph, one module per group; `asset_checks` check invariants; `jobs` select
assets; `schedules` and `sensors` request runs by the calendar and by stored rows. `resources` provides what runs need: the
open platform, the storage of assets' values, a training's MLflow run, and the partitions by model version. `events` prints a
run's events for a program that waits for the run.
"""
