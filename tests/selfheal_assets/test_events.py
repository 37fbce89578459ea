"""A run's events as JSON lines: what the command line shows of them, and why a run failed."""

import io
import json
from typing import Any

import dagster as dg
import pytest

from selfheal.kit.errors import ConfigurationError, ServiceUnavailableError
from selfheal_assets.events import event_logger


def lines_of(failure: Exception | None = None) -> list[dict[str, Any]]:
    """The lines of a run of one asset, which says something and then succeeds or fails."""

    @dg.asset
    def one(context: dg.AssetExecutionContext) -> None:
        context.log.info("3 of 16 fits")
        if failure is not None:
            raise failure

    @dg.asset(deps=[one])
    def two() -> None:
        pass

    stream = io.StringIO()
    definitions = dg.Definitions(
        assets=[one, two], loggers={"events": event_logger(stream)}, executor=dg.in_process_executor
    )
    job = definitions.resolve_implicit_global_asset_job_def()
    job.execute_in_process(run_config=dg.RunConfig(loggers={"events": {}}), raise_on_error=False)
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def only(lines: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    return [line for line in lines if line["type"] == kind]


def test_steps_that_end_are_named_and_what_they_say_comes_between() -> None:
    lines = lines_of()
    assert [line["step"] for line in only(lines, "STEP_SUCCESS")] == ["one", "two"]
    (said,) = [line for line in only(lines, "LOG") if line["level"] == "INFO"]
    assert (said["step"], said["message"]) == ("one", "3 of 16 fits")
    assert [line["asset"] for line in only(lines, "ASSET_MATERIALIZATION")] == ["one", "two"]
    assert lines.index(said) < lines.index(only(lines, "STEP_SUCCESS")[0])


def raised(error: Exception, cause: Exception) -> Exception:
    try:
        raise error from cause
    except Exception as chained:
        return chained


@pytest.mark.parametrize(
    ("failure", "said"),
    [
        (ConfigurationError("DATA=x: no such file"), "DATA=x: no such file"),
        (raised(ServiceUnavailableError("MLflow does not answer"), OSError("refused")), "MLflow does not answer"),
        (dg.Failure("materialise it first"), "materialise it first"),
        (ZeroDivisionError("division by zero"), "division by zero"),
    ],
    ids=["ours", "ours with a cause", "Dagster's", "anything"],
)
def test_a_failure_says_its_cause_in_a_sentence(failure: Exception, said: str) -> None:
    lines = lines_of(failure)
    (failed,) = only(lines, "STEP_FAILURE")
    assert failed["error"] == said
    assert only(lines, "STEP_SUCCESS") == []
    assert next(line["error"] for line in lines if line.get("error")) == said, "before what follows from it"
