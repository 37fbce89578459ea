"""`GET /v2/...`: what serves, which model, and whether it is ready."""

from __future__ import annotations

from tests.serving.running import Api

MODEL = "/v2/models/machine_failure"


def test_server_and_model_say_what_they_are(shared_api: Api) -> None:
    server = shared_api.client.get("/v2").json()
    assert (server["name"], server["extensions"]) == ("selfheal", ["binary_tensor_data"])
    model = shared_api.client.get(MODEL).json()
    assert (model["name"], model["versions"]) == ("machine_failure", ["1"])
    assert shared_api.client.get(f"{MODEL}/versions/1").json() == model


def test_probes_answer_in_the_fields_that_the_text_and_the_clients_of_the_protocol_name(shared_api: Api) -> None:
    assert shared_api.client.get("/v2/health/live").json() == {"live": True}
    assert shared_api.client.get("/v2/health/ready").json() == {"ready": True, "live": True}
    for path in (f"{MODEL}/ready", f"{MODEL}/versions/1/ready"):
        assert shared_api.client.get(path).json() == {"name": "machine_failure", "ready": True}


def test_another_model_or_version_is_not_found_and_the_right_one_named(shared_api: Api) -> None:
    for path in ("/v2/models/churn", "/v2/models/churn/ready", "/v2/models/churn/versions/1"):
        answer = shared_api.client.get(path)
        assert (answer.status_code, answer.json()["error"]) == (
            404,
            f"model 'churn' is not served here; call {MODEL}",
        )
    for path in (f"{MODEL}/versions/2", f"{MODEL}/versions/2/ready", f"{MODEL}/versions/01"):
        answer = shared_api.client.get(path)
        assert answer.status_code == 404
        assert "does not score now, version 1 does" in answer.json()["error"]
