"""Dagster's own pages: what no web page of another origin, and nobody without a key, may ask of them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from selfheal.kit.api_keys import new_api_key
from selfheal.settings import Settings, load_settings
from selfheal_assets.webserver import dagster_pages

KEY = new_api_key()
OWN = "http://127.0.0.1:3000"
LAUNCH = """
mutation { launchRun(executionParams: {
  selector: {repositoryLocationName: "none", repositoryName: "none", jobName: "harmless"}, runConfigData: {}
}) { __typename } }
"""
"""Asks for a run of a job that does not exist: harmless, and answered differently if it is not even looked for."""


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Clients of Dagster's real application with an instance of its own, without and with keys."""
    home = tmp_path_factory.mktemp("dagster_home")
    (home / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    workspace = home / "workspace.yaml"
    workspace.write_text("load_from: []\n")
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("DAGSTER_HOME", str(home))
        yield lambda settings: dagster_pages(settings, str(workspace))


@pytest.fixture(scope="module")
def client(pages: Any) -> Iterator[TestClient]:
    with pages(load_settings()) as app:
        yield TestClient(app, base_url=OWN)


@pytest.fixture(scope="module")
def locked(pages: Any) -> Iterator[TestClient]:
    with pages(load_settings(api_keys=SecretStr(KEY))) as app:
        yield TestClient(app, base_url=OWN)


def launch(client: TestClient, **headers: str) -> Any:
    return client.post("/graphql", json={"query": LAUNCH}, headers={k.replace("_", "-"): v for k, v in headers.items()})


def is_answered_by_dagster(answer: Any) -> bool:
    return bool(answer.json().get("data", {}).get("launchRun", {}).get("__typename"))


def test_a_run_is_launched_by_programs_and_by_dagsters_own_pages(client: TestClient) -> None:
    assert is_answered_by_dagster(launch(client))
    assert is_answered_by_dagster(launch(client, Origin=OWN))


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "http://127.0.0.1:8000"},
        {"Origin": "null"},
        {"Host": "evil.example:3000", "Origin": "http://evil.example:3000"},
    ],
    ids=str,
)
def test_a_run_that_a_foreign_page_asks_for_is_refused(client: TestClient, headers: dict[str, str]) -> None:
    answer = launch(client, **headers)
    assert answer.status_code == 403
    assert answer.json()["type"] in {"foreign_origin", "foreign_host"}


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_no_image_or_link_runs_a_query(client: TestClient, method: str) -> None:
    """A browser sends no Origin with it."""
    for accept in ("image/avif,image/webp,*/*;q=0.8", "*/*"):
        answer = client.request(method, "/graphql", params={"query": LAUNCH}, headers={"Accept": accept})
        assert answer.status_code == 405
    page = client.get("/graphql", params={"query": LAUNCH}, headers={"Accept": "text/html"})
    assert page.headers["content-type"].startswith("text/html"), "the page to try queries on runs nothing by itself"


def test_a_foreign_page_gets_no_websocket(client: TestClient) -> None:
    own = {"Host": OWN.removeprefix("http://"), "Origin": OWN}
    with client.websocket_connect("/graphql", subprotocols=["graphql-ws"], headers=own) as websocket:
        websocket.send_json({"type": "connection_init"})
        assert websocket.receive_json() == {"type": "connection_ack"}
    with (
        pytest.raises(WebSocketDisconnect),
        client.websocket_connect("/graphql", headers=own | {"Origin": "https://evil.example"}),
    ):
        pass


def test_with_keys_every_page_asks_for_one(locked: TestClient) -> None:
    assert launch(locked).status_code == 401
    assert locked.get("/runs").status_code == 401
    assert locked.get("/server_info").status_code == 200
    assert is_answered_by_dagster(launch(locked, X_API_Key=KEY))
    assert locked.get("/graphql", headers={"Accept": "text/html"}, auth=("anyone", KEY)).status_code == 200
    assert launch(locked, X_API_Key=KEY, Origin="https://evil.example").status_code == 403


def test_the_name_that_a_proxy_shows_is_its_own(pages: Any, tmp_path: Path) -> None:
    public = "https://dagster.example"
    with pages(Settings(_env_file=None, data_dir=tmp_path, dagster_public_url=public)) as app:
        client = TestClient(app, base_url=OWN)
        assert is_answered_by_dagster(launch(client, Origin=public))
        assert launch(client, Origin="https://other.example").status_code == 403
