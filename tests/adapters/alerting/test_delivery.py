"""Rules of notification: an alert reaches the channels of its severity, and a channel that fails stops nothing."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace
from typing import Any

import pytest

from selfheal.adapters.alerting.channels import Routes
from selfheal.adapters.alerting.delivery import (
    MAX_FAILURES,
    RETRY_BACKOFF,
    due_messages,
    notify,
    resolved_message,
)
from selfheal.domain.records import Alert, Severity
from selfheal.kit.notify_urls import Channel
from selfheal.settings import load_settings
from tests.local_server import served
from tests.times import T0

DRIFT = Alert("dataset_drift", Severity.CRITICAL, "the data set as a whole has drifted")
FLAG = Alert("feature_drift", Severity.WARNING, "3 features have drifted")


class Webhook(ThreadingHTTPServer):
    """Somebody's webhook: keeps what it is sent, unless its `status` is that of a refusal."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), WebhookHandler)
        self.received: list[dict[str, Any]] = []
        self.status = 200
        self.url = f"json://127.0.0.1:{self.server_port}/hook"


class WebhookHandler(BaseHTTPRequestHandler):
    server: Webhook

    def do_POST(self) -> None:
        message = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.server.status == 200:
            self.server.received.append(message)
        self.send_response(self.server.status)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Not to the tests' output."""


@pytest.fixture
def webhook() -> Iterator[Webhook]:
    with served(Webhook()) as server:
        yield server


def sent(webhook: Webhook) -> list[tuple[str, str, str]]:
    return [(message["title"], message["message"], message["type"]) for message in webhook.received]


def test_each_alert_is_sent_with_its_kind_message_and_severity(webhook: Webhook) -> None:
    notify(load_settings(notify_urls=webhook.url), [DRIFT, FLAG])
    assert sent(webhook) == [
        ("selfheal: dataset drift", "the data set as a whole has drifted", "failure"),
        ("selfheal: feature drift", "3 features have drifted", "warning"),
    ]


def test_a_message_is_text_and_no_markup_for_channels_that_show_some(webhook: Webhook) -> None:
    quoting = replace(DRIFT, message="plan: '<img src=//evil>' is [new](http://evil)")
    notify(load_settings(notify_urls=f"{webhook.url}?format=html, {webhook.url}?format=markdown"), [quoting])
    texts = [message["message"] for message in webhook.received]  # in the order in which they arrive
    as_html, as_markdown = sorted(texts, key=lambda text: "&lt;" not in text)
    assert "<img" not in as_html
    assert "&lt;img" in as_html
    assert "[new](" not in as_markdown


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
    told = notify(load_settings(notify_urls=f"{dead.url},{webhook.url}"), [DRIFT, FLAG])
    assert len(webhook.received) == 2
    assert told == {Channel(webhook.url).key: "warning"}, "of the last one"
    warnings = [
        record.getMessage() for record in caplog.records if record.name == "selfheal.adapters.alerting.delivery"
    ]
    assert warnings == [
        f"alert {kind} could not be delivered to 1 of 2 channels (json://...); delivery is given up"
        for kind in ("dataset_drift", "feature_drift")
    ]


def test_a_channel_that_hangs_is_not_waited_for_and_gets_no_second_thread(
    webhook: Webhook, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("selfheal.adapters.alerting.delivery.TIMEOUT_SECONDS", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes connections and never answers
        hanging = f"json://127.0.0.1:{silent.getsockname()[1]}/?rto=30"
        settings = load_settings(notify_urls=f"{hanging},{webhook.url}")
        for _ in range(5):
            assert notify(settings, [DRIFT]) == {Channel(webhook.url).key: "critical"}
        assert [thread.name for thread in threading.enumerate()].count("notify") == 1, "it still hangs"
        assert len(webhook.received) == 5


def test_a_channel_that_fails_is_given_up_after_about_a_day() -> None:
    waited_seconds = sum(RETRY_BACKOFF.seconds(n_failures) for n_failures in range(1, MAX_FAILURES))
    assert timedelta(hours=12) < timedelta(seconds=waited_seconds) < timedelta(days=2)


# Who has to hear what of an alert as it is now

CHAT, PAGER = Channel("json://127.0.0.1:1/chat"), Channel("json://127.0.0.1:1/pager")
ROUTES = Routes({Severity.INFO: (), Severity.WARNING: (CHAT,), Severity.CRITICAL: (CHAT, PAGER)})


def due(severity: str = "warning", *, told: dict[Channel, str] | None = None, **changes: Any) -> list[tuple[str, str]]:
    values = {
        "kind": "feature_drift",
        "message": "drifted",
        "severity": severity,
        "told": {channel.key: says for channel, says in (told or {}).items()},
        "created_at": T0,
        "resolved_at": None,
        "acknowledged_at": None,
        "acknowledged_severity": None,
    }
    row: Any = SimpleNamespace(**(values | changes))
    return [(notice.channel.url.rpartition("/")[2], notice.says) for notice in due_messages(row, ROUTES)]


def test_an_open_alert_is_told_to_everybody_of_its_severity_who_has_not_heard() -> None:
    assert due("warning") == [("chat", "warning")]
    assert due("critical") == [("chat", "critical"), ("pager", "critical")]
    assert due("critical", told={CHAT: "critical"}) == [("pager", "critical")]
    assert due("info") == []


def test_a_higher_severity_is_told_and_a_lower_one_is_not() -> None:
    assert due("critical", told={CHAT: "warning"}) == [("chat", "critical"), ("pager", "critical")]
    assert due("warning", told={CHAT: "critical"}) == []


def test_an_acknowledged_alert_is_told_again_only_if_it_has_become_more_severe() -> None:
    seen = {"acknowledged_at": T0, "acknowledged_severity": "warning"}
    assert due("warning", **seen) == []
    assert due("critical", told={CHAT: "warning"}, **seen) == [("chat", "critical"), ("pager", "critical")]
    assert due("critical", acknowledged_at=T0, acknowledged_severity="critical") == []
    assert due("critical", acknowledged_at=T0) == [], "acknowledged before severities were kept with it"


def test_the_end_is_told_once_to_whom_the_beginning_was_told() -> None:
    over = {"resolved_at": T0 + timedelta(hours=3), "acknowledged_at": T0, "acknowledged_severity": "critical"}
    assert due("critical", told={PAGER: "critical"}, **over) == [("pager", "resolved")]
    assert due("warning", told={PAGER: "critical", CHAT: "resolved"}, **over) == [("pager", "resolved")]
    assert due("critical", **over) == [], "nobody has heard of it"
    gone = Channel("json://127.0.0.1:1/no-longer-configured")
    assert due("critical", told={gone: "critical"}, **over) == []


def test_the_end_says_how_long_it_was_and_what() -> None:
    message = resolved_message("feature_drift", "3 features have drifted", timedelta(hours=5))
    assert (message.title, message.kind) == ("selfheal: feature drift resolved", "success")
    assert message.body == "Resolved after 5 h: 3 features have drifted"
    assert resolved_message("a", "b", timedelta(minutes=7)).body == "Resolved after 7 min: b"
