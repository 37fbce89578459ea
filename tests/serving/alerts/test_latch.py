"""An alert of the service's own: somebody is told once, Postgres has it as soon as it can, and it ends."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from pydantic import SecretStr

from selfheal.domain.records import Alert, Severity
from selfheal.services.platform import Platform, open_platform
from selfheal.settings import Settings
from serving.alerts.latch import AlertLatch
from tests.adapters.alerting.test_delivery import Webhook
from tests.serving.running import eventually, query

KIND = "journal_lag"
ALERT = Alert(KIND, Severity.CRITICAL, "the journal is not copied", {"lag_seconds": 61})


@pytest.fixture
def platform(api_settings: Settings, webhook: Webhook) -> Iterator[Platform]:
    opened = open_platform(api_settings.model_copy(update={"notify_urls": SecretStr(webhook.url)}))
    yield opened
    opened.close()


def go_away(platform: Platform) -> None:
    """Postgres answers no more."""
    platform.store.breaker.shut()
    platform.store.engine.dispose()


def come_back(platform: Platform) -> None:
    platform.store.breaker.allow()


def kept(platform: Platform) -> list[tuple[Any, ...]]:
    """Message and whether it is over, of each alert there is, the oldest first."""
    return query(
        platform.settings,
        "SELECT message, resolved_at IS NOT NULL FROM monitoring_alerts WHERE kind = %s ORDER BY created_at",
        KIND,
    )


def is_told(platform: Platform) -> bool:
    rows = query(platform.settings, "SELECT notified_at IS NOT NULL FROM monitoring_alerts WHERE kind = %s", KIND)
    return bool(rows and rows[-1][0])


def test_somebody_is_told_once_however_often_it_is_raised(platform: Platform, webhook: Webhook) -> None:
    alarm = AlertLatch(platform, KIND)
    for _ in range(3):
        alarm.raise_(ALERT)
    eventually(lambda: is_told(platform), "somebody is told")
    assert kept(platform) == [(ALERT.message, False)]
    alarm.clear()
    assert kept(platform) == [(ALERT.message, True)]
    eventually(lambda: len(webhook.received) == 2, "its end is told")
    alarm.raise_(ALERT)
    eventually(lambda: len(webhook.received) == 3, "it is told again, because it was over")
    assert kept(platform) == [(ALERT.message, True), (ALERT.message, False)]
    titles = [message["title"] for message in webhook.received]
    assert titles == ["selfheal: journal lag", "selfheal: journal lag resolved", "selfheal: journal lag"]


def test_while_postgres_is_away_it_is_told_and_kept_later(platform: Platform, webhook: Webhook) -> None:
    alarm = AlertLatch(platform, KIND)
    go_away(platform)
    alarm.raise_(ALERT)
    alarm.raise_(ALERT)
    eventually(lambda: webhook.received, "somebody is told")
    before = datetime.now(UTC)
    assert kept(platform) == []
    come_back(platform)
    alarm.raise_(ALERT)
    assert kept(platform) == [(ALERT.message, False)]
    ((created_at,),) = query(platform.settings, "SELECT created_at FROM monitoring_alerts WHERE kind = %s", KIND)
    assert created_at < before, "it was first raised earlier"
    alarm.clear()
    assert kept(platform) == [(ALERT.message, True)]
    eventually(lambda: len(webhook.received) == 2, "its end is told to whom it was told past Postgres")
    assert [message["type"] for message in webhook.received] == ["failure", "success"]


def test_what_was_over_before_postgres_came_back_is_still_found_there(platform: Platform) -> None:
    alarm = AlertLatch(platform, KIND)
    go_away(platform)
    alarm.raise_(ALERT)
    come_back(platform)
    alarm.clear()
    alarm.clear()
    assert kept(platform) == [(ALERT.message, True)]


def test_what_cannot_be_cleared_now_is_cleared_later(platform: Platform) -> None:
    alarm = AlertLatch(platform, KIND)
    alarm.raise_(ALERT)
    go_away(platform)
    alarm.clear()
    come_back(platform)
    assert kept(platform) == [(ALERT.message, False)]
    alarm.clear()
    assert kept(platform) == [(ALERT.message, True)]


def test_of_several_processes_one_tells_and_any_ends_it(platform: Platform, webhook: Webhook) -> None:
    one, other = AlertLatch(platform, KIND), AlertLatch(platform, KIND)
    one.raise_(ALERT)
    eventually(lambda: is_told(platform), "somebody is told")
    other.raise_(ALERT)
    assert kept(platform) == [(ALERT.message, False)]
    AlertLatch(platform, KIND).clear()  # of a process that starts now and finds nothing wrong
    assert kept(platform) == [(ALERT.message, True)]
    eventually(lambda: len(webhook.received) == 2, "its end is told")
    assert [message["type"] for message in webhook.received] == ["failure", "success"]
