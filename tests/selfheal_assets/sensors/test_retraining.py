"""Harm is one retraining per episode and attempt; why there is none is said, and recorded."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import dagster as dg
import pytest

from selfheal.adapters.postgres import decisions
from selfheal.adapters.postgres.alerts import list_alerts
from selfheal.adapters.postgres.retraining_requests import add_request, open_requests
from selfheal.domain.records import Action, GateResult, GateStatus, Onset
from selfheal.kit.backoff import Backoff
from selfheal.kit.errors import ServiceUnavailableError
from selfheal_assets.sensors import retraining
from tests.builders import decision
from tests.selfheal_assets.conftest import Dagster
from tests.selfheal_assets.sensors.evaluating import evaluate, skip_message
from tests.times import T0
from tests.traffic import serve, toy_rows

pytestmark = pytest.mark.integration


def test_calm_traffic_asks_for_no_retraining(dagster: Dagster) -> None:
    serve(dagster.platform, toy_rows(600))
    assert "no monitoring tick has seen" in skip_message(evaluate(dagster, "drift_sensor"))
    assert dagster.run("monitoring_job").success
    for name in ("drift_sensor", "performance_sensor"):
        message = skip_message(evaluate(dagster, name))
        assert "the latest verdict is stable" in message
        assert "drifted feature" in message, "what it waits for"
        assert message.endswith("Next evaluation in 30 s.")


def test_harm_with_drift_asks_for_one_retraining_of_the_episode_and_attempt(dagster: Dagster) -> None:
    serve(dagster.platform, toy_rows(1_000, scenario="overheating"))
    assert dagster.run("monitoring_job").success
    request = evaluate(dagster, "drift_sensor")
    assert isinstance(request, dg.RunRequest)
    assert "attempt 1" in (request.run_key or "")
    asked = request.run_config["ops"]["retraining_decision"]["config"]
    assert asked["trigger"] == "drift"
    assert asked["episode_id"]
    assert evaluate(dagster, "drift_sensor").run_key == request.run_key  # type: ignore[union-attr]
    assert "No call" in skip_message(evaluate(dagster, "performance_sensor"))
    run = dagster.definitions.resolve_job_def("retraining_job").execute_in_process(
        instance=dagster.instance, run_config=request.run_config
    )
    assert run.success
    assert "no monitoring tick has seen" in skip_message(evaluate(dagster, "drift_sensor")), (
        "version 2 begins with a clean sheet"
    )


def test_what_fails_outside_of_the_model_is_tried_again_after_a_while_on_the_same_labels(
    dagster: Dagster, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: object, **__: object) -> None:
        raise ServiceUnavailableError("MLflow does not answer")

    serve(dagster.platform, toy_rows(1_000, scenario="overheating"))
    assert dagster.run("monitoring_job").success
    first = evaluate(dagster, "drift_sensor")
    assert isinstance(first, dg.RunRequest)
    keys = [first.run_key]
    for n_failures in (1, 2):
        with monkeypatch.context() as patched:
            patched.setattr("selfheal.services.retraining.train", away)
            run = dagster.definitions.resolve_job_def("retraining_job").execute_in_process(
                instance=dagster.instance, run_config=first.run_config, tags=first.tags, raise_on_error=False
            )
        assert not run.success
        assert f"failed {n_failures} times outside of the model" in skip_message(evaluate(dagster, "drift_sensor"))
        with monkeypatch.context() as patched:
            patched.setattr("selfheal.domain.retraining.requests.OUTSIDE_FAILURE_BACKOFF", Backoff(0.0, 0.0))
            again = evaluate(dagster, "drift_sensor")
        assert isinstance(again, dg.RunRequest)
        assert "attempt 1" in (again.run_key or "")
        assert again.run_key not in keys, "a key is used once for ever"
        keys.append(again.run_key)


def test_a_change_that_is_unanswered_asks_for_a_retraining_once_its_labels_are_there(dagster: Dagster) -> None:
    serve(dagster.platform, toy_rows(1_500))
    assert dagster.run("monitoring_job").success
    assert "the latest verdict is stable" in skip_message(evaluate(dagster, "performance_sensor"))
    before = T0 - timedelta(hours=1)
    gain = GateResult("f1_improvement", GateStatus.INCONCLUSIVE, 27.0, 2.0, "a sentence", -28.0, 80.0, 750)
    unanswered = replace(
        decision(n_labels=750, action=Action.INCONCLUSIVE, champion_version=1, created_at=datetime.now(UTC)),
        onset=Onset(before, before, before, 0.001, "outcome", 900, 750),
        gates=(gain,),
    )
    dagster.platform.decisions.record(unanswered)
    request = evaluate(dagster, "performance_sensor")
    assert isinstance(request, dg.RunRequest)
    asked = request.run_config["ops"]["retraining_decision"]["config"]
    assert asked["trigger"] == "performance"
    assert asked["reason"].startswith("1,500 labels since a change of the relation between score and outcome")
    assert "No call" in skip_message(evaluate(dagster, "drift_sensor"))

    long_since = replace(
        unanswered, decision_id="long since", n_labels=300, episode_id="of the change", created_at=datetime.now(UTC)
    )
    dagster.platform.decisions.record(long_since)  # more labels than twice what it wanted have come at once
    assert isinstance(evaluate(dagster, "performance_sensor"), dg.RunRequest)
    tried = decision(decision_id="tried", action=Action.TRAIN, episode_id="of the change", champion_version=1)
    dagster.platform.decisions.record(replace(tried, created_at=datetime.now(UTC)))
    assert "the latest verdict is stable" in skip_message(evaluate(dagster, "performance_sensor"))


def test_harm_without_enough_labels_is_told_and_not_trained_on(dagster: Dagster) -> None:
    serve(dagster.platform, toy_rows(350, scenario="overheating"))
    assert dagster.run("monitoring_job").success
    for _ in range(3):
        message = skip_message(evaluate(dagster, "drift_sensor"))
    assert message.startswith("Harmful shift")
    assert re.search(r"350 labelled predictions, [0-9,]+ wanted", message), "how many it has, and how many it waits for"
    (skipped,) = decisions.recent(dagster.platform.store, actions=[Action.SKIP])
    assert skipped.actor == "drift_sensor"
    assert skipped.episode_id is not None
    assert "labelled predictions" in skipped.reason
    assert dagster.instance.get_runs_count(dg.RunsFilter(job_name="retraining_job")) == 0


def test_what_a_person_asked_the_api_for_is_one_run_with_its_actor_and_reason(dagster: Dagster) -> None:
    store = dagster.platform.store
    assert "Nobody has asked" in skip_message(evaluate(dagster, "retraining_request_sensor"))
    asked = [add_request(store, actor="ann", reason=reason, now=T0) for reason in ("audit", "new products")]
    answer = evaluate(dagster, "retraining_request_sensor")
    assert isinstance(answer, dg.SensorResult)
    runs = answer.run_requests or []
    assert [run.run_key for run in runs] == [f"request {request_id}" for request_id in asked]
    again = evaluate(dagster, "retraining_request_sensor")
    assert isinstance(again, dg.SensorResult)
    assert again.run_requests == runs, "until a run is there, it is asked for"

    ran = dagster.definitions.resolve_job_def("retraining_job").execute_in_process(
        instance=dagster.instance, run_config=runs[0].run_config, tags=runs[0].tags
    )
    assert ran.success
    decided = decisions.recent(store, 1)[0]
    assert (decided.trigger_reason, decided.actor, decided.action) == ("manual", "ann", Action.SKIP)
    third = evaluate(dagster, "retraining_request_sensor")
    assert isinstance(third, dg.SensorResult)
    assert third.run_requests == runs[1:]
    assert [request.request_id for request in open_requests(store)] == asked[1:]


def test_a_request_that_this_release_cannot_launch_is_named_and_in_the_way_of_no_other(
    dagster: Dagster, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = dagster.platform.store
    old, new = (add_request(store, actor="ann", reason=reason, now=T0) for reason in ("audit", "new products"))

    def as_an_older_release(request: Any) -> dg.RunRequest:
        run = run_of_request(request)
        return run.with_replaced_attrs(run_config={"ops": {"decide": {}}}) if request.request_id == old else run

    run_of_request = retraining._run_of
    monkeypatch.setattr(retraining, "_run_of", as_an_older_release)
    answer = evaluate(dagster, "retraining_request_sensor")
    assert isinstance(answer, dg.SensorResult)
    assert [run.run_key for run in answer.run_requests or ()] == [f"request {new}"]
    assert [request.request_id for request in open_requests(store)] == [new]
    (alert,) = list_alerts(store, only_open=True)
    assert alert.kind == "retraining_job_failed"
    assert f"the retraining that ann requested ({old}: audit): " in alert.message
