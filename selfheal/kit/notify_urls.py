"""Notification addresses: the value of a NOTIFY_URLS setting as channels. The address itself is never printed."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field

from selfheal.kit.errors import ConfigurationError

FORM = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://\S+")


@dataclass(frozen=True)
class Channel:
    """One address. `key` stands for it where it is written down."""

    url: str = field(repr=False)

    @property
    def key(self) -> str:
        return hashlib.sha256(self.url.encode()).hexdigest()[:16]

    @property
    def scheme(self) -> str:
        return self.url.partition("://")[0]


def parse_channels(value: str) -> tuple[Channel, ...]:
    """The addresses of one setting, comma-separated; a comma within an address is written %2C.

    Raises:
        ConfigurationError: naming the place of one that is no URL, and not its text.
    """
    urls = [url.strip() for url in value.split(",") if url.strip()]
    for place, url in enumerate(urls, 1):
        if FORM.fullmatch(url) is None:
            raise ConfigurationError(
                f"address {place} of {len(urls)} is no URL (scheme://...); a comma within one is written %2C"
            )
    return tuple(Channel(url) for url in urls)
