"""Notification addresses: the value of a NOTIFY_URLS setting as channels.

An address may hold secrets: it is never printed.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field

from selfheal.kit.errors import ConfigurationError

FORM = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://\S+")


@dataclass(frozen=True)
class Channel:
    """One address. Stored data refers to it by `key`."""

    url: str = field(repr=False)

    @property
    def key(self) -> str:
        """Return the first 16 hex digits of the address's SHA-256."""
        return hashlib.sha256(self.url.encode()).hexdigest()[:16]

    @property
    def scheme(self) -> str:
        """Return the part of the address before `://`, which contains no secret."""
        return self.url.partition("://")[0]


def parse_channels(value: str) -> tuple[Channel, ...]:
    """Parse one setting: addresses, separated by commas; a comma within an address is written %2C.

    Raises:
        ConfigurationError: if an address is not a URL; the message gives its position, not its text.
    """
    urls = [url.strip() for url in value.split(",") if url.strip()]
    for place, url in enumerate(urls, 1):
        if FORM.fullmatch(url) is None:
            raise ConfigurationError(
                f"address {place} of {len(urls)} is no URL (scheme://...); a comma within one is written %2C"
            )
    return tuple(Channel(url) for url in urls)
