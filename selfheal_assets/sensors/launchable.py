"""Whether a run request fits the code, and what becomes of one that does not.

Dagster (1.13) creates the runs of an evaluation one after another. Where the configuration, selection or partition of one does
not fit, the evaluation fails: what came before it is launched, what comes after is not, the cursor stays where it was, and the
next evaluation does the same. A stored request can outlive the code that it was made for, so each is examined on its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import dagster as dg

from selfheal_assets.sensors.run_alerts import open_run_alert

if TYPE_CHECKING:
    from selfheal_assets.resources.platform import PlatformResource

MAX_CAUSE_CHARACTERS = 300
"""Largest length of Dagster's own error, which may list a whole schema."""


@dataclass(frozen=True)
class Candidate:
    """A run that is to be requested, its job, and what people call it."""

    job_name: str
    name: str
    request: dg.RunRequest


@dataclass(frozen=True)
class SetAside:
    """A candidate that this release cannot launch, and why."""

    candidate: Candidate
    cause: str


def divide(
    context: dg.SensorEvaluationContext, candidates: Sequence[Candidate]
) -> tuple[list[dg.RunRequest], list[SetAside]]:
    """Return the requests of those that fit, and the others with the reason."""
    fitting: list[dg.RunRequest] = []
    set_aside: list[SetAside] = []
    for candidate in candidates:
        cause = why_unlaunchable(context, candidate.job_name, candidate.request)
        if cause is None:
            fitting.append(candidate.request)
        else:
            set_aside.append(SetAside(candidate, cause))
    return fitting, set_aside


def why_unlaunchable(context: dg.SensorEvaluationContext, job_name: str, request: dg.RunRequest) -> str | None:
    """Return why Dagster could not create this run of the job, in one line; None if it fits."""
    repository = context.repository_def
    assert repository is not None, "a sensor is evaluated within its code location"
    if not repository.has_job(job_name):
        return f"there is no job {job_name}"
    try:
        job = repository.get_job(job_name)
        if request.asset_selection is not None:
            job = job.get_subset(asset_selection=set(request.asset_selection))
        dg.validate_run_config(job, request.run_config)
        if request.partition_key is not None:
            request.with_resolved_tags_and_config(job, [], context.instance)
    except Exception as error:  # whatever Dagster raises here, it would raise for the whole evaluation
        return " ".join(str(error).split())[:MAX_CAUSE_CHARACTERS]
    return None


def alert_set_aside(platform: PlatformResource, set_aside: Sequence[SetAside]) -> None:
    """Open the alert of each job that requests were set aside of, with their names. The job's next success resolves it."""
    for job_name in sorted({one.candidate.job_name for one in set_aside}):
        named = [f"{one.candidate.name}: {one.cause}" for one in set_aside if one.candidate.job_name == job_name]
        open_run_alert(
            platform.open(),
            job_name,
            f"Set aside, since it does not fit this release: {'; '.join(named)}. Other requests go on; request it again if it "
            "is still needed",
        )
