"""The running API against its own OpenAPI document: no server error, and no answer that the document does not announce.

Schemathesis asks every operation with data that the schemas allow and data that they forbid, and looks at every answer with
all its checks. Here it asks as often as a test may. To let it ask at length, say how often an operation is to be asked:

    SCHEMATHESIS_EXAMPLES=1000 python -m pytest tests/serving/test_schemathesis.py --timeout=0

or point it at a service that is running (no key, a wrong one and one that lacks a scope are worth a run each):

    schemathesis run http://127.0.0.1:8000/openapi.json --max-examples 1000 -H "X-API-Key: ..."
"""

from __future__ import annotations

import json
import os
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

import httpx
import schemathesis
from schemathesis.config import SchemathesisConfig
from schemathesis.engine import Status, events, from_schema

from tests.serving.history import ADA
from tests.serving.running import Api

AT_LENGTH = int(os.environ.get("SCHEMATHESIS_EXAMPLES", "0"))

OPEN_TO_ALL = {"GET /health", "GET /health/live", "GET /health/ready", "GET /live/schema"}
"""Probes, and a document like `/openapi.json`, which needs no key either."""

SCORE = {"POST /predict", "POST /predict/batch"}
WRITE = {*SCORE, "POST /labels", "POST /monitoring/alerts/{alert_id}/acknowledge"}


@dataclass
class Outcome:
    """What was found wrong, and what each operation (method and path) answered."""

    findings: list[str] = field(default_factory=list)
    statuses: dict[str, set[int]] = field(default_factory=lambda: defaultdict(set))


def ask_everything(api: Api, key: str | None, n_examples: int, *phases: str) -> Outcome:
    """Every operation, with this key, so many times in each phase that counts (`coverage` has its own, fixed number)."""
    config = SchemathesisConfig.from_dict(
        {
            "seed": 3,
            "headers": {} if key is None else {"X-API-Key": key},
            "generation": {
                "max-examples": AT_LENGTH or n_examples,
                "deterministic": True,
                "no-shrink": not AT_LENGTH,
                "database": "none",
            },
            "phases": {"enabled": False} | {phase: {"enabled": True} for phase in phases},
            "continue-on-failure": True,
            "cache": {"enabled": False},
        }
    )
    outcome = Outcome()
    schema = schemathesis.openapi.from_url(f"{api.client.base_url}/openapi.json", config=config)
    for event in from_schema(schema).execute():
        if isinstance(event, events.NonFatalError):
            outcome.findings.append(f"{event.label}: {event.value!r}")
        elif isinstance(event, events.FatalError):
            outcome.findings.append(repr(event.exception))
        elif isinstance(event, events.ScenarioFinished):
            note(outcome, event.recorder)
    return outcome


def note(outcome: Outcome, recorder: Any) -> None:
    for case_id, interaction in recorder.interactions.items():
        case = recorder.cases[case_id].value
        if interaction.response is not None and interaction.request.method == case.operation.method.upper():
            outcome.statuses[case.operation.label].add(interaction.response.status_code)
    for checks in recorder.checks.values():
        for check in checks:
            if check.status == Status.FAILURE:
                outcome.findings.append(f"{recorder.label}: {check.name}: {check.failure_info}")


@schemathesis.check
def a_row_is_judged_alike_alone_and_in_a_batch(_: Any, response: Any, case: Any) -> None:
    """In the schema of a batch a row may be anything, since one that breaks the contract is refused by itself."""
    sent = response.request
    if case.operation.label != "POST /predict" or sent.method != "POST" or response.status_code not in {200, 422}:
        return
    row = sent.body.encode() if isinstance(sent.body, str) else sent.body or b""
    url = httpx.URL(sent.url).copy_with(path="/predict/batch")
    headers = {name: sent.headers[name] for name in ("Content-Type", "X-API-Key") if name in sent.headers}
    answer = httpx.post(url, content=b'{"instances": [%b]}' % row, headers=headers)
    is_scored = answer.status_code == 200 and answer.json()["predictions"][0] is not None
    assert is_scored == (response.status_code == 200), f"in a batch: {answer.status_code} {json.dumps(answer.text)}"


ALL_PHASES = ("examples", "coverage", "fuzzing", "stateful")


def test_a_key_for_everything_finds_everything_as_documented(watched_api: Api) -> None:
    outcome = ask_everything(watched_api, ADA, 20, *ALL_PHASES)
    assert outcome.findings == []
    assert len(outcome.statuses) == 16
