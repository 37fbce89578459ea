"""The application as a whole: what importing it costs, and what its documentation says."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from typing import Any

import pytest

from selfheal.settings import load_settings
from serving.app import create_app
from tests import toy_use_case
from tests.serving.running import REPOSITORY, Api

HEAVY = ("dagster", "evidently", "mlflow", "pandas", "sklearn")
ENDPOINTS = {
    ("POST", "/predict"),
    ("POST", "/predict/batch"),
    ("POST", "/labels"),
    ("GET", "/health"),
    ("GET", "/health/live"),
    ("GET", "/health/ready"),
    ("GET", "/model/info"),
    ("GET", "/model/versions"),
    ("GET", "/monitoring/stats"),
    ("GET", "/monitoring/drift"),
    ("GET", "/monitoring/alerts"),
    ("POST", "/monitoring/alerts/{alert_id}/acknowledge"),
    ("GET", "/decisions"),
    ("GET", "/decisions/{decision_id}"),
    ("GET", "/live/schema"),
    ("GET", "/overview"),
    ("GET", "/monitoring/history"),
    ("GET", "/monitoring/drift/{column}"),
}


def test_importing_the_app_pulls_in_nothing_heavy() -> None:
    code = f"import sys, serving.app; print([name for name in {HEAVY} if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


@pytest.fixture(scope="module")
def openapi() -> dict[str, Any]:
    return create_app(load_settings(use_case="tests.toy_use_case:contract")).openapi()


def test_openapi_lists_every_endpoint_with_a_description(openapi: dict[str, Any]) -> None:
    listed = {(method.upper(), path) for path, methods in openapi["paths"].items() for method in methods}
    assert listed >= ENDPOINTS
    for path, methods in openapi["paths"].items():
        for method, operation in methods.items():
            assert operation.get("description"), f"{method} {path} says nothing of itself"


def test_openapi_names_every_feature_with_its_unit_and_limits(openapi: dict[str, Any]) -> None:
    properties = openapi["components"]["schemas"]["PredictRequest"]["properties"]
    assert set(properties) == {*toy_use_case.contract.input_names, "request_source", "prediction_id", "explain"}
    for feature in toy_use_case.contract.inputs:
        shown = properties[feature.name]
        number = shown["anyOf"][0] if feature.is_nullable else shown
        assert feature.unit in shown["description"]
        assert (number["minimum"], number["maximum"]) == (feature.lower, feature.upper)


def test_openapi_references_nothing_that_is_not_there(openapi: dict[str, Any]) -> None:
    for reference in re.findall(r'"\$ref": "([^"]*)"', json.dumps(openapi)):
        assert reference.startswith("#/components/schemas/")
        assert reference.rpartition("/")[2] in openapi["components"]["schemas"]


def test_the_examples_in_openapi_are_answered_with_200(shared_api: Api) -> None:
    document = shared_api.client.get("/openapi.json").json()
    for path in ("/predict", "/predict/batch", "/labels"):
        examples = list(_examples(document, path))
        assert examples, f"{path} has no example"
        for example in examples:
            answer = shared_api.post(path, example)
            assert answer.status_code == 200, answer.text
            assert answer.json().get("errors", []) == []


def test_errors_are_documented_as_the_problem_documents_they_are(shared_api: Api, openapi: dict[str, Any]) -> None:
    documented = openapi["paths"]["/predict"]["post"]["responses"]["422"]["content"]
    (media_type,) = documented
    answer = shared_api.post("/predict", {"colour": "red"})
    assert answer.headers["content-type"] == media_type == "application/problem+json"
    name = documented[media_type]["schema"]["$ref"].rpartition("/")[2]
    assert set(answer.json()) == set(openapi["components"]["schemas"][name]["properties"])


@pytest.mark.parametrize("page", ["/docs", "/redoc"])
def test_the_documentation_pages_load_nothing_from_another_host(shared_api: Api, page: str) -> None:
    answer = shared_api.client.get(page)
    assert answer.status_code == 200
    assert re.findall(r"https?://[^\s\"']+", answer.text) == []
    loaded = re.findall(r"(?:src|href)=[\"']([^\"']+)[\"']", answer.text)
    assert loaded
    for path in loaded:
        assert path.startswith("/"), path
        assert shared_api.client.get(path).status_code == 200, path


def _examples(document: dict[str, Any], path: str) -> list[Any]:
    """The examples of a request body, its own or its schemas'."""
    content = document["paths"][path]["post"]["requestBody"]["content"]["application/json"]
    schema = content["schema"]
    references = [schema.get("$ref"), *(form.get("$ref") for form in schema.get("anyOf", []))]
    schemas = [document["components"]["schemas"][name.rpartition("/")[2]] for name in references if name]
    own = [example["value"] for example in content.get("examples", {}).values()]
    return [*own, *schema.get("examples", []), *(example for form in schemas for example in form.get("examples", []))]
