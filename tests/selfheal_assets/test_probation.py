"""A wrongly promoted version on real traffic: the API, the sensor, Dagster's runtime, and the API again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime

import dagster as dg
import pytest

from selfheal.adapters.postgres import alerts, decisions, model_versions, probations
from selfheal.adapters.postgres.predictions import window_of
from selfheal.domain.contract import TRUE_LABEL
from selfheal.domain.probation import not_on_probation
from selfheal.domain.records import Action, ProbationOutcome
from selfheal.services.promotion.going_live import force_promote, rollback, stage
from selfheal.settings import Settings
from tests.candidates import log_worse_model, passed, twin_of_champion
from tests.selfheal_assets.conftest import Dagster, metadata_of
from tests.selfheal_assets.sensors.evaluating import evaluate, skip_message
from tests.serving.running import Api, api_in_thread
from tests.times import T0
from tests.toy_use_case import contract
from tests.traffic import toy_rows
from tests.waiting import eventually

pytestmark = pytest.mark.integration

N_ROWS = 300


def test_a_wrongly_promoted_version_is_rolled_back_by_the_sensor_and_the_api_follows(
    make_dagster: Callable[[Settings], Dagster], make_settings: Callable[..., Settings]
) -> None:
    settings = make_settings(champion_poll_seconds=0.1, ingest_interval_seconds=0.05)
    dagster = make_dagster(settings)
    platform = dagster.platform
    worse = log_worse_model(platform)
    stage(platform, worse, passed(platform, worse).decision, T0)
    with api_in_thread(settings) as api:
        assert api.health()["model_version"] == 1
        force_promote(platform, 2, reason="looks fine to me", actor="ada", now=datetime.now(UTC))
        eventually(lambda: api.health()["model_version"] == 2, "the API serves version 2")
        assert "No evaluation is due" in skip_message(evaluate(dagster, "probation_sensor"))

        send_labelled_traffic(api)
        eventually(lambda: n_labels(dagster) == N_ROWS, "predictions and labels are in Postgres")
        asked = evaluate(dagster, "probation_sensor")
        assert isinstance(asked, dg.SensorResult)
        (requested,) = asked.run_requests or []
        assert requested.partition_key == "2"
        (new_partition,) = asked.dynamic_partitions_requests or []
        assert (new_partition.partitions_def_name, new_partition.partition_keys) == ("model_version", ["2"])
        run = dagster.watch_probation(2)
        assert run.success
        shown = metadata_of(run, "probation_report")
        assert (shown["version"], shown["outcome"], shown["labels"]) == (2, "failed", N_ROWS)
        assert dagster.instance.get_materialized_partitions(dg.AssetKey("probation_report")) == {"2"}

        eventually(lambda: api.health()["model_version"] == 1, "the API serves version 1 again")
        answer = api.post("/predict", dict.fromkeys(contract.input_names, 1))
        assert answer.json()["model_version"] == 1
    assert "No version is on probation" in skip_message(evaluate(dagster, "probation_sensor", cursor=asked.cursor))
    (recorded,) = decisions.recent(platform.store, actions=[Action.ROLLBACK])
    assert (recorded.actor, recorded.champion_version, recorded.challenger_version) == ("probation", 2, 1)
    (alert,) = (row for row in alerts.list_alerts(platform.store, only_open=True) if row.source == "probation")
    assert (alert.kind, alert.severity) == ("probation_failed", "critical")


def test_the_page_of_an_earlier_version_shows_how_its_probation_ended_and_changes_nothing(dagster: Dagster) -> None:
    platform = dagster.platform
    stage(platform, (twin := twin_of_champion(platform)), passed(platform, twin).decision, T0)
    force_promote(platform, 2, reason="a new one", actor="ada", now=T0)
    v2 = model_versions.champion(platform.store)
    finding = replace(not_on_probation(v2), outcome=ProbationOutcome.PASSED, reason="no worse on 300 labels")
    assert v2.promoted_at is not None
    probations.record_outcome(platform.store, finding, v2.promoted_at, T0)
    rollback(platform, to_version=1, reason="another reason", actor="ada", now=T0)

    shown = metadata_of(dagster.watch_probation(2), "probation_report")
    assert (shown["version"], shown["outcome"], shown["finding"]) == (2, "passed", "no worse on 300 labels")
    shown = metadata_of(dagster.watch_probation(1), "probation_report")
    assert (shown["version"], shown["outcome"]) == (1, "none yet")
    assert model_versions.champion(platform.store).version == 1


@pytest.mark.parametrize(
    ("partition", "message"), [("9", "there is no version 9"), ("latest", "'latest' is no model version")]
)
def test_a_partition_that_is_no_version_is_refused_by_name(dagster: Dagster, partition: str, message: str) -> None:
    dagster.instance.add_dynamic_partitions("model_version", [partition])
    result = dagster.run("probation_job", partition_key=partition)
    (failure,) = [event for event in result.all_events if event.is_step_failure]
    assert message in failure.step_failure_data.user_failure_data.description


def send_labelled_traffic(api: Api) -> None:
    rows = toy_rows(N_ROWS)
    inputs = rows[list(contract.input_names)].astype(object).where(rows.notna(), None)
    answer = api.post("/predict/batch", {"instances": inputs.to_dict("records")})
    assert answer.status_code == 200, answer.text
    ids = [one["prediction_id"] for one in answer.json()["predictions"]]
    labels = [
        {"prediction_id": prediction_id, "true_label": int(label)}
        for prediction_id, label in zip(ids, rows[TRUE_LABEL], strict=True)
    ]
    answer = api.post("/labels", {"labels": labels})
    assert answer.status_code in {200, 202}, answer.text


def n_labels(dagster: Dagster) -> int:
    store = dagster.platform.store
    champion = model_versions.champion(store)
    assert champion.promoted_at is not None
    window = window_of(store, champion.version, champion.promoted_at)
    return 0 if window is None else window.n_labels
