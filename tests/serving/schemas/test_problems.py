"""What is refused, at every door: a problem document that names the field, nothing journaled, nothing internal."""

from __future__ import annotations

import gzip
import json
import math
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from serving.schemas.problems import ProblemError, problem_for
from serving.schemas.requests import MAX_BATCH_ROWS, MAX_LABELS
from serving.security.body_limit import MAX_BODY_BYTES
from tests.serving.running import Api, bodies, journal_rows, label_rows

GOOD = {"temperature_c": 61.5, "load_ratio": 0.7, "restarts": 1}
SOME_ID = "0198f0f0-5c1e-7000-8000-000000000000"
PATHS = ("/predict", "/predict/batch", "/labels")
INTERNALS = ("Traceback", "/home", "/tmp", "/site-packages", ".py", "SELECT ", "sqlalchemy", "psycopg", "pydantic")

BAD_FIELDS: list[tuple[str, Any]] = [
    ("colour", "red"),
    ("load_ratio", "0.7"),
    ("load_ratio", None),
    ("load_ratio", True),
    ("load_ratio", [0.7]),
    ("load_ratio", {"value": 0.7}),
    ("load_ratio", math.nan),
    ("load_ratio", math.inf),
    ("load_ratio", -math.inf),
    ("load_ratio", 5.000001),
    ("load_ratio", -1e-9),
    ("load_ratio", 10**400),
    ("temperature_c", False),
    ("temperature_c", -50.1),
    ("restarts", 1.5),
    ("restarts", True),
    ("restarts", 1_001),
    ("restarts", -1),
    ("Temp-C", 61.5),  # twice, under two names
    ("request_source", "two,fields"),
    ("request_source", "a\nline"),
    ("request_source", ""),
    ("request_source", 'quo"te'),
    ("request_source", 7),
    ("request_source", None),
    ("x" * 5_000, 1),
]


def assert_problem(answer: httpx.Response, status: int, field: str | None = None) -> dict[str, Any]:
    """A problem document of this status that names the field and gives nothing internal away."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    problem: dict[str, Any] = answer.json()
    assert problem["status"] == status
    assert problem["type"]
    assert problem["title"]
    assert problem["detail"]
    if field is not None:
        assert [error["field"] for error in problem["errors"]] == [field]
        assert field in problem["detail"]
    leaked = [word for word in INTERNALS if word in answer.text]
    assert not leaked
    return problem


def send(api: Api, path: str, content: bytes, content_type: str = "application/json") -> httpx.Response:
    return api.client.post(path, content=content, headers={"Content-Type": content_type})


@pytest.mark.parametrize(("field", "value"), BAD_FIELDS, ids=lambda value: str(value)[:24])
def test_a_wrong_field_is_named_and_nothing_is_journaled(shared_api: Api, field: str, value: Any) -> None:
    before = len(journal_rows(shared_api.settings))
    body = json.dumps(GOOD | {field: value}).encode()  # NaN and Infinity go out as Python's json spells them
    assert_problem(send(shared_api, "/predict", body), 422, field[:200])
    batch = json.dumps({"instances": [GOOD | {field: value}]}).encode()
    answer = send(shared_api, "/predict/batch", batch)
    assert answer.status_code == 200
    assert [(error["row"], error["field"]) for error in answer.json()["errors"]] == [(0, field[:200])]
    assert len(answer.text) < 1_000
    assert len(journal_rows(shared_api.settings)) == before


def test_a_missing_field_is_named(shared_api: Api) -> None:
    assert_problem(shared_api.post("/predict", {"load_ratio": 0.7}), 422, "restarts")


def test_every_wrong_field_is_listed(shared_api: Api) -> None:
    problem = assert_problem(shared_api.post("/predict", {"load_ratio": "high", "restarts": -1, "colour": 1}), 422)
    assert {error["field"] for error in problem["errors"]} == {"load_ratio", "restarts", "colour"}


NOT_JSON = [
    b"",
    b"{",
    b"nothing",
    b'{"load_ratio": 0.7,}',
    b'{"load_ratio": \xff\xfe}',
    b'{"\xc3\x28": 1}',
    b'{"load_ratio": ' + b"9" * 5_000 + b', "restarts": 1}',
    b"[" * 200_000,
    b'{"\\ud800": 1}',
    b'{"load_ratio": "\\ud800", "restarts": 1}',
    b"[]",
    b"null",
    b"7",
    b'"text"',
    b"true",
]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("content", NOT_JSON, ids=lambda content: repr(content[:24]))
def test_a_body_that_is_no_json_object_is_a_problem_and_not_a_failure(
    shared_api: Api, path: str, content: bytes
) -> None:
    before = len(journal_rows(shared_api.settings)), len(label_rows(shared_api.settings))
    assert_problem(send(shared_api, path, content), 422)
    assert (len(journal_rows(shared_api.settings)), len(label_rows(shared_api.settings))) == before


@pytest.mark.parametrize("path", PATHS)
def test_bad_json_is_told_where(shared_api: Api, path: str) -> None:
    problem = assert_problem(send(shared_api, path, b'{"load_ratio": 0.7,,}'), 422, "body")
    assert "line 1 column 20" in problem["detail"]


@pytest.mark.parametrize("key", [b"\\ud800", b"caf\xc3\xa9", b"a\\u0000b", b"a\\nb"])
@pytest.mark.parametrize(
    ("path", "form"), [("/predict", b'{"%s": 1}'), ("/predict/batch", b'{"instances": [{"%s": 1}]}')]
)
def test_no_key_a_client_can_think_of_breaks_the_answer(shared_api: Api, path: str, form: bytes, key: bytes) -> None:
    answer = send(shared_api, path, form % key)
    assert answer.status_code in {200, 400, 422}, answer.text
    if answer.status_code == 200:
        assert answer.json()["predictions"] == [None]


TEMPLATES: dict[str, tuple[str, str]] = {
    "/predict": ('{"temperature_c": 61.5, "load_ratio": %s, "restarts": 1}', "load_ratio"),
    "/predict/batch": ('{"instances": [{"temperature_c": 61.5, "load_ratio": %s, "restarts": 1}]}', "load_ratio"),
    "/labels": (f'{{"prediction_id": "{SOME_ID}", "true_label": %s}}', "true_label"),
}
"""A body that is good but for one value, and the field that has it."""

HOSTILE_VALUES = {
    "nan": "NaN",
    "infinity": "Infinity",
    "minus infinity": "-Infinity",
    "beyond a double": "1e999",
    "below a double": "-1e999",
    "400 digits": "9" * 400,
    "5000 digits": "9" * 5_000,
    "5000 decimals and an exponent": "0." + "9" * 5_000 + "e999",
    "text": '"0.7"',
    "text with a surrogate": '"\\ud800"',
    "text with a zero byte": '"\\u0000"',
    "yes": "true",
    "list": "[1]",
    "object": '{"value": 1}',
    "leading zeros": "007",
    "comment": "1 // one",
    "hexadecimal": "0x1",
    "100 deep": "[" * 100 + "]" * 100,
    "900 deep": "[" * 900 + "]" * 900,
    "990 deep": "[" * 990 + "]" * 990,
    "2000 deep": '{"a":' * 2_000 + "1" + "}" * 2_000,
    "100000 deep": "[" * 100_000 + "]" * 100_000,
}


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("value", HOSTILE_VALUES)
def test_a_hostile_value_is_refused_by_the_name_of_its_field_or_of_the_body(
    shared_api: Api, path: str, value: str
) -> None:
    """A row of a batch is refused by itself where the whole could be read."""
    before = len(journal_rows(shared_api.settings)), len(label_rows(shared_api.settings))
    template, field = TEMPLATES[path]
    answer = send(shared_api, path, (template % HOSTILE_VALUES[value]).encode())
    if answer.status_code == 200:
        problem = answer.json()
        assert problem["predictions"] == [None]
    else:
        problem = assert_problem(answer, 422)
    assert {error["field"] for error in problem["errors"]} <= {field, "body"}
    assert problem["errors"]
    assert len(answer.text) < 1_000
    assert (len(journal_rows(shared_api.settings)), len(label_rows(shared_api.settings))) == before


OTHER_TYPES = ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "text/json", ""]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("content_type", OTHER_TYPES)
def test_another_content_type_is_refused(shared_api: Api, path: str, content_type: str) -> None:
    before = len(journal_rows(shared_api.settings))
    body = (TEMPLATES[path][0] % 1).encode()
    problem = assert_problem(send(shared_api, path, body, content_type), 415)
    assert "application/json" in problem["detail"]
    assert len(journal_rows(shared_api.settings)) == before


@pytest.mark.parametrize("path", PATHS)
def test_a_compressed_body_is_refused_and_not_unpacked(shared_api: Api, path: str) -> None:
    headers = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
    answer = shared_api.client.post(path, content=gzip.compress(b"{}"), headers=headers)
    assert "Content-Encoding" in assert_problem(answer, 415)["detail"]


@pytest.mark.parametrize("content_type", ["application/json; charset=utf-8", "APPLICATION/JSON", "application/x+json"])
def test_json_under_its_other_names_is_scored(shared_api: Api, content_type: str) -> None:
    assert send(shared_api, "/predict", json.dumps(GOOD).encode(), content_type).status_code == 200


def test_a_batch_of_more_rows_than_allowed_is_refused_whole(shared_api: Api) -> None:
    before = len(journal_rows(shared_api.settings))
    answer = shared_api.post("/predict/batch", {"instances": [GOOD] * (MAX_BATCH_ROWS + 1)})
    problem = assert_problem(answer, 422, "instances")
    assert str(MAX_BATCH_ROWS) in problem["detail"]
    assert_problem(shared_api.post("/predict/batch", {"instances": []}), 422, "instances")
    assert_problem(shared_api.post("/predict/batch", {"instances": [GOOD], "priority": 1}), 422, "priority")
    assert len(journal_rows(shared_api.settings)) == before


def test_the_largest_batch_fits_into_a_body() -> None:
    largest_allowed = json.dumps({"instances": [dict.fromkeys(map("f{:030}".format, range(10)), 0.5)] * MAX_BATCH_ROWS})
    assert len(largest_allowed) < MAX_BODY_BYTES


@pytest.mark.parametrize("row", [7, "text", None, True, [GOOD], []])
def test_a_row_that_is_no_object_is_refused_by_its_place(shared_api: Api, row: Any) -> None:
    answer = shared_api.post("/predict/batch", {"instances": [GOOD, row]}).json()
    assert [one is None for one in answer["predictions"]] == [False, True]
    assert answer["errors"] == [{"row": 1, "field": "body", "message": "Input should be an object"}]


BAD_LABELS: list[tuple[str, Any]] = [
    ("true_label", 2),
    ("true_label", -1),
    ("true_label", "1"),
    ("true_label", None),
    ("true_label", True),
    ("true_label", 0.5),
    ("prediction_id", "not-an-id"),
    ("prediction_id", 7),
    ("labelled_at", "2026-03-02T12:00:00"),
    ("labelled_at", "yesterday"),
    ("labelled_at", 5),
    ("labelled_at", "5"),
    ("labelled_at", "-1.5e9"),
    ("labelled_at", "1767225600000"),
    ("labelled_at", "9999-12-31T23:59:59-14:00"),
    ("labelled_at", "0001-01-01T00:00:00+14:00"),
    ("label_source", "two,fields"),
    ("is_correction", "yes"),
    ("is_correction", 1),
    ("note", "late"),
]


@pytest.mark.parametrize(("field", "value"), BAD_LABELS, ids=lambda value: str(value)[:24])
def test_a_wrong_label_is_named_and_nothing_of_its_call_is_kept(shared_api: Api, field: str, value: Any) -> None:
    before = len(label_rows(shared_api.settings))
    label = {"prediction_id": SOME_ID, "true_label": 1}
    assert_problem(shared_api.post("/labels", label | {field: value}), 422, field)
    answer = shared_api.post("/labels", {"labels": [label, label | {field: value}]})
    assert_problem(answer, 422, f"labels.1.{field}")
    assert len(label_rows(shared_api.settings)) == before


def test_more_labels_than_allowed_are_refused(shared_api: Api) -> None:
    label = {"prediction_id": SOME_ID, "true_label": 1}
    assert_problem(shared_api.post("/labels", {"labels": [label] * (MAX_LABELS + 1)}), 422, "labels")
    assert_problem(shared_api.post("/labels", {"labels": []}), 422, "labels")


@pytest.mark.parametrize("path", ["/nothing", "/predict/", "/predict/batch/1", "/predict%00", "/PREDICT", "//predict"])
def test_a_path_that_does_not_exist_is_a_problem_document_too(shared_api: Api, path: str) -> None:
    address = str(shared_api.client.base_url).rstrip("/") + path  # httpx takes what follows two slashes for a host
    answer = shared_api.client.post(address, json=GOOD)
    if answer.status_code == 307:  # a slash too many
        assert answer.headers["location"].endswith("/predict")
        return
    assert assert_problem(answer, 404)["type"] == "not_found"


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "OPTIONS", "TRACE", "PURGE"])
def test_another_method_is_told_which_one_is_allowed(shared_api: Api, path: str, method: str) -> None:
    answer = shared_api.client.request(method, path)
    assert answer.headers["allow"] == "POST"
    if method == "HEAD":
        assert answer.status_code == 405
    else:
        assert assert_problem(answer, 405)["type"] == "method_not_allowed"


def test_a_problem_becomes_an_answer_with_its_headers() -> None:
    error = ProblemError(429, "slow_down", "later", retry_after_seconds=3, headers={"X-Why": "because"}, errors=[])
    answer = problem_for(error)
    assert answer.status_code == 429
    assert (answer.headers["retry-after"], answer.headers["x-why"]) == ("3", "because")
    told = {"type": "slow_down", "title": "Too Many Requests", "status": 429, "detail": "later", "errors": []}
    assert json.loads(bytes(answer.body)) == told


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=6,
)
field_names = st.sampled_from([*GOOD, "Temp-C", "request_source", "instances", "labels", "prediction_id", "true_label"])


@hypothesis_settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    path=st.sampled_from(PATHS),
    body=json_values | st.dictionaries(field_names, json_values, max_size=4).map(lambda fields: GOOD | fields),
)
def test_no_json_whatever_makes_the_service_fail(shared_api: Api, path: str, body: Any) -> None:
    answer = send(shared_api, path, json.dumps(body).encode())
    assert answer.status_code in {200, 400, 422}, answer.text
    answer.json()


def test_a_failure_inside_says_nothing_about_the_inside(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("SELECT secret FROM /home/somebody")

    monkeypatch.setattr("serving.scoring.micro_batcher.MicroBatcher._score", broken)
    problem = assert_problem(api.post("/predict", bodies(1)[0]), 500)
    assert problem["type"] == "internal_error"
    assert "secret" not in json.dumps(problem)
    monkeypatch.undo()
    assert api.post("/predict", bodies(1)[0]).status_code == 200
