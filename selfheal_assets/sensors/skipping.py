"""Skip reasons: why a sensor requests no run, in a sentence with its number, and when it is evaluated next."""

from collections.abc import Callable
from datetime import timedelta
from functools import wraps
from typing import ParamSpec, TypeVar

import dagster as dg

from selfheal.kit.durations import span

P = ParamSpec("P")
ResultT = TypeVar("ResultT")

BUSY = (dg.DagsterRunStatus.QUEUED, dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED)


def skip(sentence: str, every_seconds: int) -> dg.SkipReason:
    """Return the reason with the time until the next evaluation.

    >>> skip("Nothing new.", 30).skip_message
    'Nothing new. Next evaluation in 30 s.'
    """
    return dg.SkipReason(f"{sentence} Next evaluation in {span(timedelta(seconds=every_seconds))}.")


def unless_running(
    job_name: str, sentence: str, every_seconds: int
) -> Callable[[Callable[P, ResultT]], Callable[P, ResultT | dg.SkipReason]]:
    """Decorate a sensor's evaluation to skip it, with this sentence, while a run of the job is queued or in progress.

    The queue allows one run at a time, so another run would only wait.
    """

    def decorate(evaluate: Callable[P, ResultT]) -> Callable[P, ResultT | dg.SkipReason]:
        @wraps(evaluate)
        def evaluate_unless_running(*args: P.args, **kwargs: P.kwargs) -> ResultT | dg.SkipReason:
            context = args[0] if args else kwargs["context"]
            assert isinstance(context, dg.SensorEvaluationContext)
            if _is_running(context.instance, job_name):
                return skip(sentence, every_seconds)
            return evaluate(*args, **kwargs)

        return evaluate_unless_running

    return decorate


def _is_running(instance: dg.DagsterInstance, job_name: str) -> bool:
    return bool(instance.get_runs(dg.RunsFilter(job_name=job_name, statuses=list(BUSY)), limit=1))
