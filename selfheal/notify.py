"""Alerts outwards, to wherever apprise can reach (mail, Slack, webhooks, ...)."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import TYPE_CHECKING

from selfheal.records import Alert, Severity

if TYPE_CHECKING:
    from selfheal.settings import Settings

logger = logging.getLogger(__name__)

APPRISE_TYPES = {Severity.INFO: "info", Severity.WARNING: "warning", Severity.CRITICAL: "failure"}


def notify(settings: Settings, alerts: Iterable[Alert]) -> None:
    """Sends each alert to every `NOTIFY_URLS`. A channel that fails is logged: it must not stop the loop."""
    urls = [url.strip() for url in settings.notify_urls.get_secret_value().split(",") if url.strip()]
    if not urls:
        return
    import apprise

    channel = apprise.Apprise()
    if not channel.add(urls):
        logger.warning("NOTIFY_URLS holds an address that apprise does not understand; nothing is sent there")
    for alert in alerts:
        title = f"selfheal: {alert.kind.replace('_', ' ')}"
        if not channel.notify(title=title, body=alert.message, notify_type=APPRISE_TYPES[alert.severity]):
            logger.warning("alert %s could not be delivered to every channel of NOTIFY_URLS", alert.kind)
