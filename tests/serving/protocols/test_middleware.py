"""The real API by other protocols: the same journal, keys, limits and ids as `/predict`, and errors as their clients read them."""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from selfheal.domain.contract import FloatArray
from selfheal.settings import Settings
from serving.champion.holder import Champion
from serving.protocols.errors import ERROR_CODES, Protocol, in_form_of, protocol_of
from serving.protocols.middleware import MAX_INLINE_BYTES
from serving.protocols.openapi import HEADER_PARAMETER
from serving.security.auth import Scope
from tests.serving.history import ADA, API_KEYS, READER, SCORER
from tests.serving.protocols.encoding import (
    INFER,
    WAYS,
    Encoded,
    binary_tensors,
    dataframe_records,
    tensors,
)
from tests.serving.running import Api, api_in_thread, bodies, journal_rows
from tests.serving.scoring.test_explanations import holder_of
from tests.serving.test_tracing import Collector, collector, traced  # noqa: F401 (a fixture)

GOOD = {"temperature_c": 61.5, "load_ratio": 0.7, "restarts": 1}
ENDPOINT = "/endpoints/machine_failure/invocations"
TIMES = {"created_at", "latency_ms"}


def send(api: Api, encoded: Encoded, path: str | None = None, **headers: str) -> httpx.Response:
    return api.client.post(path or encoded.path, content=encoded.body, headers=encoded.headers | headers)


def lines_of(api: Api, ids: Sequence[str]) -> list[dict[str, str]]:
    """The journal's lines of these predictions, but for when they were made."""
    lines = {line["prediction_id"]: line for line in journal_rows(api.settings)}
    return [{name: value for name, value in lines[one].items() if name not in {*TIMES, "prediction_id"}} for one in ids]


def answered(answer: httpx.Response) -> list[dict[str, Any]]:
    """The predictions of an answer of either protocol, row by row."""
    assert answer.status_code == 200, answer.text
    found = answer.json()
    if "predictions" in found:
        return [{name: one[name] for name in one if name != "model_name"} for one in found["predictions"]]
    columns = {one["name"]: one["data"] for one in found["outputs"]}
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


@pytest.mark.parametrize("encode", WAYS.values(), ids=WAYS)
def test_equal_rows_get_equal_scores_and_equal_journal_lines(
    shared_api: Api, encode: Callable[[Sequence[Any]], Encoded]
) -> None:
    rows = [{"temperature_c": None} | row for row in bodies(20, seed=9)]
    expected = shared_api.post("/predict/batch", {"instances": rows}).json()["predictions"]
    found = answered(send(shared_api, encode(rows)))
    for name in ("probability", "prediction", "threshold", "model_version"):
        assert [one[name] for one in found] == [one[name] for one in expected]
    ids = [[one["prediction_id"] for one in answers] for answers in (found, expected)]
    assert lines_of(shared_api, ids[0]) == lines_of(shared_api, ids[1])


@pytest.mark.parametrize("n_rows", [300, 2_000])
def test_a_large_request_is_read_beside_the_event_loop_and_scored_alike(shared_api: Api, n_rows: int) -> None:
    rows = [{"temperature_c": None} | row for row in bodies(n_rows, seed=10)]
    encoded = binary_tensors(rows) if n_rows == 2_000 else dataframe_records(rows)
    assert (len(encoded.body) > MAX_INLINE_BYTES) == (n_rows == 2_000)
    expected = shared_api.post("/predict/batch", {"instances": rows}).json()["predictions"]
    assert [one["probability"] for one in answered(send(shared_api, encoded))] == [
        one["probability"] for one in expected
    ]


@pytest.mark.parametrize("encode", [tensors, dataframe_records])
def test_a_retry_under_the_same_ids_gets_the_first_answer_by_whichever_protocol(
    shared_api: Api, encode: Callable[[Sequence[Any]], Encoded]
) -> None:
    rows = [row | {"prediction_id": str(uuid.uuid4())} for row in bodies(3, seed=11) if "temperature_c" in row]
    n_before = len(journal_rows(shared_api.settings))
    first = answered(send(shared_api, encode(rows)))
    assert answered(send(shared_api, encode(rows))) == first
    assert shared_api.post("/predict", rows[0]).json()["probability"] == first[0]["probability"]
    assert len(journal_rows(shared_api.settings)) == n_before + len(rows)

    other = send(shared_api, encode([rows[0] | {"restarts": 77}]))
    assert other.status_code == 409
    assert "was used for another row; choose a new id for each row" in other.text
    assert other.json()["type"] == "prediction_id_conflict"


@pytest.mark.parametrize("encode", [tensors, dataframe_records])
def test_a_request_is_scored_as_a_whole_or_not_at_all(
    shared_api: Api, encode: Callable[[Sequence[Any]], Encoded]
) -> None:
    n_before = len(journal_rows(shared_api.settings))
    answer = send(shared_api, encode([GOOD, GOOD | {"restarts": -1}]))
    assert answer.status_code == 400
    assert "row 1, restarts: Input should be greater than or equal to 0 (1 of 2 rows; none was scored)" in answer.text
    assert answer.json()["errors"] == [
        {"row": 1, "field": "restarts", "message": "Input should be greater than or equal to 0"}
    ]
    assert len(journal_rows(shared_api.settings)) == n_before


def test_a_row_that_derivation_refuses_leaves_the_others_unscored(api_settings: Settings) -> None:
    with api_in_thread(api_settings) as api:
        assert api.app is not None
        batcher = api.app.state.service.batcher
        batcher._contract = replace(batcher._contract, derive=lambda columns: {"strain": columns["load_ratio"] / 0.0})
        answer = send(api, tensors([GOOD, GOOD]))
        assert answer.status_code == 400
        assert "strain" in answer.json()["error"]
        assert journal_rows(api.settings) == []


ERRORS: dict[str, tuple[Callable[[Api], httpx.Response], int, str, str]] = {
    "another model": (
        lambda api: send(api, tensors([GOOD]), "/v2/models/churn/infer"),
        *(404, "not_found", f"model 'churn' is not served here; call {INFER}"),
    ),
    "another version": (
        lambda api: send(api, tensors([GOOD]), "/v2/models/machine_failure/versions/7/infer"),
        *(404, "not_found", "version '7' does not score now, version 1 does; leave the version out of the path"),
    ),
    "another endpoint": (
        lambda api: send(api, dataframe_records([GOOD]), "/endpoints/churn/invocations"),
        *(404, "not_found", f"model 'churn' is not served here; call {ENDPOINT}"),
    ),
    "unknown path": (
        lambda api: api.client.get("/v2/repository/index"),
        *(404, "not_found", "Not Found"),
    ),
    "wrong method": (lambda api: api.client.get("/invocations"), 405, "method_not_allowed", "Method Not Allowed"),
    "query": (
        lambda api: send(api, tensors([GOOD]), f"{INFER}?explain=true"),
        *(400, "invalid_request", "explain=true: unknown parameter; this endpoint has none"),
    ),
    "no JSON": (
        lambda api: send(api, Encoded(INFER, b"{")),
        *(400, "invalid_request", "body: not JSON: "),
    ),
    "media type": (
        lambda api: send(api, Encoded(INFER, b"{}", {"content-type": "text/plain"})),
        *(
            415,
            "unsupported_media_type",
            "Content-Type is 'text/plain'; send application/json, or application/octet-stream",
        ),
    ),
    "compressed": (
        lambda api: send(api, tensors([GOOD]), **{"content-encoding": "gzip"}),
        *(415, "unsupported_media_type", "send the body unencoded, without Content-Encoding"),
    ),
    "JSON length": (
        lambda api: send(api, tensors([GOOD]), **{"inference-header-content-length": "-1"}),
        *(400, "invalid_request", "Inference-Header-Content-Length: Input should be a number of bytes, not '-1'"),
    ),
    "too large": (
        lambda api: send(api, Encoded("/invocations", b" " * 4_000_001)),
        *(413, "too_large", "the JSON of this request may have 4,000,000 bytes; send several batches"),
    ),
    "foreign origin": (
        lambda api: send(api, tensors([GOOD]), origin="http://example.com"),
        *(403, "foreign_origin", "only pages of this host may call this service"),
    ),
}


@pytest.mark.parametrize("name", ERRORS)
def test_an_error_has_the_form_of_its_protocol_and_our_words(shared_api: Api, name: str) -> None:
    ask, status, kind, detail = ERRORS[name]
    answer = ask(shared_api)
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/json"
    body = answer.json()
    assert body["type"] == kind
    text = body["error"] if answer.request.url.path.startswith("/v2") else body["message"]
    assert detail in text


@pytest.mark.parametrize("path", ["/predict", "/predict/batch", "/labels", "/invocations", INFER])
def test_a_path_that_ends_in_a_line_break_is_not_found(shared_api: Api, path: str) -> None:
    """For the framework it is also the path without it, whose routes are there for the documentation only."""
    label = {"prediction_id": str(uuid.uuid4()), "true_label": 1}
    sent = {"/predict/batch": {"instances": [GOOD]}, "/labels": label, "/invocations": {"inputs": [GOOD]}}
    body = sent.get(path, GOOD) if path != INFER else {"inputs": [{"name": "x", "shape": [1], "datatype": "FP64"}]}
    answer = shared_api.post(f"{path}%0A", body)
    assert (answer.status_code, answer.json()["type"]) == (404, "not_found")


def test_a_request_without_a_content_type_is_read_as_tritons_client_sends_it(shared_api: Api) -> None:
    answer = shared_api.client.post(INFER, content=tensors([GOOD]).body)
    assert "content-type" not in answer.request.headers
    assert answer.status_code == 200


def test_the_served_version_may_be_named_and_must_have_given_every_answer(shared_api: Api) -> None:
    own_id = str(uuid.uuid4())
    path = "/v2/models/machine_failure/versions/1/infer"
    encoded = tensors([GOOD | {"prediction_id": own_id}])
    assert send(shared_api, encoded, path).status_code == 200
    service = shared_api.app.state.service  # type: ignore[union-attr]
    row, answer = service.idempotency._remembered[own_id]
    service.idempotency._remembered[own_id] = row, answer | {"model_version": 9}
    conflict = send(shared_api, encoded, path)
    assert (conflict.status_code, conflict.json()["type"]) == (409, "model_version_conflict")
    assert send(shared_api, encoded).json()["model_version"] == "9"


def test_a_model_that_fails_is_a_500_in_the_protocols_form(
    api_settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(_: FloatArray) -> FloatArray:
        raise FloatingPointError("secret of the model")

    with api_in_thread(api_settings) as api:
        holder = holder_of(api)
        assert holder.current is not None
        holder.current = Champion(holder.current.version, holder.current.pipeline, fail)
        for encoded, member in ((tensors([GOOD]), "error"), (dataframe_records([GOOD]), "message")):
            answer = send(api, encoded)
            assert answer.status_code == 500
            assert "secret" not in answer.text
            assert answer.json()[member] == "the request failed inside the service; see its log"
    assert "secret of the model" in caplog.text


def test_nothing_is_scored_before_there_is_a_model(without_production: Settings) -> None:
    with api_in_thread(without_production) as api:
        for answer in (send(api, tensors([GOOD])), send(api, dataframe_records([GOOD])), api.client.get("/ping")):
            assert answer.status_code == 503
            assert answer.json()["type"] == "not_ready"
            assert answer.headers["retry-after"] == "2"
        assert api.client.get("/v2/health/ready").json() == {"ready": False, "live": True}
        assert api.client.get("/v2/models/machine_failure/ready").status_code == 503
        assert api.client.get("/v2/models/machine_failure").status_code == 503


# Keys, limits, counts


def test_a_key_needs_the_scope_and_every_call_counts_towards_its_limit(api_settings: Settings) -> None:
    with_keys = api_settings.model_copy(update={"api_keys": SecretStr(API_KEYS), "rate_limit_per_second": 3.0})
    with api_in_thread(with_keys) as api:
        for encoded, code in ((tensors([GOOD]), "error"), (dataframe_records([GOOD]), "error_code")):
            nobody, reader, scorer = (
                send(api, encoded, **headers)
                for headers in ({}, {"x-api-key": READER}, {"authorization": f"Bearer {SCORER}"})
            )
            assert (nobody.status_code, nobody.headers["www-authenticate"]) == (401, "Bearer")
            assert code in nobody.json()
            assert (reader.status_code, scorer.status_code) == (403, 200)
            assert f"lacks the scope {Scope.SCORE}" in reader.text
        open_to_all = (
            "/v2",
            "/v2/health/live",
            "/v2/health/ready",
            "/v2/models/machine_failure/ready",
            "/ping",
            "/version",
        )
        assert [api.client.get(path).status_code for path in open_to_all] == [200] * len(open_to_all)
        assert api.client.get("/v2/models/machine_failure").status_code == 401
        statuses = Counter(send(api, tensors([GOOD]), **{"x-api-key": ADA}).status_code for _ in range(12))
        assert statuses[429] >= 3
        limited = send(api, dataframe_records([GOOD]), **{"x-api-key": ADA})
        if limited.status_code == 429:
            assert limited.json()["error_code"] == "REQUEST_LIMIT_EXCEEDED"
            assert int(limited.headers["retry-after"]) >= 1


def test_requests_are_counted_by_protocol_and_outcome(api: Api) -> None:
    send(api, tensors([GOOD, GOOD]))
    send(api, tensors([GOOD | {"restarts": -1}]))
    send(api, dataframe_records([GOOD]), ENDPOINT)
    send(api, Encoded("/invocations", b"", {"content-type": "text/plain"}))
    text = api.client.get("/metrics").text
    for protocol, outcome in (
        *(("open_inference", "answered"), ("open_inference", "invalid_request")),
        *(("mlflow", "answered"), ("mlflow", "unsupported_media_type")),
    ):
        assert f'selfheal_protocol_requests_total{{outcome="{outcome}",protocol="{protocol}"}} 1.0' in text
    assert 'selfheal_refused_requests_total{kind="invalid_request"} 1.0' in text
    assert 'selfheal_predictions_total{model_version="1"' in text


def test_a_span_is_named_after_the_route(api_settings: Settings, collector: Collector) -> None:  # noqa: F811
    with api_in_thread(traced(api_settings, collector.url)) as api:
        assert send(api, tensors([GOOD])).status_code == 200
        assert send(api, tensors([GOOD]), "/v2/models/machine_failure/versions/1/infer").status_code == 200
        assert send(api, dataframe_records([GOOD]), ENDPOINT).status_code == 200
    names = {span.name for _, span in collector.spans}
    assert names == {
        "POST /v2/models/{model}/infer",
        "POST /v2/models/{model}/versions/{version}/infer",
        "POST /endpoints/{model}/invocations",
    }


def test_an_explanation_is_that_of_predict(shared_api: Api) -> None:
    expected = shared_api.post("/predict?explain=true", GOOD).json()["explanation"]
    explained = Encoded(
        "/invocations", b'{"inputs": [{"load_ratio": 0.7, "restarts": 1, "temperature_c": 61.5, "explain": true}]}'
    )
    (found,) = send(shared_api, explained).json()["predictions"]
    assert found["explanation"] == expected


def test_the_document_says_what_openapi_cannot_derive(shared_api: Api) -> None:
    paths = shared_api.client.get("/openapi.json").json()["paths"]
    infer = paths["/v2/models/{model}/infer"]["post"]
    assert set(infer["requestBody"]["content"]) == {"application/json", "application/octet-stream"}
    assert HEADER_PARAMETER in infer["parameters"]
    assert set(paths["/invocations"]["post"]["requestBody"]["content"]) == {"application/json", "text/csv"}
    statuses = {
        status for path in paths if protocol_of(path) for one in paths[path].values() for status in one["responses"]
    }
    assert "422" not in statuses


@pytest.mark.parametrize("path", ["/v2", "/v2/models/a", "/invocations", "/endpoints/a/invocations", "/ping"])
def test_paths_of_other_protocols_are_known(path: str) -> None:
    assert protocol_of(path) is not None


@pytest.mark.parametrize("path", ["/", "/v22", "/predict", "/health", "/versions", "/invocations/a", "/model/versions"])
def test_our_own_paths_keep_their_errors(path: str) -> None:
    assert protocol_of(path) is None


@pytest.mark.parametrize("status", [*ERROR_CODES, 422, 405])
def test_every_status_has_a_form_in_both_protocols(status: int) -> None:
    document = {"type": "kind", "title": "Title", "status": status, "detail": "what to do"}
    expected = 400 if status == 422 else status
    assert in_form_of(Protocol.OPEN_INFERENCE, document) == (expected, {"error": "what to do", "type": "kind"})
    found, body = in_form_of(Protocol.MLFLOW, document)
    assert (found, body["message"], body["type"]) == (expected, "what to do", "kind")
