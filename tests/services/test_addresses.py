"""What `selfheal up` listens on, each under the setting that moves it."""

from __future__ import annotations

import pytest

from selfheal.services.addresses import addresses
from selfheal.settings import load_settings


def test_each_address_has_the_port_of_its_setting_and_can_be_opened_on_this_machine() -> None:
    settings = load_settings(api_host="0.0.0.0", api_port=8123, dagster_port=3001, mlflow_port=5001)
    assert {a.setting: a.url for a in addresses(settings)} == {
        "API_PORT": "http://127.0.0.1:8123",
        "DAGSTER_PORT": "http://127.0.0.1:3001",
        "MLFLOW_PORT": "http://127.0.0.1:5001",
    }


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("::1", "http://[::1]:8123"),
        ("::", "http://[::1]:8123"),
        ("0.0.0.0", "http://127.0.0.1:8123"),
        ("localhost", "http://localhost:8123"),
    ],
)
def test_the_address_of_the_api_is_one_that_a_browser_can_open(host: str, url: str) -> None:
    (api,) = (a for a in addresses(load_settings(api_host=host, api_port=8123)) if a.setting == "API_PORT")
    assert api.url == url


def test_a_tracking_server_that_runs_elsewhere_is_not_started_here() -> None:
    settings = load_settings(mlflow_tracking_uri="https://mlflow.example.org")
    assert "MLFLOW_PORT" not in {a.setting for a in addresses(settings)}
    store = load_settings(mlflow_tracking_uri="postgresql+psycopg2://host/mlflow")
    assert "MLFLOW_PORT" in {a.setting for a in addresses(store)}
