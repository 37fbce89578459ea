"""MLflow's pages keep the rules of our API; that `up` serves them so is in `tests/test_end_to_end.py`."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from starlette.testclient import TestClient

from selfheal.adapters.mlflow_pages import APP_NAME, create_app, main
from selfheal.kit.api_keys import new_api_key
from selfheal.kit.errors import ConfigurationError

KEY = new_api_key()
OWN = "http://127.0.0.1:5000"


@pytest.fixture
def client() -> Iterator[TestClient]:
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("API_KEYS", KEY)
        patched.setenv("MLFLOW_PUBLIC_URL", "https://mlflow.example")
        yield TestClient(create_app(), base_url=OWN)  # type: ignore[arg-type]


def test_with_keys_mlflow_asks_for_one_and_is_open_to_its_own_pages_only(client: TestClient) -> None:
    assert client.get("/health").status_code == 200
    assert client.get("/").status_code == 401
    bearer = {"Authorization": f"Bearer {KEY}"}  # what MLFLOW_TRACKING_TOKEN sends
    assert client.get("/version", headers=bearer).status_code == 200
    for origin, status in ((OWN, 200), ("https://mlflow.example", 200), ("http://127.0.0.1:3000", 403)):
        assert client.get("/version", headers=bearer | {"Origin": origin}).status_code == status


def test_mlflow_is_started_with_our_application(monkeypatch: pytest.MonkeyPatch) -> None:
    from mlflow import cli, server
    from mlflow.server import handlers

    started: list[dict[str, object]] = []
    (option,) = (option for option in cli.server.params if option.name == "app_name")
    monkeypatch.setattr(option, "type", option.type)
    monkeypatch.setattr(server, "_find_app", server._find_app)
    monkeypatch.setattr(server, "_run_server", lambda **options: started.append(options))
    monkeypatch.setattr(handlers, "initialize_backend_stores", lambda *_, **__: None)
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    monkeypatch.setenv("API_KEYS", "")
    with pytest.raises(SystemExit) as left:
        main(["--port", "5001", "--backend-store-uri", "sqlite://"])
    assert left.value.code in {0, None}
    assert [(one["port"], one["app_name"]) for one in started] == [(5001, APP_NAME)]
    assert server._find_app(APP_NAME) == "selfheal.adapters.mlflow_pages:create_app"
    assert server._is_factory(server._find_app(APP_NAME))


@pytest.mark.parametrize("begin", [create_app, lambda: main(["--port", "5001"])])
def test_without_a_word_about_keys_in_the_environment_no_page_is_served(
    begin: Callable[[], object], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`.env` may have keys, which nothing here reads."""
    monkeypatch.delenv("API_KEYS", raising=False)
    with pytest.raises((ConfigurationError, SystemExit)) as refused:
        begin()
    said = str(refused.value) if isinstance(refused.value, ConfigurationError) else capsys.readouterr().err
    assert "API_KEYS is not in the environment" in said
    assert len(said.splitlines()) == 1
    assert not isinstance(refused.value, SystemExit) or refused.value.code == 2
