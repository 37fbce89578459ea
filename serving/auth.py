"""Who may call: a key from `API_KEYS` in the header `X-API-Key`. Without keys the service listens on loopback only."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
from collections.abc import Callable
from typing import Annotated

from fastapi import Security
from fastapi.security import APIKeyHeader

from selfheal.errors import ConfigurationError
from selfheal.settings import Settings
from serving.problems import ProblemError

HEADER = APIKeyHeader(name="X-API-Key", auto_error=False, description="one of API_KEYS; not needed if none is set")


def refuse_open_door(settings: Settings) -> None:
    """Raises:
    ConfigurationError: if other hosts could reach a service that asks for no key.
    """
    if not settings.api_key_list and not is_loopback(settings.api_host):
        raise ConfigurationError(
            f"API_HOST={settings.api_host} is reachable from other hosts but API_KEYS is empty; set API_KEYS, or "
            "API_HOST=127.0.0.1"
        )


def is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def key_check(settings: Settings) -> Callable[[str | None], None]:
    """A dependency that lets a request pass if it brings one of the keys, or if there are none.

    Only digests are kept, and all of them are compared in constant time.
    """
    digests = [_digest(key) for key in settings.api_key_list]

    def check(key: Annotated[str | None, Security(HEADER)]) -> None:
        if not digests:
            return
        given = _digest(key or "")
        matches = [hmac.compare_digest(given, digest) for digest in digests]
        if True not in matches:
            raise ProblemError(401, "unauthorized", "send a valid key in the header X-API-Key")

    return check


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()
