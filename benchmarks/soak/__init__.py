"""Soak test: does anything grow that should not, in hours of traffic, kills and deletions?

    python -m benchmarks.soak [--hours 2] [--data cs-training.csv] [--json soak.json] [--quick]

A running `selfheal up` ticks every 10 s under mixed traffic with late labels; a process is killed every few minutes; retention
is minutes, so that everything that is ever deleted is deleted many times over. Measured are memory, descriptors and connections
of each process, and the rows and bytes that are kept: slopes in percent a day with intervals (`benchmarks.trend`).

It is to measure leaks, not the filling of what is bounded. So every process is killed in the first quarter; then the API's
bounded memories are filled (`filling`), and what was started last settles (`plan`). Slopes are those of the floors that the
measures come back to (`series`), without Postgres' shared buffers, which count as in use from their first touch (`samples`).

Nothing should grow by more than 5 % a day. Where the run is too short to tell that from noise, or something fills up to a
limit, a bound is computed and checked instead, and printed beside the slope (`bounds`). What is kept for ever (`evidence`:
the journal, labelled predictions, decisions, models) is bounded by bytes for each prediction that was acknowledged.
"""
