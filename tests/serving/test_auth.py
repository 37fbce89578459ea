"""Who gets in: keys, and the start that is refused without them."""

from __future__ import annotations

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from pydantic import SecretStr

from selfheal.errors import ConfigurationError
from selfheal.settings import load_settings
from serving.app import create_app
from serving.auth import refuse_open_door


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.1", "::", "example.test"])
def test_a_door_to_other_hosts_without_a_key_is_refused(host: str) -> None:
    with pytest.raises(ConfigurationError, match="API_KEYS"):
        refuse_open_door(load_settings(api_host=host))
    refuse_open_door(load_settings(api_host=host, api_keys=SecretStr("one")))


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "localhost"])
def test_loopback_needs_no_key(host: str) -> None:
    refuse_open_door(load_settings(api_host=host))


@pytest.fixture
def locked() -> FastAPI:
    """The app with two keys; its lifespan is not run, since a refused request never gets that far."""
    return create_app(load_settings(api_keys=SecretStr("first, second")))


@pytest.mark.parametrize("path", ["/predict", "/predict/batch", "/labels"])
@pytest.mark.parametrize("key", [None, "", "wrong", "first, second", "firs"])
def test_a_request_without_a_valid_key_is_refused(locked: FastAPI, path: str, key: str | None) -> None:
    headers = {} if key is None else {"X-API-Key": key}
    answer = TestClient(locked).post(path, json={}, headers=headers)
    assert answer.status_code == 401
    assert answer.headers["content-type"].startswith("application/problem+json")
    assert "first" not in answer.text


@pytest.mark.parametrize("key", ["first", "second"])
def test_each_key_opens(locked: FastAPI, key: str) -> None:
    """It gets as far as the body, which is wrong."""
    locked.state.service = None
    assert TestClient(locked).post("/labels", json={}, headers={"X-API-Key": key}).status_code == 422
