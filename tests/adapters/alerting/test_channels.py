"""Rules of the addresses for alerts: who hears of what, and that an address is never shown."""

from __future__ import annotations

import logging

import pytest

from selfheal.adapters.alerting.channels import check_channels, routes_of
from selfheal.domain.records import Severity
from selfheal.kit.errors import ConfigurationError
from selfheal.settings import load_settings

ALL, PAGER, CHAT = "json://127.0.0.1:1/all", "json://127.0.0.1:1/pager", "json://127.0.0.1:1/chat"


def urls(severity: Severity, **settings: str) -> list[str]:
    return [channel.url for channel in routes_of(load_settings(**settings)).by_severity[severity]]


def test_critical_goes_to_the_pager_warnings_to_the_chat_and_everything_to_the_rest() -> None:
    settings = {"notify_urls": ALL, "notify_urls_critical": PAGER, "notify_urls_warning": f"{CHAT}, {ALL}"}
    assert urls(Severity.CRITICAL, **settings) == [ALL, PAGER]
    assert urls(Severity.WARNING, **settings) == [ALL, CHAT], "an address given twice hears once"
    assert urls(Severity.INFO, **settings) == [ALL]
    assert [c.url for c in routes_of(load_settings(**settings)).channels] == [ALL, CHAT, PAGER]


def test_without_an_address_nobody_hears_of_anything() -> None:
    assert routes_of(load_settings()).channels == ()


@pytest.mark.parametrize("address", ["slakc://s3cr3t/x", "slack://s3cr3t"])
def test_a_service_does_not_start_with_an_address_that_cannot_work_and_names_its_scheme(
    address: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG), pytest.raises(ConfigurationError) as refusal:
        check_channels(load_settings(notify_urls=ALL, notify_urls_critical=f"{PAGER},{address}"))
    message = str(refusal.value)
    assert "NOTIFY_URLS_CRITICAL" in message
    assert "address 2 of 2" in message
    assert f"{address.partition('://')[0]}://" in message
    assert "s3cr3t" not in message + caplog.text
    assert "s...t" not in caplog.text, "apprise's own log shows its ends"


def test_addresses_that_work_are_let_in() -> None:
    check_channels(load_settings(notify_urls=ALL, notify_urls_warning="mailto://user:s3cr3t@example.com"))
