"""MLflow's scoring server by its own client, and MLflow's deployments client, unchanged."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
import pytest
import requests
from pydantic import SecretStr

from selfheal.settings import Settings
from tests.serving.history import API_KEYS, READER, SCORER
from tests.serving.running import Api, api_in_thread, bodies

pytestmark = pytest.mark.filterwarnings("ignore")
FRAME = pd.DataFrame(bodies(4, seed=21), columns=["temperature_c", "load_ratio", "restarts"])


@pytest.fixture(autouse=True)
def _environment() -> Iterator[None]:
    """What MLflow's import leaves in the environment is not for other tests."""
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


def scoring_client(api: Api) -> Any:
    from mlflow.pyfunc.scoring_server.client import ScoringServerClient

    return ScoringServerClient(api.client.base_url.host, api.client.base_url.port)


def deployments_client(api: Api) -> Any:
    from mlflow.deployments import get_deploy_client

    return get_deploy_client(str(api.client.base_url).rstrip("/"))


def expected(api: Api) -> list[float]:
    instances = FRAME.astype(object).where(FRAME.notna(), None).to_dict(orient="records")
    return [one["probability"] for one in api.post("/predict/batch", {"instances": instances}).json()["predictions"]]


def test_mlflows_scoring_client_scores_frames_arrays_and_records(shared_api: Api) -> None:
    client = scoring_client(shared_api)
    client.wait_server_ready(timeout=10)
    assert client.get_version().startswith("3.")
    for data in (FRAME, FRAME.to_numpy(), json.dumps({"dataframe_records": FRAME.to_dict(orient="records")})):
        found = client.invoke(data).get_predictions()
        assert found["probability"].tolist() == expected(shared_api)
        assert found["prediction_id"].is_unique
    from_desk = client.invoke(FRAME, params={"request_source": "desk"}).get_predictions()
    assert from_desk["probability"].tolist() == expected(shared_api)


def test_mlflows_scoring_client_is_told_what_is_wrong(shared_api: Api) -> None:
    with pytest.raises(Exception, match=r"error code 400, response: .*row 0, restarts: Input should be greater"):
        scoring_client(shared_api).invoke(FRAME.assign(restarts=-1))
    with pytest.raises(Exception, match=r"inputs\[1\]|unknown input; the inputs are temperature_c, load_ratio"):
        scoring_client(shared_api).invoke(FRAME.rename(columns={"restarts": "starts"}))


def test_mlflows_deployments_client_finds_the_model_and_scores(shared_api: Api) -> None:
    client = deployments_client(shared_api)
    assert [one.name for one in client.list_endpoints()] == ["machine_failure"]
    assert client.get_endpoint("machine_failure").endpoint_url.endswith("/endpoints/machine_failure/invocations")
    full = FRAME.fillna({"temperature_c": 60.0})
    found = client.predict(endpoint="machine_failure", inputs={"dataframe_split": full.to_dict(orient="split")})[
        "predictions"
    ]
    batch = shared_api.post("/predict/batch", {"instances": full.to_dict(orient="records")}).json()["predictions"]
    assert np.array_equal([one["probability"] for one in found], [one["probability"] for one in batch])


def test_mlflows_deployments_client_is_told_what_is_wrong(shared_api: Api) -> None:
    client = deployments_client(shared_api)
    with pytest.raises(requests.HTTPError, match="model 'churn' is not served here; call /endpoints/machine_failure"):
        client.predict(endpoint="churn", inputs={"inputs": [[1.0, 0.5, 1]]})
    with pytest.raises(
        requests.HTTPError, match="endpoint 'churn' is not served here; the one endpoint is machine_failure"
    ):
        client.get_endpoint("churn")


def test_a_line_break_names_no_endpoint(shared_api: Api) -> None:
    assert shared_api.client.get("/api/2.0/endpoints/%0A").status_code == 404


def test_mlflows_deployments_client_sends_its_token_as_the_key(
    api_settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    logging.getLogger("urllib3").setLevel(logging.ERROR)
    with api_in_thread(api_settings.model_copy(update={"api_keys": SecretStr(API_KEYS)})) as api:
        client = deployments_client(api)
        row = {"inputs": [[60.0, 0.5, 1]]}
        monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", SCORER)
        assert len(client.predict(endpoint="machine_failure", inputs=row)["predictions"]) == 1
        monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", READER)
        with pytest.raises(requests.HTTPError, match="lacks the scope score"):
            client.predict(endpoint="machine_failure", inputs=row)
