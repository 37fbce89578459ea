"""Sensors: what fires, what explains itself, and that the same state never fires twice."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import dagster as dg
import pytest

from selfheal.adapters.postgres import decisions
from selfheal.adapters.postgres.alerts import list_alerts, open_or_update_alert
from selfheal.adapters.postgres.predictions import latest_activity
from selfheal.adapters.postgres.retraining_requests import add_request, open_requests
from selfheal.domain.records import Action, Alert, Severity
from selfheal.settings import Settings
from tests.adapters.alerting.test_delivery import Webhook, webhook
from tests.selfheal_assets.conftest import Dagster
from tests.times import T0
from tests.traffic import serve, toy_rows

__all__ = ["webhook"]

pytestmark = pytest.mark.integration


def evaluate(dagster: Dagster, name: str, cursor: str | None = None) -> dg.SensorResult | dg.RunRequest | dg.SkipReason:
    sensor = dagster.definitions.resolve_sensor_def(name)
    context = dg.build_sensor_context(
        instance=dagster.instance, cursor=cursor, resources={"platform": dagster.resource}, sensor_name=name
    )
    answer: Any = sensor(context)
    return answer


def skip_message(answer: object) -> str:
    assert isinstance(answer, dg.SkipReason), answer
    return answer.skip_message or ""


def test_without_a_champion_the_monitoring_sensor_says_how_to_get_one(
    make_dagster: Callable[[Settings], Dagster], settings: Settings
) -> None:
    dagster = make_dagster(settings)
    assert "selfheal bootstrap" in skip_message(evaluate(dagster, "monitoring_sensor"))


def test_no_traffic_launches_no_run(dagster: Dagster) -> None:
    message = skip_message(evaluate(dagster, "monitoring_sensor"))
    assert message == "No prediction has been logged yet: waits for the first one. Looks again in 5 min."


def test_the_sensor_tells_what_could_not_be_told_before_and_sees_that_no_traffic_comes(
    make_dagster: Callable[[Settings], Dagster], make_settings: Callable[..., Settings], webhook: Webhook
) -> None:
    dagster = make_dagster(make_settings(notify_urls=webhook.url))
    store = dagster.platform.store
    open_or_update_alert(store, "serving", None, Alert("journal_lag", Severity.CRITICAL, "late"), T0)
    serve(dagster.platform, toy_rows(5))
    evaluate(dagster, "monitoring_sensor")
    assert [message["title"] for message in webhook.received] == ["selfheal: journal lag"]
    kinds = [row.kind for row in list_alerts(store, only_open=True)]
    assert kinds == ["journal_lag"], "the traffic is months old, but the sensor has just woken up"


def test_new_traffic_launches_one_run_and_the_same_state_none(dagster: Dagster) -> None:
    serve(dagster.platform, toy_rows(50))
    first = evaluate(dagster, "monitoring_sensor")
    assert isinstance(first, dg.SensorResult)
    assert len(first.run_requests or []) == 1
    assert "Nothing new" in skip_message(evaluate(dagster, "monitoring_sensor", cursor=first.cursor))


def test_a_new_label_alone_launches_a_run(dagster: Dagster) -> None:
    sent = serve(dagster.platform, toy_rows(50), labelled_share=0.0)
    first = evaluate(dagster, "monitoring_sensor")
    assert isinstance(first, dg.SensorResult)
    from tests.traffic import ingest_all, journal_labels

    journal_labels(dagster.platform.settings.data_dir, sent.prediction_ids[:1], [1])
    ingest_all(dagster.platform)
    assert latest_activity(dagster.platform.store, datetime.now(UTC))[1] is not None
    assert isinstance(evaluate(dagster, "monitoring_sensor", cursor=first.cursor), dg.SensorResult)


def test_calm_traffic_asks_for_no_retraining(dagster: Dagster) -> None:
    serve(dagster.platform, toy_rows(600))
    assert "no monitoring tick has seen" in skip_message(evaluate(dagster, "drift_sensor"))
    assert dagster.run("monitoring_job").success
    for name in ("drift_sensor", "performance_sensor"):
        message = skip_message(evaluate(dagster, name))
        assert "the latest verdict is stable" in message
        assert "drifted feature" in message, "what it waits for"
        assert message.endswith("Looks again in 30 s.")


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


def test_harm_without_enough_labels_is_told_and_not_trained_on(dagster: Dagster) -> None:
    serve(dagster.platform, toy_rows(1_000, scenario="overheating"), labelled_share=0.35)
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


def test_probation_is_watched_only_after_a_promotion(dagster: Dagster) -> None:
    assert "No version is on probation" in skip_message(evaluate(dagster, "probation_sensor"))
