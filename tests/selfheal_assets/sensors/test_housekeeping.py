"""What no run is responsible for: alerts that are due, traffic that does not come, probations that are over."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import dagster as dg
import pytest
from dagster._core.remote_origin import RegisteredCodeLocationOrigin, RemoteRepositoryOrigin
from dagster._core.scheduler.instigation import InstigatorState, InstigatorStatus, InstigatorType

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


def stop(instance: dg.DagsterInstance, name: str) -> None:
    """As a person does on Dagster's pages."""
    repository = RemoteRepositoryOrigin(RegisteredCodeLocationOrigin("selfheal"), "__repository__")
    origin = repository.get_instigator_origin(name)
    instance.add_instigator_state(InstigatorState(origin, InstigatorType.SENSOR, InstigatorStatus.STOPPED))


@pytest.fixture
def lasting(dagster: Dagster) -> Iterator[Dagster]:
    """The code location with an instance that keeps the state of its sensors."""
    with dg.instance_for_test() as instance:
        yield replace(dagster, instance=instance)


def test_a_sensor_that_somebody_has_stopped_is_an_alert_until_it_is_started(lasting: Dagster) -> None:
    dagster, store = lasting, lasting.platform.store
    stop(dagster.instance, "drift_sensor")
    stop(dagster.instance, "somebody_elses_sensor")
    assert "The loop waits: sensor stopped." in skip_message(evaluate(dagster, "housekeeping_sensor"))
    (alert,) = list_alerts(store, only_open=True)
    assert (alert.kind, "has stopped drift_sensor in Dagster" in alert.message) == ("sensor_stopped", True)
    for state in dagster.instance.all_instigator_state():
        dagster.instance.update_instigator_state(state.with_status(InstigatorStatus.RUNNING))
    evaluate(dagster, "housekeeping_sensor")
    assert list_alerts(store, only_open=True) == []


def test_an_alert_of_a_probation_that_is_over_is_resolved(dagster: Dagster) -> None:
    store = dagster.platform.store
    open_or_update_alert(store, "probation", 7, Alert("probation_cannot_compare", Severity.WARNING, "contract"), T0)
    evaluate(dagster, "housekeeping_sensor")
    assert list_alerts(store, only_open=True) == [], "version 7 is not in production"
