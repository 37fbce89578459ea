"""The API's watch over the monitor: it raises and ends the alert, and delivers what nobody else would."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, tzinfo

import pytest
from pydantic import SecretStr
from sqlalchemy.exc import OperationalError

from selfheal.adapters.postgres import alerts
from selfheal.domain.records import Alert, Severity
from selfheal.services.platform import Platform, open_platform
from selfheal.settings import Settings
from serving.alerts import monitor_watchdog as watching
from serving.alerts.monitor_watchdog import MonitorWatchdog, sight_of_monitor
from tests.adapters.alerting.test_delivery import Webhook
from tests.serving.history import add_tick
from tests.serving.running import api_in_thread, bodies, query
from tests.traffic import serve, toy_rows
from tests.waiting import eventually

MINUTE = timedelta(minutes=1)


@pytest.fixture
def platform(api_settings: Settings) -> Iterator[Platform]:
    opened = open_platform(api_settings)
    yield opened
    opened.close()


@pytest.fixture
def watch(platform: Platform) -> Iterator[MonitorWatchdog]:
    made = MonitorWatchdog(platform)
    yield made
    made.stop()


def states(platform: Platform) -> list[tuple[str, str, bool]]:
    """Kind, source and whether it is over, of each alert there is."""
    return sorted((row.kind, row.source, row.resolved_at is not None) for row in alerts.list_alerts(platform.store))


def test_a_platform_without_traffic_or_without_a_version_is_quiet(platform: Platform, watch: MonitorWatchdog) -> None:
    now = datetime.now(UTC)
    for minute in (0, 60, 600):
        watch.check(now + minute * MINUTE)
    query(platform.settings, "UPDATE model_metadata SET stage = 'Staging', promoted_at = NULL")
    assert sight_of_monitor(platform.store) is None
    for minute in (700, 760):
        watch.check(now + minute * MINUTE)
    assert states(platform) == []


def test_traffic_that_nobody_looks_at_is_one_alert_that_ends_with_the_next_tick(
    platform: Platform, watch: MonitorWatchdog
) -> None:
    sent = serve(platform, toy_rows(10))
    now = sent.last_at + MINUTE
    for minute in (0, 10):
        watch.check(now + minute * MINUTE)
    assert states(platform) == [], "it has had less than three intervals"
    for minute in (16, 20, 30):
        watch.check(now + minute * MINUTE)
    assert states(platform) == [("monitor_silent", "serving", False)]
    add_tick(platform, sent.last_at)
    watch.check(now + 31 * MINUTE)
    assert ("monitor_silent", "serving", True) in states(platform)


def test_a_worker_that_starts_does_not_end_what_another_one_raised(platform: Platform, watch: MonitorWatchdog) -> None:
    sent = serve(platform, toy_rows(10))
    for minute in (0, 20):
        watch.check(sent.last_at + minute * MINUTE)
    newcomer = MonitorWatchdog(platform)
    newcomer.check(sent.last_at + 21 * MINUTE)
    assert states(platform) == [("monitor_silent", "serving", False)]
    newcomer.stop()


def test_what_nobody_could_deliver_is_delivered_by_the_api(
    api_settings: Settings, webhook: Webhook, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watching, "POLL_INTERVAL_SECONDS", 0.1)
    settings = api_settings.model_copy(update={"notify_urls": SecretStr(webhook.url)})
    with api_in_thread(settings) as api:
        platform = open_platform(settings)
        alert = Alert("dataset_drift", Severity.CRITICAL, "drifted")
        alerts.open_or_update_alert(platform.store, "monitoring", 1, alert, datetime.now(UTC))
        platform.close()
        eventually(lambda: webhook.received, "the API tells of the monitor's alert")
        assert api.post("/predict", bodies(1)[0]).status_code == 200
    assert [message["title"] for message in webhook.received] == ["selfheal: dataset drift"]


class _Stepped(datetime):
    """A wall clock that somebody sets."""

    step = timedelta()

    @classmethod
    def now(cls, tz: tzinfo | None = None) -> datetime:  # type: ignore[override]
        return datetime.now(tz) + cls.step


def test_a_clock_that_is_set_ahead_is_no_silence_of_the_monitor(
    platform: Platform, watch: MonitorWatchdog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watching, "datetime", _Stepped)
    serve(platform, toy_rows(10))
    watch._poll()
    monkeypatch.setattr(_Stepped, "step", timedelta(days=2))
    watch._poll()
    assert states(platform) == []


def test_while_postgres_is_away_the_watch_forgets_and_goes_on(
    platform: Platform, watch: MonitorWatchdog, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent = serve(platform, toy_rows(10))
    watch.check(sent.last_at)
    monkeypatch.setattr(watching, "POLL_INTERVAL_SECONDS", 0.02)
    looks: list[str] = []

    def away(store: object) -> None:
        looks.append("away")
        raise OperationalError("SELECT", {}, Exception("gone"))

    monkeypatch.setattr(watching, "sight_of_monitor", away)
    watch.start()
    eventually(lambda: len(looks) > 2, "it goes on looking")
    watch.stop()
    monkeypatch.setattr(watching, "sight_of_monitor", sight_of_monitor)
    again = MonitorWatchdog(platform)
    again._watched = watch._watched
    again.check(sent.last_at + 60 * MINUTE)
    again.stop()
    assert states(platform) == [], "the monitor gets its time again"
