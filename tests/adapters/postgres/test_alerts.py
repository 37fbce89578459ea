"""Alerts of several sources in one table: each source opens and closes its own, and no trouble rings twice."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from typing import Any

import pytest
from alembic import command
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

from selfheal.adapters.postgres import alerts as alert_queries
from selfheal.adapters.postgres import migrate
from selfheal.adapters.postgres.store import Store
from selfheal.domain.records import Alert, Severity, Triage, Verdict
from selfheal.kit.ids import new_id
from tests import builders
from tests.at_once import at_once
from tests.times import T0

MINUTE = timedelta(minutes=1)
REFUSED = Alert("model_refused", Severity.CRITICAL, "version 2 does not load", {"version": 2})
LAG = Alert("journal_lag", Severity.WARNING, "12 MB are not copied", {"bytes": 12_000_000})
DRIFT = Alert("dataset_drift", Severity.CRITICAL, "drifted")


def tick(*alerts: Alert, model_version: int = 1) -> Triage:
    window = builders.window(model_version=model_version)
    return Triage(window, Verdict.HARMFUL_SHIFT, ("drifted",), alerts, "e1")


def open_alerts(store: Store) -> list[tuple[str, str, int | None]]:
    rows = alert_queries.list_alerts(store, only_open=True)
    return sorted((row.source, row.kind, row.model_version) for row in rows)


def open_kinds(store: Store) -> list[tuple[str, int | None]]:
    return [(kind, version) for _, kind, version in open_alerts(store)]


def alert(kind: str = "harmful_shift", message: str = "losing", severity: Severity = Severity.CRITICAL) -> Alert:
    return Alert(kind, severity, message, {"brier_excess": 0.1})


def test_a_held_alert_opens_once_goes_on_and_is_resolved_by_its_source(store: Store) -> None:
    assert alert_queries.open_or_update_alert(store, "serving", 2, REFUSED, T0)
    assert not alert_queries.open_or_update_alert(store, "serving", 2, REFUSED, T0 + MINUTE)
    (row,) = alert_queries.list_alerts(store)
    assert (row.message, row.metrics, row.created_at, row.updated_at) == (REFUSED.message, REFUSED.metrics, T0, T0)
    assert alert_queries.resolve_alert(store, "serving", "model_refused", T0 + MINUTE)
    assert not alert_queries.resolve_alert(store, "serving", "model_refused", T0 + 2 * MINUTE)
    (row,) = alert_queries.list_alerts(store)
    assert (row.resolved_at, row.resolved_by) == (T0 + MINUTE, "serving")
    assert alert_queries.open_or_update_alert(store, "serving", 2, REFUSED, T0 + 3 * MINUTE), (
        "trouble that comes back rings again"
    )


def test_a_held_alert_tells_what_is_true_now(store: Store) -> None:
    alert_queries.open_or_update_alert(store, "serving", None, LAG, T0)
    worse = Alert("journal_lag", Severity.CRITICAL, "90 MB are not copied", {"bytes": 90_000_000})
    assert not alert_queries.open_or_update_alert(store, "serving", None, worse, T0 + MINUTE)
    (row,) = alert_queries.list_alerts(store, only_open=True)
    assert (row.message, row.severity, row.metrics) == (worse.message, "critical", worse.metrics)
    assert (row.created_at, row.updated_at) == (T0, T0 + MINUTE)


def test_a_tick_leaves_the_alerts_of_other_sources_alone(store: Store) -> None:
    alert_queries.open_or_update_alert(store, "serving", 2, REFUSED, T0)
    alert_queries.open_or_update_alert(store, "serving", 1, DRIFT, T0)
    alert_queries.sync_alerts(store, tick(), T0 + MINUTE)
    assert alert_queries.sync_alerts(store, tick(DRIFT), T0 + 2 * MINUTE) == [DRIFT], "the same kind, by another source"
    alert_queries.sync_alerts(store, tick(), T0 + 3 * MINUTE)
    assert open_alerts(store) == [("serving", "dataset_drift", 1), ("serving", "model_refused", 2)]


def test_a_source_resolves_its_own_alerts_of_the_kind_for_every_version(store: Store) -> None:
    alert_queries.sync_alerts(store, tick(DRIFT), T0)
    for version in (None, 2, 3):
        alert_queries.open_or_update_alert(store, "serving", version, REFUSED, T0)
    alert_queries.open_or_update_alert(store, "serving", None, LAG, T0)
    alert_queries.resolve_alert(store, "serving", "model_refused", T0 + MINUTE)
    assert open_alerts(store) == [("monitoring", "dataset_drift", 1), ("serving", "journal_lag", None)]


@pytest.mark.parametrize("model_version", [2, None])
def test_processes_that_hold_the_same_alert_at_once_open_one(
    open_again: Callable[[], Store], model_version: int | None
) -> None:
    stores = [open_again() for _ in range(4)]
    opened = at_once(
        [partial(alert_queries.open_or_update_alert, one, "serving", model_version, REFUSED, T0) for one in stores]
    )
    assert sorted(opened) == [False, False, False, True]
    assert len(alert_queries.list_alerts(stores[0])) == 1


def test_alerts_written_before_there_were_sources_are_monitorings(store: Store) -> None:
    """Also those that a process of the release before writes while the hosts are updated."""
    with store.engine.begin() as connection:
        command.downgrade(migrate.alembic_config(store, connection), "0002")
        written = text(
            "INSERT INTO monitoring_alerts "
            "(alert_id, model_name, model_version, kind, severity, message, metrics, created_at, updated_at) VALUES "
            "(gen_random_uuid(), 'machine_failure', 1, :kind, 'critical', 'drifted', '{}', now(), now())"
        )
        connection.execute(written, {"kind": "feature_drift"})
    migrate.migrate(store)
    with store.engine.begin() as connection:
        connection.execute(written, {"kind": "dataset_drift"})
    assert open_alerts(store) == [("monitoring", "dataset_drift", 1), ("monitoring", "feature_drift", 1)]
    alert_queries.sync_alerts(store, tick(), T0)
    assert open_alerts(store) == []


@pytest.mark.parametrize(
    ("before", "now"),
    [("registry_strayed", "registry_out_of_sync"), ("probation_blind", "probation_cannot_compare")],
)
def test_an_open_alert_whose_kind_was_renamed_is_resolved_under_its_new_name(
    store: Store, before: str, now: str
) -> None:
    with store.engine.begin() as connection:
        command.downgrade(migrate.alembic_config(store, connection), "0008")
    for kind in (before, "dataset_drift"):
        alert_queries.open_or_update_alert(store, "registry", None, Alert(kind, Severity.WARNING, "as it was"), T0)
    alert_queries.resolve_alert(store, "registry", before, T0 + MINUTE)
    alert_queries.open_or_update_alert(store, "registry", None, Alert(before, Severity.WARNING, "again"), T0)
    migrate.migrate(store)
    kinds = sorted(row.kind for row in alert_queries.list_alerts(store))
    assert kinds == sorted(["dataset_drift", now, now]), "past ones too, and no other kind"
    alert_queries.open_or_update_alert(store, "registry", None, Alert(now, Severity.WARNING, "goes on"), T0 + MINUTE)
    assert open_alerts(store) == sorted([("registry", "dataset_drift", None), ("registry", now, None)])
    assert alert_queries.resolve_alert(store, "registry", now, T0 + 2 * MINUTE)
    assert open_alerts(store) == [("registry", "dataset_drift", None)]


# Of ticks


def test_an_alert_opens_once_goes_on_and_is_resolved(store: Store) -> None:
    assert alert_queries.sync_alerts(store, tick(alert()), T0) == [alert()]
    assert alert_queries.sync_alerts(store, tick(alert()), T0 + MINUTE) == []
    (going_on,) = alert_queries.list_alerts(store)
    assert (going_on.created_at, going_on.updated_at, going_on.resolved_at) == (T0, T0, None)
    alert_queries.sync_alerts(store, tick(alert(message="losing more")), T0 + 2 * MINUTE)
    (updated,) = alert_queries.list_alerts(store)
    assert (updated.alert_id, updated.message) == (going_on.alert_id, "losing more")
    assert (updated.created_at, updated.updated_at) == (T0, T0 + 2 * MINUTE)
    alert_queries.sync_alerts(store, tick(), T0 + 3 * MINUTE)
    (resolved,) = alert_queries.list_alerts(store)
    assert (resolved.resolved_at, resolved.resolved_by) == (T0 + 3 * MINUTE, "monitoring")
    assert open_kinds(store) == []


def test_trouble_that_comes_back_opens_a_new_alert(store: Store) -> None:
    for minute, holding in enumerate(([alert()], [], [alert()])):
        opened = alert_queries.sync_alerts(store, tick(*holding), T0 + minute * MINUTE)
        assert len(opened) == len(holding)
    assert len(alert_queries.list_alerts(store)) == 2
    assert open_kinds(store) == [("harmful_shift", 1)]


def test_metrics_follow_the_newest_tick_even_if_the_message_stays(store: Store) -> None:
    alert_queries.sync_alerts(store, tick(alert()), T0)
    alert_queries.sync_alerts(store, tick(dataclasses.replace(alert(), metrics={"brier_excess": 0.3})), T0 + MINUTE)
    (row,) = alert_queries.list_alerts(store)
    assert (row.metrics, row.updated_at) == ({"brier_excess": 0.3}, T0 + MINUTE)


def test_too_little_traffic_to_tell_closes_nothing(store: Store) -> None:
    alert_queries.sync_alerts(store, tick(alert()), T0)
    unknown = dataclasses.replace(tick(), verdict=Verdict.INSUFFICIENT)
    assert alert_queries.sync_alerts(store, unknown, T0 + MINUTE) == []
    assert open_kinds(store) == [("harmful_shift", 1)]
    of_another_version = dataclasses.replace(tick(model_version=2), verdict=Verdict.INSUFFICIENT)
    alert_queries.sync_alerts(store, of_another_version, T0 + 2 * MINUTE)
    assert open_kinds(store) == [], "the version it was about serves no more"


def test_the_same_trouble_in_another_episode_is_another_alert(store: Store) -> None:
    alert_queries.sync_alerts(store, tick(alert()), T0)
    second = dataclasses.replace(tick(alert()), episode_id="e2")
    assert alert_queries.sync_alerts(store, second, T0 + MINUTE) == [alert()]
    assert alert_queries.sync_alerts(store, second, T0 + 2 * MINUTE) == []
    rows = alert_queries.list_alerts(store)
    assert [(row.episode_id, row.resolved_at) for row in rows] == [("e2", None), ("e1", T0 + MINUTE)]


def test_an_alert_goes_on_through_a_broken_feed_which_belongs_to_no_episode(store: Store) -> None:
    no_episode = dataclasses.replace(tick(alert()), verdict=Verdict.BROKEN_FEED, episode_id=None)
    for minute, seen in enumerate((no_episode, tick(alert()), no_episode)):
        opened = alert_queries.sync_alerts(store, seen, T0 + minute * MINUTE)
        assert len(opened) == (minute == 0)
    (row,) = alert_queries.list_alerts(store)
    assert row.episode_id == "e1"


def test_only_what_no_longer_holds_is_resolved(store: Store) -> None:
    alert_queries.sync_alerts(store, tick(alert("harmful_shift"), alert("dataset_drift")), T0)
    alert_queries.sync_alerts(store, tick(alert("dataset_drift"), alert("feature_drift")), T0 + MINUTE)
    assert open_kinds(store) == [("dataset_drift", 1), ("feature_drift", 1)]


def test_a_new_version_closes_the_alerts_of_the_one_it_replaced(store: Store) -> None:
    alert_queries.sync_alerts(store, tick(alert(), model_version=1), T0)
    opened = alert_queries.sync_alerts(store, tick(alert(), model_version=2), T0 + MINUTE)
    assert opened == [alert()]
    assert open_kinds(store) == [("harmful_shift", 2)]


def test_ticks_at_the_same_time_never_open_two_alerts_of_a_kind(open_again: Callable[[], Store]) -> None:
    stores = [open_again() for _ in range(4)]
    outcome = tick(alert(), alert("dataset_drift"))
    opened = at_once([partial(alert_queries.sync_alerts, store, outcome, T0) for store in stores])
    assert sorted(one.kind for several in opened for one in several) == ["dataset_drift", "harmful_shift"]
    assert open_kinds(stores[0]) == [("dataset_drift", 1), ("harmful_shift", 1)]


def test_the_database_refuses_a_second_open_alert_of_a_kind(store: Store) -> None:
    alert_queries.sync_alerts(store, tick(alert()), T0)
    row: dict[str, Any] = dict(alert_queries.list_alerts(store)[0]._mapping) | {"alert_id": new_id()}
    with pytest.raises(IntegrityError, match="monitoring_alerts_one_open_per_kind"), store.engine.begin() as connection:
        connection.execute(store.tables.monitoring_alerts.insert().values(**row))


def test_an_alert_is_acknowledged_once_and_stays_open(store: Store) -> None:
    alert_queries.sync_alerts(store, tick(alert()), T0)
    (row,) = alert_queries.list_alerts(store)
    assert alert_queries.acknowledge_alert(store, row.alert_id, "ada", T0 + MINUTE)
    assert not alert_queries.acknowledge_alert(store, row.alert_id, "bob", T0 + 2 * MINUTE)
    assert not alert_queries.acknowledge_alert(store, new_id(), "ada", T0)
    (seen,) = alert_queries.list_alerts(store, only_open=True)
    assert (seen.acknowledged_by, seen.acknowledged_at) == ("ada", T0 + MINUTE)
