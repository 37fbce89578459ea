"""An alert that the service raises: sent once, recorded as soon as Postgres takes it, resolved with its cause."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from pydantic import SecretStr

from selfheal.domain.records import Alert, Severity
from selfheal.services.platform import Platform, open_platform
from selfheal.settings import Settings
from serving.alerts.latch import AlertLatch
from tests.adapters.alerting.test_delivery import Webhook
from tests.serving.running import query
from tests.waiting import eventually

KIND = "journal_lag"
ALERT = Alert(KIND, Severity.CRITICAL, "the journal is not copied", {"lag_seconds": 61})


@pytest.fixture
def platform(api_settings: Settings, webhook: Webhook) -> Iterator[Platform]:
    opened = open_platform(api_settings.model_copy(update={"notify_urls": SecretStr(webhook.url)}))
    yield opened
    opened.close()


def go_away(platform: Platform) -> None:
    """Postgres answers no more."""
    platform.store.breaker.block()
    platform.store.engine.dispose()


def come_back(platform: Platform) -> None:
    platform.store.breaker.allow()


def recorded(platform: Platform) -> list[tuple[Any, ...]]:
    """Message and whether it is resolved, of each alert there is, the oldest first."""
    return query(
        platform.settings,
        "SELECT message, resolved_at IS NOT NULL FROM monitoring_alerts WHERE kind = %s ORDER BY created_at",
        KIND,
    )


def is_delivered(platform: Platform) -> bool:
    rows = query(platform.settings, "SELECT notified_at IS NOT NULL FROM monitoring_alerts WHERE kind = %s", KIND)
    return bool(rows and rows[-1][0])


def wait_until_settled(platform: Platform) -> None:
    """Nothing is under way or due: what changes while a message is sent waits for the watchdog, which no test here has."""
    due = "SELECT 1 FROM monitoring_alerts WHERE kind = %s AND notify_after IS NOT NULL"
    eventually(lambda: not query(platform.settings, due, KIND), "nothing is due any more")


def test_an_alert_is_sent_once_however_often_it_is_raised(platform: Platform, webhook: Webhook) -> None:
    latch = AlertLatch(platform, KIND)
    for _ in range(3):
        latch.raise_(ALERT)
    eventually(lambda: is_delivered(platform), "it is sent")
    wait_until_settled(platform)
    assert recorded(platform) == [(ALERT.message, False)]
    latch.clear()
    assert recorded(platform) == [(ALERT.message, True)]
    eventually(lambda: len(webhook.received) == 2, "its resolution is sent")
    wait_until_settled(platform)
    latch.raise_(ALERT)
    eventually(lambda: len(webhook.received) == 3, "it is sent again, because it was resolved")
    assert recorded(platform) == [(ALERT.message, True), (ALERT.message, False)]
    titles = [message["title"] for message in webhook.received]
    assert titles == ["selfheal: journal lag", "selfheal: journal lag resolved", "selfheal: journal lag"]


def test_while_postgres_is_away_an_alert_is_sent_and_recorded_later(platform: Platform, webhook: Webhook) -> None:
    latch = AlertLatch(platform, KIND)
    go_away(platform)
    latch.raise_(ALERT)
    latch.raise_(ALERT)
    eventually(lambda: webhook.received, "it is sent")
    before = datetime.now(UTC)
    assert recorded(platform) == []
    come_back(platform)
    latch.raise_(ALERT)
    assert recorded(platform) == [(ALERT.message, False)]
    ((created_at,),) = query(platform.settings, "SELECT created_at FROM monitoring_alerts WHERE kind = %s", KIND)
    assert created_at < before, "it was first raised earlier"
    wait_until_settled(platform)
    latch.clear()
    assert recorded(platform) == [(ALERT.message, True)]
    eventually(lambda: len(webhook.received) == 2, "its resolution goes to the channels that got it without Postgres")
    assert [message["type"] for message in webhook.received] == ["failure", "success"]


def test_an_alert_that_ended_before_postgres_came_back_is_still_recorded(platform: Platform) -> None:
    latch = AlertLatch(platform, KIND)
    go_away(platform)
    latch.raise_(ALERT)
    come_back(platform)
    latch.clear()
    latch.clear()
    assert recorded(platform) == [(ALERT.message, True)]


def test_an_alert_that_cannot_be_resolved_now_is_resolved_by_the_next_call(platform: Platform) -> None:
    latch = AlertLatch(platform, KIND)
    latch.raise_(ALERT)
    go_away(platform)
    latch.clear()
    come_back(platform)
    assert recorded(platform) == [(ALERT.message, False)]
    latch.clear()
    assert recorded(platform) == [(ALERT.message, True)]


def test_of_several_processes_one_sends_an_alert_and_any_resolves_it(platform: Platform, webhook: Webhook) -> None:
    one, other = AlertLatch(platform, KIND), AlertLatch(platform, KIND)
    one.raise_(ALERT)
    eventually(lambda: is_delivered(platform), "it is sent")
    wait_until_settled(platform)
    other.raise_(ALERT)
    assert recorded(platform) == [(ALERT.message, False)]
    AlertLatch(platform, KIND).clear()  # of a process that starts now and finds nothing wrong
    assert recorded(platform) == [(ALERT.message, True)]
    eventually(lambda: len(webhook.received) == 2, "its resolution is sent")
    wait_until_settled(platform)
    assert [message["type"] for message in webhook.received] == ["failure", "success"]


def version_of_alert(platform: Platform) -> list[tuple[Any, ...]]:
    return query(
        platform.settings,
        "SELECT model_version, message, resolved_at IS NOT NULL FROM monitoring_alerts WHERE kind = %s "
        "ORDER BY created_at",
        KIND,
    )


def test_an_open_alert_is_not_written_again_unless_the_latch_records_each_call(platform: Platform) -> None:
    changed = replace(ALERT, message="the journal is still not copied")
    once = AlertLatch(platform, KIND)
    once.raise_(ALERT)
    once.raise_(changed)
    assert recorded(platform) == [(ALERT.message, False)]
    each = AlertLatch(platform, KIND, records_each_call=True)
    each.raise_(changed)
    assert recorded(platform) == [(changed.message, False)]
    each.raise_(ALERT)
    assert recorded(platform) == [(ALERT.message, False)]


def test_a_latch_that_records_each_call_opens_again_what_another_process_resolved(platform: Platform) -> None:
    latch = AlertLatch(platform, KIND, records_each_call=True)
    latch.raise_(ALERT, model_version=2)
    AlertLatch(platform, KIND).clear()
    latch.raise_(ALERT, model_version=2)
    assert version_of_alert(platform) == [(2, ALERT.message, True), (2, ALERT.message, False)]
