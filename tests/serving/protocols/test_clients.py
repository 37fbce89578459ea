"""Real clients of the Open Inference Protocol score against the real API, unchanged (`make test-clients`).

They need packages that do not resolve beside ours, so each runs as a program in an environment of its own. KServe's and
MLServer's packages cannot be imported by one process either. MLflow's clients are in test_mlflow_routes.py.
"""

from __future__ import annotations

import json
import os
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from selfheal.adapters.postgres.embedded import EmbeddedServer
from tests.conftest import TEMPLATE
from tests.processes import REPOSITORY
from tests.serving.conftest import clone
from tests.serving.history import API_KEYS, SCORER
from tests.serving.running import Api, api_in_thread, bodies, journal_rows

PYTHON = Path(os.environ.get("SELFHEAL_CLIENTS_PYTHON", REPOSITORY / ".venv-clients" / "bin" / "python"))
PROGRAMS = Path(__file__).with_name("clients")
ROWS = [row for row in bodies(12, seed=31) if "temperature_c" in row]

pytestmark = [
    pytest.mark.clients,
    pytest.mark.skipif(
        not PYTHON.exists() and not os.environ.get("SELFHEAL_REQUIRE_CLIENTS"),
        reason="the clients are not installed; run make test-clients",
    ),
]


@pytest.fixture(scope="module")
def keyed_api(
    server: EmbeddedServer, bootstrapped_template: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Api]:
    """An API that asks for keys, so that clients show that they can send one."""
    data_dir = tmp_path_factory.mktemp("clients") / "data"
    settings = clone(server, TEMPLATE, bootstrapped_template, "clients", data_dir)
    with api_in_thread(settings.model_copy(update={"api_keys": SecretStr(API_KEYS)})) as api:
        api.client.headers["X-API-Key"] = SCORER
        yield api


@pytest.fixture(scope="module")
def expected(keyed_api: Api) -> list[float]:
    predictions = keyed_api.post("/predict/batch", {"instances": ROWS}).json()["predictions"]
    return [one["probability"] for one in predictions]


def told_by(program: str, api: Api, **asked: Any) -> Any:
    """What a program with a client reports."""
    given = {"url": str(api.client.base_url).rstrip("/"), "key": SCORER, "model": "machine_failure", "rows": ROWS}
    command = [PYTHON, PROGRAMS / f"{program}.py"]
    done = subprocess.run(
        command, input=json.dumps(given | asked), capture_output=True, text=True, timeout=200, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_tritonclient_scores_in_json_and_binary_and_retries_under_its_ids(
    keyed_api: Api, expected: list[float]
) -> None:
    ids = [str(uuid.uuid4()) for _ in ROWS]
    told = told_by("triton", keyed_api, ids=ids)
    assert told["ready"] == [True, True, True, True, False]
    assert (told["server"], told["inputs"]) == ("selfheal", list(ROWS[0]))
    assert len(told["probabilities"]) == 5
    assert {way: found for way, found in told["probabilities"].items() if found != expected} == {}
    assert told["single precision"] == pytest.approx(expected, rel=1e-5)
    assert told["single precision"] != expected
    assert (told["request id"], told["ids"], told["versions"]) == ("42", ids, [1] * len(ROWS))
    assert told["retried"] == expected
    logged = [line for line in journal_rows(keyed_api.settings) if line["prediction_id"] in ids]
    assert [line["request_source"] for line in logged] == ["triton"] * len(ROWS)

    errors = told["errors"]
    assert errors["unknown input"][0] == errors["wrong value"][0] == "400"
    assert "inputs.colour: is no input" in errors["unknown input"][1]
    assert "row 0, restarts: Input should be greater than or equal to 0" in errors["wrong value"][1]
    assert errors["unknown model"] == [
        "404",
        "model 'churn' is not served here; call /v2/models/machine_failure/infer",
    ]
    assert errors["no key"] == errors["no key for metadata"]
    assert errors["no key"][0] == "401"
    assert errors["compressed"] == ["415", "send the body unencoded, without Content-Encoding"]


def test_kserves_client_scores_in_json_and_binary(keyed_api: Api, expected: list[float]) -> None:
    told = told_by("kserve_rest", keyed_api)
    assert told["ready"] == [True, True, True, False]
    assert told["probabilities"] == {"JSON": expected, "binary": expected}
    assert told["errors"]["wrong value"].startswith("row 0, restarts: Input should be greater than or equal to 0")
    assert told["errors"]["unknown model"].startswith("model 'churn' is not served here")


def test_mlservers_codecs_and_its_batch_client_score(keyed_api: Api, expected: list[float]) -> None:
    told = told_by("mlserver_codecs", keyed_api)
    ways = ("frame", "array", "infer", "infer in binary")
    assert told["probabilities"] == dict.fromkeys(ways, expected)
    status, error = told["errors"]["wrong value"]
    assert status == 400
    assert error.startswith("row 0, restarts: Input should be greater than or equal to 0")
