"""A run's events as JSON lines, for a program that starts the run and waits for it: the command line.

The first line is `{"type": "PLAN", "steps": [...]}`. Each other is an event of the run or a message of a step:

- `type`: the name of Dagster's event, such as `STEP_SUCCESS`, or `LOG`
- `time`, `step` (or null), `level`, `message`
- `asset`, `partition`: of what was materialised
- `error`: of a failure, its cause in a sentence
"""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING, Any, TextIO

import dagster as dg

if TYPE_CHECKING:
    from collections.abc import Sequence

PLAN, LOG = "PLAN", "LOG"


def plan_line(steps: Sequence[str]) -> str:
    """Return the line that names the steps of a run, in their order.

    >>> plan_line(["training_set", "shadow_model"])
    '{"type": "PLAN", "steps": ["training_set", "shadow_model"]}'
    """
    return json.dumps({"type": PLAN, "steps": list(steps)})


def event_logger(stream: TextIO) -> dg.LoggerDefinition:
    """Return a logger of Dagster's that writes each event of a run to `stream` as it occurs, one line each."""

    def event_lines(_: dg.InitLoggerContext) -> logging.Logger:
        handler = logging.StreamHandler(stream)
        handler.setFormatter(_EventFormatter())
        events = logging.Logger("selfheal.events", logging.DEBUG)
        events.addHandler(handler)
        return events

    return dg.LoggerDefinition(event_lines, description="Each event as a JSON line.")


class _EventFormatter(logging.Formatter):
    """Formats the `dagster_meta` that Dagster attaches to each log record."""

    def format(self, record: logging.LogRecord) -> str:
        meta: dict[str, Any] = record.dagster_meta  # type: ignore[attr-defined]
        event: dg.DagsterEvent | None = meta["dagster_event"]
        line: dict[str, Any] = {
            "type": LOG if event is None else event.event_type_value,
            "time": meta["log_timestamp"],
            "step": meta["step_key"],
            "level": record.levelname,
            "message": meta["orig_message"],
        }
        if event is not None:
            line |= _particulars(event)
        return json.dumps(line)


def _particulars(event: dg.DagsterEvent) -> dict[str, Any]:
    if event.is_step_materialization:
        made = event.materialization
        return {"asset": made.asset_key.to_user_string(), "partition": made.partition}
    if event.is_step_failure:
        return {"error": _cause_of_step(event)}
    if event.is_failure and event.message:
        return {"error": event.message}
    return {}


def _cause_of_step(event: dg.DagsterEvent) -> str:
    """Return the cause of a failed step in a sentence: the step's own text, our own error, or else the first cause."""
    failure = event.step_failure_data
    if failure.user_failure_data is not None and failure.user_failure_data.description:
        return str(failure.user_failure_data.description)
    chain = [] if failure.error is None else [failure.error]
    while chain and chain[-1].cause is not None:
        chain.append(chain[-1].cause)
    ours = [error for error in chain if error.message.startswith("selfheal.")]
    if not chain:
        return event.message or "unknown"
    error = (ours or chain)[-1]
    _, has_class, message = error.message.strip().partition(f"{error.cls_name}: ")
    return message if has_class else error.message.strip()
