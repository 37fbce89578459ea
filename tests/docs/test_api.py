"""docs/api.md agrees with the OpenAPI document, with the doors, and with the errors in the code."""

from __future__ import annotations

import ast
import asyncio
import hashlib
from collections.abc import Iterator
from http import HTTPStatus
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from selfheal.kit.api_keys import Scope
from selfheal.settings import load_settings
from serving.app import create_app
from serving.schemas.problems import KINDS
from tests.docs.pages import codes, table
from tests.processes import REPOSITORY

PAGE = "docs/api.md"
PLACES = {
    "{alert_id}": "0198f0f0-5c1e-7000-8000-000000000001",
    "{name}": "a",
    "{model}": "a",
    "{version}": "1",
    "{decision_id}": "a",
    "{column}": "a",
}
ENDPOINTS = [(*codes(row[0])[0].split(), row[1], codes(row[2])) for row in table(PAGE, "endpoint")]
METHODS = {"get", "post", "put", "patch", "delete"}


@pytest.fixture(scope="module")
def app() -> FastAPI:
    """An app with a key for each scope, and one for all others; nothing behind its doors is started."""
    app = create_app(load_settings(use_case="tests.toy_use_case:contract", api_keys=",".join(entries())))
    app.state.service = None  # whoever gets past a door fails at it
    return app


def entries() -> Iterator[str]:
    for scope in Scope:
        others = "+".join(other for other in Scope if other is not scope)
        for name, scopes in ((f"only-{scope}", scope.value), (f"all-but-{scope}", others)):
            yield f"{name}:{scopes}:{hashlib.sha256(name.encode()).hexdigest()}"


def status_of(app: FastAPI, method: str, path: str, key: str | None) -> int:
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    for place, value in PLACES.items():
        path = path.replace(place, value)

    async def ask() -> int:
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            answer = await client.request(method, path, headers={} if key is None else {"X-API-Key": key})
        return answer.status_code

    return asyncio.run(ask())


def operations(app: FastAPI) -> dict[tuple[str, str], dict[str, Any]]:
    paths = app.openapi()["paths"]
    return {(m.upper(), path): paths[path][m] for path in paths for m in paths[path] if m in METHODS}


def test_the_table_has_every_endpoint_of_the_openapi_document(app: FastAPI) -> None:
    assert {(method, path) for method, path, _, _ in ENDPOINTS} == set(operations(app))
    assert len(ENDPOINTS) == len(operations(app))


@pytest.mark.parametrize(("method", "path", "scope", "takes"), ENDPOINTS, ids=str)
def test_a_query_parameter_is_listed_with_its_endpoint(
    app: FastAPI, method: str, path: str, scope: str, takes: list[str]
) -> None:
    parameters = operations(app)[method, path].get("parameters", [])
    assert {p["name"] for p in parameters if p["in"] == "query"} <= set(takes)
    if method == "GET":
        assert {p["name"] for p in parameters if p["in"] == "query"} == set(takes)


@pytest.mark.parametrize(("method", "path", "scope", "takes"), ENDPOINTS, ids=str)
def test_an_endpoint_asks_for_the_scope_that_is_listed(
    app: FastAPI, method: str, path: str, scope: str, takes: list[str]
) -> None:
    refusals = {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}
    if scope == "none":
        assert status_of(app, method, path, None) not in refusals
        return
    assert status_of(app, method, path, None) == HTTPStatus.UNAUTHORIZED
    assert status_of(app, method, path, f"all-but-{scope}") == HTTPStatus.FORBIDDEN
    assert status_of(app, method, path, f"only-{scope}") not in refusals


def kinds_in_code() -> Iterator[tuple[int, str]]:
    """Status and kind of each problem whose kind stands where it is made."""
    for path in (REPOSITORY / "serving").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "ProblemError":
                status, *rest = node.args
                if rest and isinstance(status, ast.Constant) and isinstance(rest[0], ast.Constant):
                    yield int(status.value), str(rest[0].value)
    yield from KINDS.items()


def test_every_kind_of_error_is_listed_with_its_status() -> None:
    listed = {kind: row[1] for row in table(PAGE, "`type`") for kind in codes(row[0])}
    folders = (REPOSITORY / "serving", REPOSITORY / "selfheal" / "kit")
    source = "".join(path.read_text() for folder in folders for path in folder.rglob("*.py"))
    assert [kind for kind in listed if f'"{kind}"' not in source] == []
    found = set(kinds_in_code())
    assert len(found) > 15
    assert [(status, kind) for status, kind in found if str(status) not in listed.get(kind, "")] == []


def test_every_status_that_openapi_announces_has_a_kind_here(app: FastAPI) -> None:
    listed = " ".join(row[1] for row in table(PAGE, "`type`"))
    announced = {status for operation in operations(app).values() for status in operation["responses"]}
    assert {status for status in announced if status >= "400" and status not in listed} == set()


def test_every_scope_is_explained() -> None:
    assert [codes(row[0])[0] for row in table(PAGE, "scope")] == [scope.value for scope in Scope]
