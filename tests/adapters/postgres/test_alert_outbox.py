"""Telling people of the alerts in the table: once each, tried again until it works, never by two at once, never lost."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta
from functools import partial
from typing import Any

import pytest

from selfheal.adapters.alerting.delivery import LEASE, MAX_FAILURES, RETRY_BACKOFF, deliver_due_alerts
from selfheal.adapters.postgres import alert_outbox, alerts
from selfheal.adapters.postgres.store import Store
from selfheal.domain.records import Alert, Severity
from selfheal.settings import Settings, load_settings
from tests.adapters.alerting.test_delivery import Webhook
from tests.at_once import at_once
from tests.local_server import served
from tests.times import T0

MINUTE, HOUR = timedelta(minutes=1), timedelta(hours=1)
WARNING = Alert("feature_drift", Severity.WARNING, "3 features have drifted")
CRITICAL = Alert("feature_drift", Severity.CRITICAL, "8 features have drifted")


@pytest.fixture
def chat() -> Iterator[Webhook]:
    with served(Webhook()) as server:
        yield server


@pytest.fixture
def pager() -> Iterator[Webhook]:
    with served(Webhook()) as server:
        yield server


@pytest.fixture
def settings(chat: Webhook, pager: Webhook) -> Settings:
    return load_settings(notify_urls=chat.url, notify_urls_critical=pager.url)


def hold(store: Store, alert: Alert = WARNING, minutes: float = 0) -> bool:
    return alerts.open_or_update_alert(store, "serving", 1, alert, T0 + minutes * MINUTE)


def resolve(store: Store, minutes: float) -> None:
    alerts.resolve_alert(store, "serving", WARNING.kind, T0 + minutes * MINUTE)


def titles(webhook: Webhook) -> list[str]:
    return [f"{message['type']} {message['title'].removeprefix('selfheal: ')}" for message in webhook.received]


def row_of(store: Store) -> Any:
    return alerts.list_alerts(store)[0]


def test_an_alert_is_told_once_and_its_end_to_whom_it_was_told(
    store: Store, settings: Settings, chat: Webhook, pager: Webhook
) -> None:
    hold(store)
    assert [deliver_due_alerts(settings, store, T0 + i * MINUTE) for i in range(3)] == [1, 0, 0]
    assert (row_of(store).notified_at, row_of(store).notify_failures) == (T0, 0)
    resolve(store, 90)
    assert [deliver_due_alerts(settings, store, T0 + (90 + i) * MINUTE) for i in range(3)] == [1, 0, 0]
    assert titles(chat) == ["warning feature drift", "success feature drift resolved"]
    assert "after 1 h 30 min: " in chat.received[1]["message"]
    assert pager.received == [], "it was no critical one"


def test_a_severity_that_rises_is_told_to_the_pager_and_the_chat(
    store: Store, settings: Settings, chat: Webhook, pager: Webhook
) -> None:
    hold(store)
    deliver_due_alerts(settings, store, T0)
    hold(store, CRITICAL, 5)
    deliver_due_alerts(settings, store, T0 + 5 * MINUTE)
    hold(store, WARNING, 10)
    hold(store, CRITICAL, 15)
    deliver_due_alerts(settings, store, T0 + 15 * MINUTE)
    assert titles(chat) == ["warning feature drift", "failure feature drift"]
    assert titles(pager) == ["failure feature drift"]
    resolve(store, 20)
    deliver_due_alerts(settings, store, T0 + 20 * MINUTE)
    assert titles(chat)[-1] == titles(pager)[-1] == "success feature drift resolved"


def test_a_message_that_changes_is_no_news(store: Store, settings: Settings, chat: Webhook) -> None:
    hold(store)
    deliver_due_alerts(settings, store, T0)
    hold(store, Alert(WARNING.kind, WARNING.severity, "4 features have drifted"), 5)
    assert deliver_due_alerts(settings, store, T0 + 5 * MINUTE) == 0
    assert row_of(store).message == "4 features have drifted"


def test_an_acknowledged_alert_rings_again_only_if_it_becomes_more_severe(
    store: Store, settings: Settings, chat: Webhook
) -> None:
    chat.status = 503
    hold(store)
    assert deliver_due_alerts(settings, store, T0) == 0
    alerts.acknowledge_alert(store, row_of(store).alert_id, "ada", T0, "on it")
    chat.status = 200
    assert deliver_due_alerts(settings, store, T0 + HOUR) == 0, "ada knows"
    hold(store, CRITICAL, 90)
    assert deliver_due_alerts(settings, store, T0 + 2 * HOUR) == 2
    row = row_of(store)
    assert (row.acknowledged_by, row.acknowledged_note, row.acknowledged_severity) == ("ada", "on it", "warning")


def test_a_channel_that_fails_is_tried_again_alone_and_the_alert_shows_it(
    store: Store, settings: Settings, chat: Webhook, pager: Webhook
) -> None:
    pager.status = 503
    hold(store, CRITICAL)
    assert deliver_due_alerts(settings, store, T0) == 1
    assert (row_of(store).notify_failures, row_of(store).notified_at) == (1, T0)
    assert deliver_due_alerts(settings, store, T0 + MINUTE / 2) == 0, "not at once"
    assert deliver_due_alerts(settings, store, T0 + 5 * MINUTE) == 0
    assert row_of(store).notify_failures == 2
    pager.status = 200
    assert deliver_due_alerts(settings, store, T0 + HOUR) == 1
    assert (row_of(store).notify_failures, row_of(store).notified_at) == (0, T0 + HOUR)
    assert titles(chat) == titles(pager) == ["failure feature drift"]


def test_trying_again_is_bounded_and_the_alert_stays(store: Store, settings: Settings, chat: Webhook) -> None:
    chat.status = 503
    hold(store)
    now = T0
    for _ in range(MAX_FAILURES):
        deliver_due_alerts(settings, store, now)
        now += 3 * HOUR
    assert row_of(store).notify_failures == MAX_FAILURES
    assert row_of(store).notify_after is None
    chat.status = 200
    assert deliver_due_alerts(settings, store, now) == 0
    assert row_of(store).resolved_at is None
    hold(store, CRITICAL, 60 * 24 * 9)
    assert deliver_due_alerts(settings, store, now + 9 * 24 * HOUR) == 2, "a higher severity is tried anew"


def test_without_addresses_nothing_waits_to_be_told(store: Store, chat: Webhook) -> None:
    hold(store)
    assert deliver_due_alerts(load_settings(), store, T0) == 0
    assert deliver_due_alerts(load_settings(notify_urls=chat.url), store, T0 + HOUR) == 0, (
        "no flood once an address is set"
    )
    assert row_of(store).notified_at is None


def test_what_was_over_before_anybody_heard_of_it_is_not_told(store: Store, settings: Settings, chat: Webhook) -> None:
    hold(store)
    resolve(store, 1)
    assert deliver_due_alerts(settings, store, T0 + 2 * MINUTE) == 0


def test_processes_that_tell_at_once_send_one_message(
    open_again: Callable[[], Store], settings: Settings, chat: Webhook
) -> None:
    stores = [open_again() for _ in range(4)]
    hold(stores[0])
    assert sorted(at_once([partial(deliver_due_alerts, settings, one, T0) for one in stores])) == [0, 0, 0, 1]
    assert len(chat.received) == 1


def test_what_a_process_took_and_did_not_finish_is_told_by_another(
    store: Store, settings: Settings, chat: Webhook
) -> None:
    hold(store)
    assert len(alert_outbox.claim_due(store, T0, LEASE, 10)) == 1  # and then it is killed
    assert deliver_due_alerts(settings, store, T0 + LEASE / 2) == 0
    assert deliver_due_alerts(settings, store, T0 + LEASE) == 1
    assert titles(chat) == ["warning feature drift"]


def test_what_happens_while_a_message_is_on_its_way_is_told_too(
    store: Store, settings: Settings, chat: Webhook
) -> None:
    hold(store)
    (claimed,) = alert_outbox.claim_due(store, T0, LEASE, 10)
    resolve(store, 0.5)
    alert_outbox.record_delivered(store, claimed, {key_of(chat): "warning"}, is_done=True, retry_at=None, now=T0)
    assert deliver_due_alerts(settings, store, T0 + MINUTE) == 1
    assert titles(chat) == ["success feature drift resolved"]


def test_an_end_that_was_looked_at_before_the_beginning_was_kept_is_told_after_all(
    store: Store, settings: Settings, chat: Webhook
) -> None:
    hold(store)
    (claimed,) = alert_outbox.claim_due(store, T0, LEASE, 10)
    resolve(store, 0.5)
    assert deliver_due_alerts(settings, store, T0 + MINUTE / 2) == 0, "as far as is known nobody has heard of it"
    alert_outbox.record_delivered(store, claimed, {key_of(chat): "warning"}, is_done=True, retry_at=None, now=T0)
    assert deliver_due_alerts(settings, store, T0 + MINUTE) == 1
    assert titles(chat) == ["success feature drift resolved"]


def test_the_most_severe_are_told_first_and_the_rest_by_later_calls(
    store: Store, settings: Settings, chat: Webhook, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("selfheal.adapters.alerting.delivery.MAX_ALERTS_AT_ONCE", 2)
    for number, severity in enumerate((Severity.INFO, Severity.WARNING, Severity.CRITICAL)):
        hold(store, Alert(f"trouble_{number}", severity, "trouble"), number)
    now = T0 + 5 * MINUTE
    deliver_due_alerts(settings, store, now)
    assert {title.split()[-1] for title in titles(chat)} == {"1", "2"}
    deliver_due_alerts(settings, store, now)
    assert titles(chat)[-1] == "info trouble 0"


def test_a_message_put_off_before_the_clock_was_set_back_is_told_all_the_same(
    store: Store, settings: Settings, chat: Webhook
) -> None:
    hold(store)
    assert len(alert_outbox.claim_due(store, T0 + 48 * HOUR, LEASE, 10)) == 1  # and then it is killed
    assert deliver_due_alerts(settings, store, T0 + MINUTE) == 1
    assert titles(chat) == ["warning feature drift"]


def test_no_lease_and_no_back_off_is_taken_for_one_from_before_the_clock_was_set_back() -> None:
    assert max(LEASE, timedelta(seconds=RETRY_BACKOFF.max_seconds)) < alert_outbox.LONGEST_WAIT


def key_of(webhook: Webhook) -> str:
    from selfheal.kit.notify_urls import Channel

    return Channel(webhook.url).key
