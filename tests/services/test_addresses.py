"""Rules of the addresses that `selfheal up` listens on: one per part, and each opens in a browser on this machine."""

from __future__ import annotations

from selfheal.services.addresses import addresses
from selfheal.settings import load_settings


def test_each_part_has_an_address_with_the_setting_that_moves_it() -> None:
    settings = load_settings(api_port=18_000, dagster_port=13_000, mlflow_port=15_000)
    assert {one.setting: one.port for one in addresses(settings)} == {
        "API_PORT": 18_000,
        "DAGSTER_PORT": 13_000,
        "MLFLOW_PORT": 15_000,
    }


def test_an_api_that_listens_on_all_interfaces_is_opened_at_loopback() -> None:
    assert {one.url for one in addresses(load_settings(api_host="0.0.0.0")) if one.setting == "API_PORT"} == {
        "http://127.0.0.1:8000"
    }
