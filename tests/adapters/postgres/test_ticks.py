"""Ticks and alerts: a tick is one row, an open alert is one row."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.exc import IntegrityError

from selfheal.adapters.journal import prediction_journal
from selfheal.adapters.postgres import alerts as alert_queries
from selfheal.adapters.postgres import ticks
from selfheal.adapters.postgres.ingest import ingest
from selfheal.adapters.postgres.store import Store
from selfheal.domain.records import Alert, ProxyMetrics, ScoreMetrics, Severity, Triage, Verdict, Window
from selfheal.kit.ids import new_id
from tests import builders
from tests.at_once import at_once
from tests.times import T0
from tests.toy_use_case import contract
from tests.traffic import journal_predictions, toy_rows

MINUTE = timedelta(minutes=1)


def alert(kind: str = "harmful_shift", message: str = "losing", severity: Severity = Severity.CRITICAL) -> Alert:
    return Alert(kind, severity, message, {"brier_excess": 0.1})


def triage(*alerts: Alert, model_version: int = 1) -> Triage:
    seen = builders.window(model_version=model_version)
    return Triage(seen, Verdict.HARMFUL_SHIFT, ("losing",), alerts, "e1")


def record(store: Store, seen: Window, realised: ScoreMetrics | None = None) -> bool:
    columns = (
        builders.column_drift("load_ratio", effect=0.2, is_drifted=True),
        builders.column_drift("temperature_c", effect=0.6, is_drifted=True),
        builders.column_drift("restarts"),
        builders.column_drift("probability", effect=0.4, is_drifted=True),
    )
    return ticks.record_tick(
        store,
        ProxyMetrics(seen, 0.2, 0.3, 0.1, 0.9),
        builders.drift_report(window=seen, columns=columns, feature_drift_ratio=0.5),
        builders.performance(window=seen, realised=realised, estimated_f1=0.61, estimated_auc_roc=None),
        Triage(seen, Verdict.HARMFUL_SHIFT, ("losing", "drifted"), (), "e1"),
        T0 + 61 * MINUTE,
    )


def open_alerts(store: Store) -> list[tuple[str, int]]:
    return sorted((row.kind, row.model_version) for row in alert_queries.list_alerts(store, only_open=True))


def test_the_same_traffic_is_recorded_once(store: Store) -> None:
    assert record(store, builders.window())
    assert not record(store, builders.window())
    assert record(store, builders.window(n_predictions=1_001))
    assert len(ticks.recent_ticks(store, 10)) == 2


def test_a_tick_says_what_was_seen(store: Store) -> None:
    record(store, builders.window(), realised=builders.score(f1=0.59))
    row = ticks.latest_tick(store)
    assert row is not None
    assert row.drifted_features == ["temperature_c", "load_ratio"]
    assert row.num_drifted_features == 2
    assert row.verdict == "harmful_shift"
    assert row.reasons == ["losing", "drifted"]
    assert row.realised["f1"] == 0.59
    assert row.estimated == {"f1": 0.61, "auc_roc": None, "brier": 0.12}
    assert (row.window_start, row.window_end) == (T0, T0 + 60 * MINUTE)


def test_realised_quality_that_is_unknown_is_null(store: Store) -> None:
    record(store, builders.window(), realised=None)
    row = ticks.latest_tick(store)
    assert row is not None
    assert row.realised is None


def test_the_latest_tick_is_that_of_the_version_asked_for(store: Store) -> None:
    record(store, builders.window(model_version=1))
    record(store, builders.window(model_version=2))
    found = ticks.latest_tick(store, 1)
    assert found is not None
    assert found.model_version == 1
    assert ticks.latest_tick(store, 3) is None


def test_what_waits_for_a_tick_is_what_came_after_the_newest_tick_of_the_same_version(
    store: Store, data_dir: Path
) -> None:
    assert ticks.unseen_since(store, 1) is None, "nothing was predicted"
    probabilities = toy_rows(60)["load_ratio"].to_numpy() / 2
    sent = [
        journal_predictions(data_dir, contract, toy_rows(60), probabilities, start=T0 + MINUTE, model_version=version)
        for version in (1, 2)
    ]
    ingest(store, prediction_journal(contract), data_dir)
    assert ticks.unseen_since(store, 1) == sent[0].created_at[0], "there was no tick yet"
    record(store, builders.window(end=sent[0].created_at[9]))
    assert ticks.unseen_since(store, 1) == sent[0].created_at[10]
    assert ticks.unseen_since(store, 2) == sent[1].created_at[0], "another version's tick has seen nothing of it"
    record(store, builders.window(end=sent[0].last_at))
    assert ticks.unseen_since(store, 1) is None


def test_an_alert_opens_once_goes_on_and_is_resolved(store: Store) -> None:
    assert alert_queries.sync_alerts(store, triage(alert()), T0) == [alert()]
    assert alert_queries.sync_alerts(store, triage(alert()), T0 + MINUTE) == []
    (going_on,) = alert_queries.list_alerts(store)
    assert (going_on.created_at, going_on.updated_at, going_on.resolved_at) == (T0, T0, None)
    alert_queries.sync_alerts(store, triage(alert(message="losing more")), T0 + 2 * MINUTE)
    (updated,) = alert_queries.list_alerts(store)
    assert (updated.alert_id, updated.message) == (going_on.alert_id, "losing more")
    assert (updated.created_at, updated.updated_at) == (T0, T0 + 2 * MINUTE)
    alert_queries.sync_alerts(store, triage(), T0 + 3 * MINUTE)
    (resolved,) = alert_queries.list_alerts(store)
    assert (resolved.resolved_at, resolved.resolved_by) == (T0 + 3 * MINUTE, "monitoring")
    assert open_alerts(store) == []


def test_trouble_that_comes_back_opens_a_new_alert(store: Store) -> None:
    for minute, holding in enumerate(([alert()], [], [alert()])):
        opened = alert_queries.sync_alerts(store, triage(*holding), T0 + minute * MINUTE)
        assert len(opened) == len(holding)
    assert len(alert_queries.list_alerts(store)) == 2
    assert open_alerts(store) == [("harmful_shift", 1)]


def test_metrics_follow_the_newest_tick_even_if_the_message_stays(store: Store) -> None:
    alert_queries.sync_alerts(store, triage(alert()), T0)
    alert_queries.sync_alerts(store, triage(dataclasses.replace(alert(), metrics={"brier_excess": 0.3})), T0 + MINUTE)
    (row,) = alert_queries.list_alerts(store)
    assert (row.metrics, row.updated_at) == ({"brier_excess": 0.3}, T0 + MINUTE)


def test_too_little_traffic_to_tell_closes_nothing(store: Store) -> None:
    alert_queries.sync_alerts(store, triage(alert()), T0)
    unknown = dataclasses.replace(triage(), verdict=Verdict.INSUFFICIENT)
    assert alert_queries.sync_alerts(store, unknown, T0 + MINUTE) == []
    assert open_alerts(store) == [("harmful_shift", 1)]
    of_another_version = dataclasses.replace(triage(model_version=2), verdict=Verdict.INSUFFICIENT)
    alert_queries.sync_alerts(store, of_another_version, T0 + 2 * MINUTE)
    assert open_alerts(store) == [], "the version it was about serves no more"


def test_the_same_trouble_in_another_episode_is_another_alert(store: Store) -> None:
    alert_queries.sync_alerts(store, triage(alert()), T0)
    second = dataclasses.replace(triage(alert()), episode_id="e2")
    assert alert_queries.sync_alerts(store, second, T0 + MINUTE) == [alert()]
    assert alert_queries.sync_alerts(store, second, T0 + 2 * MINUTE) == []
    rows = alert_queries.list_alerts(store)
    assert [(row.episode_id, row.resolved_at) for row in rows] == [("e2", None), ("e1", T0 + MINUTE)]


def test_an_alert_goes_on_through_a_broken_feed_which_belongs_to_no_episode(store: Store) -> None:
    no_episode = dataclasses.replace(triage(alert()), verdict=Verdict.BROKEN_FEED, episode_id=None)
    for minute, seen in enumerate((no_episode, triage(alert()), no_episode)):
        opened = alert_queries.sync_alerts(store, seen, T0 + minute * MINUTE)
        assert len(opened) == (minute == 0)
    (row,) = alert_queries.list_alerts(store)
    assert row.episode_id == "e1"


def test_the_reports_of_open_episodes_are_the_first_and_the_latest_of_each(store: Store) -> None:
    def look(minute: int, episode_id: str | None, report: str | None) -> None:
        seen = builders.window(end=T0 + minute * MINUTE)
        ticks.record_tick(
            store,
            ProxyMetrics(seen, 0.2, 0.3, 0.1, 0.9),
            builders.drift_report(window=seen, report_ref=report),
            builders.performance(window=seen),
            Triage(seen, Verdict.BENIGN_SHIFT, ("drifted",), (), episode_id),
            T0 + minute * MINUTE,
        )

    for minute, (episode_id, report) in enumerate(
        [
            ("old", "r0"),
            ("e1", "r1"),
            ("e1", None),
            (None, "r2"),
            ("e2", "r3"),
            ("e2", "r4"),
            ("e2", "r5"),
            ("e2", None),
        ]
    ):
        look(minute, episode_id, report)
    assert set(ticks.reports_of_open_episodes(store)) == {"r3", "r5"}
    alert_queries.sync_alerts(store, triage(alert()), T0)
    assert set(ticks.reports_of_open_episodes(store)) == {"r1", "r3", "r5"}, "an alert of e1 is open"


def test_only_what_no_longer_holds_is_resolved(store: Store) -> None:
    alert_queries.sync_alerts(store, triage(alert("harmful_shift"), alert("dataset_drift")), T0)
    alert_queries.sync_alerts(store, triage(alert("dataset_drift"), alert("feature_drift")), T0 + MINUTE)
    assert open_alerts(store) == [("dataset_drift", 1), ("feature_drift", 1)]


def test_a_new_version_closes_the_alerts_of_the_one_it_replaced(store: Store) -> None:
    alert_queries.sync_alerts(store, triage(alert(), model_version=1), T0)
    opened = alert_queries.sync_alerts(store, triage(alert(), model_version=2), T0 + MINUTE)
    assert opened == [alert()]
    assert open_alerts(store) == [("harmful_shift", 2)]


def test_ticks_at_the_same_time_never_open_two_alerts_of_a_kind(open_again: Callable[[], Store]) -> None:
    stores = [open_again() for _ in range(4)]
    outcome = triage(alert(), alert("dataset_drift"))
    opened = at_once([partial(alert_queries.sync_alerts, store, outcome, T0) for store in stores])
    assert sorted(one.kind for several in opened for one in several) == ["dataset_drift", "harmful_shift"]
    assert open_alerts(stores[0]) == [("dataset_drift", 1), ("harmful_shift", 1)]


def test_the_database_refuses_a_second_open_alert_of_a_kind(store: Store) -> None:
    alert_queries.sync_alerts(store, triage(alert()), T0)
    row: dict[str, Any] = dict(alert_queries.list_alerts(store)[0]._mapping) | {"alert_id": new_id()}
    with pytest.raises(IntegrityError, match="monitoring_alerts_one_open_per_kind"), store.engine.begin() as connection:
        connection.execute(store.tables.monitoring_alerts.insert().values(**row))


def test_an_alert_is_acknowledged_once_and_stays_open(store: Store) -> None:
    alert_queries.sync_alerts(store, triage(alert()), T0)
    (row,) = alert_queries.list_alerts(store)
    assert alert_queries.acknowledge_alert(store, row.alert_id, "ada", T0 + MINUTE)
    assert not alert_queries.acknowledge_alert(store, row.alert_id, "bob", T0 + 2 * MINUTE)
    assert not alert_queries.acknowledge_alert(store, new_id(), "ada", T0)
    (seen,) = alert_queries.list_alerts(store, only_open=True)
    assert (seen.acknowledged_by, seen.acknowledged_at) == ("ada", T0 + MINUTE)
