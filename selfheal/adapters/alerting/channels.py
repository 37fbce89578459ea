"""Notification channels: the addresses of NOTIFY_URLS and its siblings, their severities, and how one message is sent.

An address is an apprise URL and may hold a secret (a token, a password): it is never printed, only its scheme is.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from selfheal.domain.records import Severity
from selfheal.kit.errors import ConfigurationError
from selfheal.kit.notify_urls import Channel, parse_channels

if TYPE_CHECKING:
    from selfheal.settings import Settings

SETTINGS: Mapping[str, tuple[Severity, ...]] = {
    "notify_urls": tuple(Severity),
    "notify_urls_info": (Severity.INFO,),
    "notify_urls_warning": (Severity.WARNING,),
    "notify_urls_critical": (Severity.CRITICAL,),
}
"""Each setting and the severities that go to its addresses."""


@dataclass(frozen=True)
class Message:
    """A message to one channel. `kind` is apprise's: info, success, warning or failure."""

    title: str
    body: str
    kind: str


@dataclass(frozen=True)
class Routes:
    """The channels of each severity; an address that is configured twice counts once."""

    by_severity: Mapping[Severity, tuple[Channel, ...]]

    @property
    def channels(self) -> tuple[Channel, ...]:
        """Return the channels of all severities, without duplicates."""
        return tuple(dict.fromkeys(channel for channels in self.by_severity.values() for channel in channels))


def routes_of(settings: Settings) -> Routes:
    """Return the channels of each severity under these settings."""
    given = {name: parse_channels(getattr(settings, name).get_secret_value()) for name in SETTINGS}
    return Routes(
        {
            severity: tuple(
                dict.fromkeys(c for name, channels in given.items() if severity in SETTINGS[name] for c in channels)
            )
            for severity in Severity
        }
    )


def check_channels(settings: Settings) -> None:
    """Check every configured address when a service starts. Short commands skip it, because loading apprise takes 1 s.

    Raises:
        ConfigurationError: if apprise cannot use an address; the message gives its setting, position and scheme.
    """
    for name in SETTINGS:
        channels = parse_channels(getattr(settings, name).get_secret_value())
        for place, channel in enumerate(channels, 1):
            if _plugin(channel) is None:
                raise ConfigurationError(
                    f"{name.upper()}=***: apprise cannot use address {place} of {len(channels)} ({channel.scheme}://...): "
                    "the scheme is unknown or the rest of the address is incomplete; see the list of services of apprise"
                )


def send(channel: Channel, message: Message) -> bool:
    """Send the message and wait without limit; return False if the channel did not accept it.

    It is plain text: a channel of HTML or Markdown, such as mail, escapes it, since levels that clients send may be quoted in it.
    """
    import apprise

    plugin = _plugin(channel)
    if plugin is None:
        return False
    sender = apprise.Apprise()
    sender.add(plugin)
    text = apprise.NotifyFormat.TEXT
    return bool(sender.notify(title=message.title, body=message.body, notify_type=message.kind, body_format=text))


def _plugin(channel: Channel) -> Any | None:
    """Return apprise's object for the address; None if apprise does not understand it."""
    import apprise

    with _silenced("apprise"):
        return apprise.Apprise.instantiate(channel.url, suppress_exceptions=True)


@contextmanager
def _silenced(name: str) -> Iterator[None]:
    """Disable a logger: apprise logs parts of an address that it does not understand, and those may be secret."""
    logger = logging.getLogger(name)
    before = logger.disabled
    logger.disabled = True
    try:
        yield
    finally:
        logger.disabled = before
