"""`python -m selfheal_assets JOB [REQUEST]`: run one job in this process, on the instance of DAGSTER_HOME.

REQUEST is JSON: the fields of `RetrainingRequest`, for `retraining_job`. The run's events go to stdout as JSON lines
(`selfheal_assets.events`); everything else, including Dagster's log, goes to stderr.
"""

from __future__ import annotations

import json
import os
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TextIO
from uuid import uuid4

import dagster as dg

from selfheal.kit.parent_death import end_with_parent
from selfheal_assets.assets.retraining import RetrainingRequest
from selfheal_assets.definitions import defs
from selfheal_assets.events import event_logger, plan_line
from selfheal_assets.run_owners import RunOwners, write_owner

if TYPE_CHECKING:
    from collections.abc import Iterator

LOGGERS: dict[str, Any] = {"events": {}, "console": {"config": {"log_level": "DEBUG"}}}


def main(job_name: str, request: str | None = None) -> int:
    """Run the job; return 0 if the run succeeded."""
    stream = _stdout_for_events_alone()
    with_events = dg.Definitions(loggers={"events": event_logger(stream), "console": dg.colored_console_logger})
    job = dg.Definitions.merge(defs, with_events).resolve_job_def(job_name)
    print(plan_line([node.name for node in job.nodes_in_topological_order]), file=stream, flush=True)
    with dg.DagsterInstance.get() as instance, _owned_run(RunOwners.of(instance)) as run_id:
        result = job.execute_in_process(
            run_config=_config_of(job, request), instance=instance, raise_on_error=False, run_id=run_id
        )
    return 0 if result.success else 1


@contextmanager
def _owned_run(owners: RunOwners) -> Iterator[str]:
    """Yield the number of a new run, which this process executes: if it is killed, the run is known to be over."""
    run_id = str(uuid4())
    with owners.claim(run_id) as lock:
        write_owner(lock, os.getpid())
        yield run_id
    owners.forget(run_id)


def _config_of(job: dg.JobDefinition, request: str | None) -> dg.RunConfig | dict[str, Any]:
    """Return the run configuration of a request; without a request, the job's default."""
    if request is None:
        return dict(job.run_config or {}) | {"loggers": LOGGERS}
    asked = RetrainingRequest(**json.loads(request))
    return dg.RunConfig(ops=asked.run_config().ops, loggers=LOGGERS)


def _stdout_for_events_alone() -> TextIO:
    """Return stdout; redirect all other output, including that of libraries and child processes, to stderr."""
    stream = os.fdopen(os.dup(sys.stdout.fileno()), "w", buffering=1)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    return stream


if __name__ == "__main__":
    end_with_parent(os.getppid())
    sys.exit(main(*sys.argv[1:]))
