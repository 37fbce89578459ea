"""A walk of the table of states in which the loop cannot go on by itself: each is one alert and one line of `status`."""

from __future__ import annotations

import io
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from sqlalchemy import text

from selfheal.adapters.decision_log import record_decision
from selfheal.adapters.postgres import alerts, probations
from selfheal.adapters.postgres.embedded import EmbeddedServer
from selfheal.adapters.postgres.training_failures import record_training_failure
from selfheal.cli.status import status_screen
from selfheal.domain.probation import UNDECIDED
from selfheal.domain.records import Action, Alert, LabelQuarantine, Severity, Trigger
from selfheal.domain.stalls import RAISED_HERE, STALL_STATES, StallState
from selfheal.services.platform import Platform, open_platform
from selfheal.services.probation import watch_probation
from selfheal.services.retraining import decide_retraining
from selfheal.services.stalls import watch_stalls
from selfheal.services.status import overview
from selfheal.services.tick import check_traffic
from tests import builders
from tests.clones import copy_of
from tests.conftest import TEMPLATE, drop_databases
from tests.docs.pages import codes, table
from tests.services.steps import tick
from tests.times import T0
from tests.traffic import SECOND, ingest_all, journal_labels, serve, toy_rows

_numbers = itertools.count(1)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)


@dataclass(frozen=True)
class Put:
    """What a platform is led into, and what is known at that moment."""

    now: datetime
    stopped_sensors: tuple[str, ...] = ()


Way = Callable[[Platform], Put]


def harmful(platform: Platform, now: datetime) -> None:
    """The newest tick says that the model does harm: a retraining is called for."""
    tick(platform, now)
    with platform.store.engine.begin() as connection:
        connection.execute(text("UPDATE monitoring_metrics SET verdict = 'harmful_shift', episode_id = 'e1'"))


def harm_with(n_rows: int = 1_500, *, unchecked: bool = False, **options: Any) -> Way:
    def put(platform: Platform) -> Put:
        rows = options.pop("rows", None)
        sent = serve(platform, toy_rows(n_rows) if rows is None else rows, **options)
        harmful(platform, sent.last_at + SECOND)
        if unchecked:
            with platform.store.engine.begin() as connection:
                connection.execute(text("UPDATE monitoring_metrics SET n_predictions = 10"))
        return Put(sent.last_at + HOUR)

    return put


def attempted(n_attempts: int) -> Way:
    """As many attempts have failed for what their rows are like."""

    def put(platform: Platform) -> Put:
        sent = serve(platform, toy_rows(1_500))
        harmful(platform, sent.last_at + SECOND)
        for number in range(n_attempts):
            made = builders.decision(
                decision_id=f"attempt {number}",
                created_at=sent.last_at + HOUR,
                action=Action.TRAIN,
                episode_id="e1",
                attempt=number + 1,
                n_labels=1_500,
            )
            record_decision(platform.store, platform.settings.data_dir, made)
            record_training_failure(platform.store, made.decision_id, "one class only", sent.last_at + HOUR)
        return Put(sent.last_at + 2 * HOUR)

    return put


def no_version(platform: Platform) -> Put:
    change_version(platform, "stage = 'Archived'")
    return Put(T0 + HOUR)


def no_traffic(platform: Platform) -> Put:
    sent = serve(platform, toy_rows(300))
    now = sent.last_at + 30 * HOUR
    check_traffic(platform, now - 9 * DAY, now)
    return Put(now)


def stopped_sensor(_: Platform) -> Put:
    return Put(T0 + HOUR, ("drift_sensor",))


def slow_traffic(platform: Platform) -> Put:
    return Put(serve(platform, toy_rows(60), step=6 * HOUR).last_at)


def no_labels(platform: Platform) -> Put:
    return Put(serve(platform, toy_rows(300), step=HOUR, labelled_share=0).last_at)


def broken_feed(platform: Platform) -> Put:
    sent = serve(platform, toy_rows(300))
    tick(platform, sent.last_at + SECOND, feed_problems=("load_ratio: always 1",))
    return Put(sent.last_at + HOUR)


def cooling_down(platform: Platform) -> Put:
    change_version(platform, "trigger_reason = 'drift'")
    return harm_with()(platform)


def another_contract(platform: Platform) -> Put:
    put = harm_with()(platform)
    change_version(platform, "contract_hash = 'another'")
    return put


def undecided_probation(platform: Platform) -> Put:
    change_version(platform, f"previous_version = 1, probation_until = '{(T0 + 3 * DAY).isoformat()}'")
    serve(platform, toy_rows(300), labelled_share=0)
    watch_probation(platform, T0 + 3 * DAY + HOUR)
    return Put(T0 + 3 * DAY + HOUR)


def change_version(platform: Platform, changes: str) -> None:
    with platform.store.engine.begin() as connection:
        connection.execute(text(f"UPDATE model_metadata SET {changes}"))


def immature(platform: Platform) -> Put:
    """Labels of class 1 come at once, those of class 0 after two days: what has matured is too little."""
    rows = toy_rows(1_100)
    sent = serve(platform, rows, step=timedelta(minutes=5), labelled_share=0)
    by_slot: dict[datetime, list[int]] = {}
    for place, made_at in enumerate(sent.created_at):
        came_at = made_at + (timedelta(minutes=10) if rows["true_label"].iloc[place] else 41 * HOUR)
        slot = T0 + HOUR * (1 + (came_at - T0) // HOUR)
        if slot <= sent.last_at:
            by_slot.setdefault(slot, []).append(place)
    for slot, places in by_slot.items():
        ids = [sent.prediction_ids[place] for place in places]
        labels = rows["true_label"].iloc[places].astype(int).tolist()
        journal_labels(platform.settings.data_dir, ids, labels, received_at=slot)
    ingest_all(platform)
    harmful(platform, sent.last_at + SECOND)
    return Put(sent.last_at + HOUR)


def thinly_labelled(platform: Platform) -> Put:
    """Every fifth prediction gets its label, within ten minutes."""
    rows = toy_rows(3_600)
    sent = serve(platform, rows, step=10 * SECOND, labelled_share=0)
    for first in range(0, 3_600, 60):
        places = range(first, first + 60, 5)
        labels = rows["true_label"].iloc[list(places)].astype(int).tolist()
        at = sent.created_at[min(first + 60, 3_599)]
        ids = [sent.prediction_ids[place] for place in places]
        journal_labels(platform.settings.data_dir, ids, labels, received_at=at)
    ingest_all(platform)
    harmful(platform, sent.last_at + SECOND)
    return Put(sent.last_at + HOUR)


def with_suspect_labels(platform: Platform) -> Put:
    put = harm_with()(platform)
    platform.traffic.record_label_quarantine(LabelQuarantine("a1", 1, put.now + DAY, ("inverted",)))
    return put


def raised(kind: str, source: str) -> Way:
    """As the part of the platform raises it that sees the cause; how it does is tested there."""

    def put(platform: Platform) -> Put:
        with platform.store.engine.begin() as connection:
            connection.execute(text("DELETE FROM monitoring_alerts"))
        alert = Alert(kind, Severity.CRITICAL, f"{kind} happened")
        alerts.open_or_update_alert(platform.store, source, None, alert, T0 + HOUR)
        return Put(T0 + HOUR)

    return put


ONE_CLASS = toy_rows(1_500).assign(true_label=[1] * 300 + [0] * 1_200)

WAYS: dict[str, Way] = {
    "no version in production": no_version,
    "bootstrap fails": raised("bootstrap_job_failed", "runs"),
    "no traffic": no_traffic,
    "journal not copied": raised("journal_lag", alerts.SERVING),
    "monitor stopped": raised("monitor_silent", alerts.SERVING),
    "ticks fail": raised("monitoring_job_failed", "runs"),
    "sensor stopped": stopped_sensor,
    "window not filled": slow_traffic,
    "no labels": no_labels,
    "broken feed": broken_feed,
    "suspect labels": raised("labels_suspect", alerts.MONITORING),
    "selected labels": raised("labels_selected", alerts.MONITORING),
    "labels withheld": with_suspect_labels,
    "cooldown": cooling_down,
    "too few labels": harm_with(600),
    "too few matured labels": immature,
    "too few labels of a class": harm_with(rows=ONE_CLASS),
    "label coverage too low": thinly_labelled,
    "feed not checked": harm_with(unchecked=True),
    "back-off": attempted(1),
    "attempts used up": attempted(3),
    "another contract": another_contract,
    "training fails": raised("retraining_job_failed", "runs"),
    "promotion refused": raised("promotion_refused", alerts.PROMOTION),
    "version not in MLflow": raised("registry_out_of_sync", alerts.REGISTRY),
    "version not served": raised("model_refused", alerts.SERVING),
    "probation not compared": raised("probation_cannot_compare", probations.ALERT_SOURCE),
    "probation undecided": undecided_probation,
    "probation without evidence": raised("probation_without_evidence", probations.ALERT_SOURCE),
    "probation fails": raised("probation_job_failed", "runs"),
    "rollback failed": raised("rollback_failed", probations.ALERT_SOURCE),
}


@pytest.fixture
def walked(server: EmbeddedServer, bootstrapped_template: Path, tmp_path: Path) -> Iterator[Platform]:
    """A platform of its own with version 1. MLflow's tables are the template's: nothing here writes to them."""
    name = f"stall{next(_numbers)}"
    settings = copy_of(server, TEMPLATE, bootstrapped_template, name, tmp_path / "data")
    limits = {"promotion_cooldown_days": 7.0, "max_attempts_per_episode": 3}
    opened = open_platform(settings.model_copy(update=limits))
    yield opened
    opened.close()
    drop_databases(server, name)


@pytest.fixture(scope="module")
def shared(
    server: EmbeddedServer, bootstrapped_template: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Platform]:
    """The platform of all states that are only alerts."""
    data_dir = tmp_path_factory.mktemp("stalls") / "data"
    opened = open_platform(copy_of(server, TEMPLATE, bootstrapped_template, "stalls", data_dir))
    yield opened
    opened.close()
    drop_databases(server, "stalls")


@pytest.mark.parametrize("state", STALL_STATES, ids=lambda state: state.name)
def test_each_state_is_one_alert_and_one_line_of_status(request: pytest.FixtureRequest, state: StallState) -> None:
    is_only_an_alert = WAYS[state.name].__qualname__.startswith(raised.__name__)
    walked: Platform = request.getfixturevalue("shared" if is_only_an_alert else "walked")
    put = WAYS[state.name](walked)
    for _ in range(2):  # the sensor is evaluated every minute
        watch_stalls(walked, put.now - 9 * DAY, put.now, put.stopped_sensors)
    kinds = [row.kind for row in alerts.list_alerts(walked.store, only_open=True)]
    assert kinds.count(state.alert_kind) == 1
    shown = overview(walked, put.now)
    lines = [stall for stall in shown["stalls"] if stall["state"] == state.name]
    assert [line["alert_kind"] for line in lines] == [state.alert_kind]
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(status_screen(shown))
    assert f"  {state.name}: " in console.export_text()


def test_every_state_has_a_way_into_it() -> None:
    assert set(WAYS) == {state.name for state in STALL_STATES}


def test_the_alert_goes_when_the_state_does(walked: Platform) -> None:
    put = WAYS["too few labels"](walked)
    watch_stalls(walked, put.now - DAY, put.now)
    (alert,) = alerts.list_alerts(walked.store, only_open=True)
    assert alert.kind == "retraining_waits"
    assert "600 labelled predictions, 667 wanted" in alert.message
    assert "labels a day the 67 missing ones are there on 2026-03-02" in alert.message
    sent = serve(walked, toy_rows(100, seed=2), start=put.now)
    watch_stalls(walked, put.now - DAY, sent.last_at + HOUR)
    assert alerts.list_alerts(walked.store, only_open=True) == []
    decision = decide_retraining(
        walked, Trigger.DRIFT, episode_id="e1", actor="test", reason="harm", now=sent.last_at + HOUR
    )
    assert decision.action is Action.TRAIN


def test_the_page_of_monitoring_has_the_table() -> None:
    rows = table("docs/monitoring.md", "state")
    assert [(row[0], *codes(row[1])) for row in rows] == [(state.name, state.alert_kind) for state in STALL_STATES]


STOPS_NOTHING = {
    "dataset_drift", "feature_drift", "many_features_drifted", "harmful_shift", "journal_damaged", "label_conflict",
    "unusable_values",
    "maintenance_job_failed", "policy_report_job_failed", "promote_job_failed", "rollback_job_failed", "probation_failed",
}  # fmt: skip
"""Alerts after which the loop goes on by itself, or that a person has caused and sees."""


def test_every_alert_is_of_such_a_state_or_stops_nothing() -> None:
    kinds = {codes(row[0])[0] for row in table("docs/runbook.md", "kind")}
    assert kinds == STOPS_NOTHING | {state.alert_kind for state in STALL_STATES}
    assert {UNDECIDED, *RAISED_HERE} <= kinds
