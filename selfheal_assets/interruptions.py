"""Runs that were interrupted: which are taken up again, and as what. Rules on what Dagster has stored of a run.

A run is repeated from its start if its process was killed, at most `MAX_REPEATS` times, or if the platform was stopped under
it, which says nothing about the run and is not counted. Each step may be repeated. A run is not repeated if a step failed,
a person ended it, or its time ran out: it would end the same way.
"""

from __future__ import annotations

import dagster as dg

from selfheal_assets.job_names import MONITORING_JOB, PROBATION_JOB, RETRAINING_JOB

REPEATED_JOBS = frozenset({MONITORING_JOB, PROBATION_JOB, RETRAINING_JOB})
"""What asked for these does not ask again. Maintenance has its next day, and what a person starts a person sees end."""

MAX_REPEATS = 2

OUT_OF_TIME_TAG = "selfheal/out_of_time"
KILLS_TAG = "selfheal/kills"
"""How many runs before this one were killed, of those it repeats."""

REPEATS_TAG = "selfheal/repeats"
"""The run that this one repeats."""

SET_ASIDE_TAG = "selfheal/set_aside"
"""Why a run that was cut short cannot be repeated by this release."""

MAX_RUNTIME_TAG = "dagster/max_runtime"
WILL_RETRY_TAG = "dagster/will_retry"
"""Of a failed run of an earlier release, which left retries to Dagster."""

FAILURE_REASON_TAG = "dagster/failure_reason"
STEP_FAILURE = "STEP_FAILURE"
STOPPED = "UNEXPECTED_TERMINATION"
"""Dagster's reason where a run got SIGTERM, and nobody had asked for its end."""

PARTITION_TAG = "dagster/partition"
DAGSTERS_TAGS = ("dagster/", ".dagster/")


def is_interrupted(run: dg.DagsterRun) -> bool:
    """Return whether a run that has failed was cut short and is to be repeated."""
    if run.job_name not in REPEATED_JOBS or run.status is not dg.DagsterRunStatus.FAILURE:
        return False
    is_anothers = run.remote_job_origin is None  # a command executed it, and saw it end
    if is_anothers or WILL_RETRY_TAG in run.tags or SET_ASIDE_TAG in run.tags:
        return False
    reason = run.tags.get(FAILURE_REASON_TAG)
    has_ended_itself = reason == STEP_FAILURE or OUT_OF_TIME_TAG in run.tags
    return not has_ended_itself and (reason == STOPPED or n_kills(run) < MAX_REPEATS)


def repetition_of(run: dg.DagsterRun) -> dg.RunRequest:
    """Return the request that repeats an interrupted run: the same job, configuration, selection and partition."""
    was_killed = run.tags.get(FAILURE_REASON_TAG) != STOPPED
    inherited = {name: value for name, value in run.tags.items() if not name.startswith(DAGSTERS_TAGS)}
    return dg.RunRequest(
        run_key=f"repeats {run.run_id}",
        job_name=run.job_name,
        run_config=run.run_config,
        tags=inherited | {REPEATS_TAG: run.run_id, KILLS_TAG: str(n_kills(run) + was_killed)},
        partition_key=run.tags.get(PARTITION_TAG),
        asset_selection=None if run.asset_selection is None else sorted(run.asset_selection),
    )


def n_kills(run: dg.DagsterRun) -> int:
    """Return how many of the runs that this one repeats were killed."""
    return int(run.tags.get(KILLS_TAG, "0"))
