"""What no run is responsible for: alerts that are due, traffic that does not come, probations that are over."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from selfheal.adapters.postgres.alerts import list_alerts, open_or_update_alert
from selfheal.domain.records import Alert, Severity
from selfheal.settings import Settings
from tests.adapters.alerting.test_delivery import Webhook, webhook
from tests.selfheal_assets.conftest import Dagster
from tests.selfheal_assets.sensors.evaluating import evaluate, skip_message
from tests.times import T0
from tests.traffic import serve, toy_rows

__all__ = ["webhook"]

pytestmark = pytest.mark.integration


@pytest.fixture
def late(
    make_dagster: Callable[[Settings], Dagster], make_settings: Callable[..., Settings], webhook: Webhook
) -> Dagster:
    """A platform with an alert that could not be delivered yet."""
    dagster = make_dagster(make_settings(notify_urls=webhook.url))
    alert = Alert("journal_lag", Severity.CRITICAL, "late")
    open_or_update_alert(dagster.platform.store, "serving", None, alert, T0)
    return dagster


def test_an_alert_that_is_due_is_delivered_once(late: Dagster, webhook: Webhook) -> None:
    for _ in range(2):
        evaluate(late, "housekeeping_sensor")
    assert [message["title"] for message in webhook.received] == ["selfheal: journal lag"]


@pytest.mark.parametrize("name", ["monitoring_sensor", "drift_sensor", "probation_sensor", "retraining_request_sensor"])
def test_a_sensor_that_decides_delivers_nothing(late: Dagster, webhook: Webhook, name: str) -> None:
    evaluate(late, name)
    assert webhook.received == []


def test_traffic_that_is_old_when_the_sensor_wakes_is_no_alert(dagster: Dagster) -> None:
    serve(dagster.platform, toy_rows(5))
    message = skip_message(evaluate(dagster, "housekeeping_sensor"))
    assert message == "Alerts are up to date; traffic: unknown. Next evaluation in 1 min."
    assert list_alerts(dagster.platform.store, only_open=True) == []


def test_an_alert_of_a_probation_that_is_over_is_resolved(dagster: Dagster) -> None:
    store = dagster.platform.store
    open_or_update_alert(store, "probation", 7, Alert("probation_cannot_compare", Severity.WARNING, "contract"), T0)
    evaluate(dagster, "housekeeping_sensor")
    assert list_alerts(store, only_open=True) == [], "version 7 is not in production"
