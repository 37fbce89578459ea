"""Protection against CSRF and DNS rebinding: the rule that every web server of the platform keeps.

A page of another origin may open WebSockets and send simple requests to any address that its browser can reach; a page
whose host name was made to resolve to this machine (DNS rebinding) may do anything. Both are recognised by headers that
a page cannot forge: `Host` and `Origin`. Images and links send no `Origin`, so that a GET must change nothing.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from functools import lru_cache
from typing import NamedTuple
from urllib.parse import urlsplit


class ForeignRequest(NamedTuple):
    """Why a request is refused: `kind` is stable and for programs, `detail` is for people."""

    kind: str
    detail: str


def is_loopback(host: str) -> bool:
    """Return whether this host name or address is this machine's loopback."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def foreign_request(
    headers: Mapping[str, str], *, asks_for_keys: bool = False, public_host: str | None = None
) -> ForeignRequest | None:
    """Return why a request comes from a page of another host, None if it does not.

    Args:
        headers: by their lower-case names.
        asks_for_keys: whether a key is asked for as well; the service may then have any name.
        public_host: host, and port if it has one, under which a proxy shows the service to browsers.
    """
    return _foreign(
        headers.get("host"),
        headers.get("origin"),
        asks_for_keys,
        public_host,
    )


@lru_cache(maxsize=256)
def _foreign(
    host: str | None,
    origin: str | None,
    asks_for_keys: bool,
    public_host: str | None,
) -> ForeignRequest | None:
    own = {name for name in ((host or "").lower(), public_host) if name}
    if host is not None and not asks_for_keys and not is_loopback(_hostname(host)) and host.lower() != public_host:
        return ForeignRequest(
            "foreign_host", "without API keys this service can only be reached as localhost or 127.0.0.1"
        )
    if origin is not None and _authority(origin) not in own:
        return ForeignRequest("foreign_origin", "only pages of this host may call this service")
    return None


def _hostname(host: str) -> str:
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def _authority(origin: str) -> str:
    """Return host and port; nothing for an origin that has none, such as `null`."""
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        return ""
