"""The Dagster code location: what runs when, and what people see of it. The logic is in `selfheal`.

`definitions` builds everything. `assets` has the graph, one module per group; `asset_checks` check invariants; `jobs` select
assets; `schedules` and `sensors` turn the calendar, and stored rows, into runs. `resources` is what runs are given: the open
platform, the store of what assets hand to each other, a training's run in MLflow, the partitions of model versions. `events`
print a run's events for a program that waits for it.
"""
