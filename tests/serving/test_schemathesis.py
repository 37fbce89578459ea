"""The running API against its own OpenAPI document: no server error, and no answer that the document does not announce.

Schemathesis asks every operation with data that the schemas allow and data that they forbid, and looks at every answer with
all its checks. Here it asks as often as a test may. To let it ask at length, say how often an operation is to be asked:

    SCHEMATHESIS_EXAMPLES=1000 python -m pytest tests/serving/test_schemathesis.py

or point it at a service that is running (no key, a wrong one and one that lacks a scope are worth a run each):

    schemathesis run http://127.0.0.1:8000/openapi.json --max-examples 1000 -H "X-API-Key: ..."
"""

from __future__ import annotations

import json
import os
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
import schemathesis
from pydantic import SecretStr
from schemathesis.config import SchemathesisConfig
from schemathesis.engine import Status, events, from_schema

from selfheal.adapters.postgres.embedded import EmbeddedServer
from tests.conftest import TEMPLATE, WITH_MLFLOW
from tests.serving.conftest import clone
from tests.serving.history import ADA, API_KEYS, READER, SCORER, platform_of, write_past
from tests.serving.running import Api, api_in_thread, bodies
from tests.waiting import eventually

AT_LENGTH = int(os.environ.get("SCHEMATHESIS_EXAMPLES", "0"))
pytestmark = [pytest.mark.timeout(0)] if AT_LENGTH else []

OPEN_TO_ALL = {
    *("GET /health", "GET /health/live", "GET /health/ready", "GET /live/schema"),
    *("GET /v2", "GET /v2/health/live", "GET /v2/health/ready", "GET /ping", "GET /version"),
    *("GET /v2/models/{model}/ready", "GET /v2/models/{model}/versions/{version}/ready"),
}
"""Probes, and a document like `/openapi.json`, which needs no key either."""

NEEDS_AN_ID = {
    "GET /decisions/{decision_id}",
    "POST /monitoring/alerts/{alert_id}/acknowledge",
    "POST /monitoring/label-quarantines/{quarantine_id}/release",
    "GET /monitoring/drift/{column}",
    "GET /monitoring/report",
    "GET /monitoring/reports/{name}",
}
"""An id or a name that is made up is not found, nor is a report where none was written."""

NOT_DONE = {"POST /promotions", "POST /rollbacks", "POST /retrainings", "POST /declarations"}
"""There is no version here that could be gone to; and a retraining is only promised."""

NEEDS_THE_MODEL = {
    *("GET /v2/models/{model}", "GET /v2/models/{model}/versions/{version}"),
    *("GET /v2/models/{model}/ready", "GET /v2/models/{model}/versions/{version}/ready"),
    *("POST /v2/models/{model}/infer", "POST /v2/models/{model}/versions/{version}/infer"),
    *("GET /api/2.0/endpoints/{model}", "POST /endpoints/{model}/invocations"),
}
"""A model or version that is made up is not found."""

MAY_BE_REFUSED = {
    *("POST /v2/models/{model}/infer", "POST /v2/models/{model}/versions/{version}/infer"),
    *("POST /invocations", "POST /endpoints/{model}/invocations"),
}
"""A schema cannot say that a shape and its data agree, nor that columns have the names of inputs: 400 is no surprise."""

SCORE = {
    *("POST /predict", "POST /predict/batch", "GET /api/2.0/endpoints/", "POST /invocations"),
    *NEEDS_THE_MODEL - OPEN_TO_ALL,
}
READ = {
    "GET /monitoring/declarations",
    "GET /decisions",
    "GET /decisions/{decision_id}",
    "GET /metrics",
    "GET /model/info",
    "GET /model/promotions",
    "GET /model/versions",
    "GET /monitoring/alerts",
    "GET /monitoring/drift",
    "GET /monitoring/drift/{column}",
    "GET /monitoring/history",
    "GET /monitoring/label-quarantines",
    "GET /monitoring/report",
    "GET /monitoring/reports",
    "GET /monitoring/reports/{name}",
    "GET /monitoring/stats",
    "GET /overview",
}
N_OPERATIONS = 45


@dataclass
class Outcome:
    """What was found wrong, and what each operation (method and path) answered."""

    findings: list[str] = field(default_factory=list)
    statuses: dict[str, set[int]] = field(default_factory=lambda: defaultdict(set))


def ask_everything(api: Api, key: str | None, n_examples: int, *phases: str) -> Outcome:
    """Every operation, with this key, so many times in each phase; `coverage` has its own number: 40 on average."""
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
            "operations": [
                {
                    "include-name": operation,
                    "checks": {
                        "positive_data_acceptance": {"expected-statuses": ["2xx", 400, 401, 403, 404, 409, 413, 415]}
                    },
                }
                for operation in sorted(MAY_BE_REFUSED)
            ],
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
                failed = check.failure_info
                outcome.findings.append(
                    f"{recorder.label}: {check.name}: {failed.failure.message}: {failed.code_sample}"
                )


beside = httpx.Client()


@schemathesis.check
def a_row_is_judged_alike_alone_and_in_a_batch(_: Any, response: Any, case: Any) -> None:
    """In the schema of a batch a row may be anything, since one that breaks the contract is refused by itself."""
    sent = response.request
    if case.operation.label != "POST /predict" or sent.method != "POST" or response.status_code not in {200, 422}:
        return
    row = sent.body.encode() if isinstance(sent.body, str) else sent.body or b""
    url = httpx.URL(sent.url).copy_with(path="/predict/batch")
    headers = {name: sent.headers[name] for name in ("Content-Type", "X-API-Key") if name in sent.headers}
    answer = beside.post(url, content=b'{"instances": [%b]}' % row, headers=headers)
    is_scored = answer.status_code == 200 and answer.json()["predictions"][0] is not None
    assert is_scored == (response.status_code == 200), f"in a batch: {answer.status_code} {json.dumps(answer.text)}"


# The three ways in


@pytest.fixture(scope="module")
def asked_api(
    server: EmbeddedServer, bootstrapped_template: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Api]:
    """An API with keys and a past of its own: what is asked here changes it."""
    data_dir = tmp_path_factory.mktemp("asked_api") / "data"
    settings = clone(server, TEMPLATE, bootstrapped_template, "asked_api", data_dir, WITH_MLFLOW)
    with_keys = settings.model_copy(update={"api_keys": SecretStr(API_KEYS)})
    with platform_of(with_keys) as platform:
        write_past(platform, datetime.now(UTC))
    with api_in_thread(with_keys) as running:
        yield running


def test_a_key_for_everything_gets_what_is_documented(asked_api: Api) -> None:
    outcome = ask_everything(asked_api, ADA, 12, "coverage", "fuzzing", "stateful")
    assert outcome.findings == []
    found = {operation for operation, statuses in outcome.statuses.items() if 200 in statuses}
    assert outcome.statuses.keys() - found <= NEEDS_AN_ID | NOT_DONE | NEEDS_THE_MODEL | MAY_BE_REFUSED
    assert 202 in outcome.statuses["POST /retrainings"]
    assert_still_well(asked_api, ADA)


@pytest.mark.parametrize(
    ("key", "opened", "status"),
    [
        (None, set(), 401),
        ("a-key-that-nobody-has-given-out", set(), 401),
        (SCORER, SCORE, 403),
        (READER, READ, 403),
    ],
    ids=["no key", "a wrong key", "a key for scoring", "a key for reading"],
)
def test_a_key_opens_what_it_is_for_and_nothing_else(
    asked_api: Api, key: str | None, opened: set[str], status: int
) -> None:
    outcome = ask_everything(asked_api, key, 3, "fuzzing")
    assert outcome.findings == []
    closed = outcome.statuses.keys() - opened - OPEN_TO_ALL
    assert len(closed) == N_OPERATIONS - len(opened) - len(OPEN_TO_ALL)
    assert {operation: outcome.statuses[operation] for operation in closed} == {
        operation: {status} for operation in closed
    }
    assert all(
        200 in outcome.statuses[operation]
        for operation in (opened | OPEN_TO_ALL) - NEEDS_AN_ID - NEEDS_THE_MODEL - MAY_BE_REFUSED
    )


def test_without_keys_everybody_gets_what_is_documented(shared_api: Api) -> None:
    outcome = ask_everything(shared_api, None, 12, "fuzzing")
    assert outcome.findings == []
    assert len(outcome.statuses) == N_OPERATIONS
    assert not {401, 403} & set().union(*outcome.statuses.values())
    assert_still_well(shared_api, None)


def test_what_is_not_as_documented_is_found(shared_api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """Or all of the above would pass whatever is answered."""
    documented = shared_api.client.get("/openapi.json").json()
    documented["paths"] = {
        path: documented["paths"][path] for path in ("/predict", "/health/live", "/decisions/{decision_id}")
    }
    documented["components"]["schemas"]["PredictRequest"]["required"].remove("restarts")
    documented["components"]["schemas"]["Liveness"]["properties"]["status"]["const"] = "dead"
    del documented["paths"]["/decisions/{decision_id}"]["get"]["responses"]["404"]
    with monkeypatch.context() as patched:
        patched.setattr(shared_api.app, "openapi_schema", documented)
        findings = ask_everything(shared_api, None, 1, "coverage").findings
    found = {tuple(finding.split(": ")[:2]) for finding in findings}
    assert found == {
        ("POST /predict", "positive_data_acceptance"),
        ("GET /health/live", "response_schema_conformance"),
        ("GET /decisions/{decision_id}", "status_code_conformance"),
    }


def assert_still_well(api: Api, key: str | None) -> None:
    """Nothing that was accepted is stuck on its way to Postgres."""
    headers = {} if key is None else {"X-API-Key": key}
    eventually(lambda: api.health()["journal_lag_bytes"] == 0, "what was accepted is in Postgres")
    assert api.health()["status"] == "ok"
    assert api.client.post("/predict", json=bodies(1)[0], headers=headers).status_code == 200
