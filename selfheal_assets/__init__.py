"""The Dagster code location: what runs when, and what people see of it. The logic is `selfheal`'s.

`definitions` builds everything; `assets` holds the graph (a module a group); `sensors` and `schedules` turn what the
store says into runs; `jobs` select assets; `io` keeps what assets hand to each other; `checks` watch invariants.
"""
