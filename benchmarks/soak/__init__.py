"""Soak test: does anything grow that should not, in hours of traffic, kills and deletions?

    python -m benchmarks.soak [--hours 2] [--data cs-training.csv] [--json soak.json] [--quick]

A running `selfheal up` ticks every 10 s under mixed traffic with late labels; a process is killed every few minutes; retention
is minutes, so that everything that is ever deleted is deleted many times over. Measured are memory, descriptors and connections
of each process, and the rows and bytes that are kept: slopes in percent a day with intervals (`benchmarks.trend`). In the last
two thirds only run workers and Postgres are killed: the other processes live long enough to show a leak.

Nothing should grow by more than 5 % a day, but for what is kept for ever (`evidence`: the journal, labelled predictions,
decisions, models): that is bounded by bytes for each prediction that was acknowledged.
"""
