"""Rules of notification: every alert reaches every channel, and a channel that fails stops nothing."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from selfheal.notify import notify
from selfheal.records import Alert, Severity
from selfheal.settings import load_settings

DRIFT = Alert("dataset_drift", Severity.CRITICAL, "the data set as a whole has drifted")
FLAG = Alert("feature_drift", Severity.WARNING, "3 features have drifted")


class Webhook(ThreadingHTTPServer):
    """Somebody's webhook: keeps what it is sent."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), WebhookHandler)
        self.received: list[dict[str, Any]] = []
        self.url = f"json://127.0.0.1:{self.server_port}/hook"


class WebhookHandler(BaseHTTPRequestHandler):
    server: Webhook

    def do_POST(self) -> None:
        self.server.received.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(200)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Not to the tests' output."""


@pytest.fixture
def webhook() -> Iterator[Webhook]:
    server = Webhook()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def sent(webhook: Webhook) -> list[tuple[str, str, str]]:
    return [(message["title"], message["message"], message["type"]) for message in webhook.received]


def test_each_alert_is_sent_with_its_kind_message_and_severity(webhook: Webhook) -> None:
    notify(load_settings(notify_urls=webhook.url), [DRIFT, FLAG])
    assert sent(webhook) == [
        ("selfheal: dataset drift", "the data set as a whole has drifted", "failure"),
        ("selfheal: feature drift", "3 features have drifted", "warning"),
    ]


def test_every_address_gets_every_alert(webhook: Webhook) -> None:
    notify(load_settings(notify_urls=f" {webhook.url}/a , {webhook.url}/b ,"), [DRIFT])
    assert len(webhook.received) == 2


def test_without_an_address_nothing_is_sent_and_nothing_said(caplog: pytest.LogCaptureFixture) -> None:
    notify(load_settings(), [DRIFT])
    assert caplog.records == []


def test_a_channel_that_fails_is_logged_and_stops_neither_the_others_nor_the_loop(
    webhook: Webhook, caplog: pytest.LogCaptureFixture
) -> None:
    dead = Webhook()
    dead.server_close()  # nothing listens there any more
    notify(load_settings(notify_urls=f"{dead.url},{webhook.url}"), [DRIFT, FLAG])
    assert len(webhook.received) == 2
    warnings = [record.getMessage() for record in caplog.records if record.name == "selfheal.notify"]
    assert warnings == [
        f"alert {kind} could not be delivered to every channel of NOTIFY_URLS"
        for kind in ("dataset_drift", "feature_drift")
    ]


def test_an_address_that_makes_no_sense_is_logged_and_its_text_is_not(
    webhook: Webhook, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, logger="selfheal"):
        notify(load_settings(notify_urls=f"nonsense-with-a-s3cr3t,{webhook.url}"), [DRIFT])
    assert len(webhook.received) == 1
    (warning,) = [record.getMessage() for record in caplog.records if record.name == "selfheal.notify"]
    assert "NOTIFY_URLS holds an address that apprise does not understand" in warning
    assert "s3cr3t" not in warning
