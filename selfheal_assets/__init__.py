"""The Dagster code location: what runs when, and what people see of it. The logic is in `selfheal`.

`definitions` builds everything; `assets` has the graph (one module per group); `sensors` and `schedules` turn stored rows into
runs; `jobs` select assets; `io_managers` store what assets hand to each other; `asset_checks` check invariants.
"""
