"""Protection against CSRF and DNS rebinding without keys: requests of other hosts' web pages are refused.

A page of another origin may open WebSockets and send simple requests to this service; a page whose host name was made
to resolve to this machine (DNS rebinding) may do anything. Both are recognised by headers that a page cannot forge:
`Host` and `Origin`.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from starlette.datastructures import Headers

from serving.schemas.problems import ProblemError, problem_for
from serving.security.auth import Authenticator, is_loopback

if TYPE_CHECKING:
    from collections.abc import Mapping

    from starlette.types import ASGIApp, Receive, Scope, Send


class OriginCheck:
    """ASGI middleware for HTTP without keys. `/live` and the fast path call `refuse_foreign_origin` themselves."""

    def __init__(self, app: ASGIApp, authenticator: Authenticator) -> None:
        self._app = app
        self._authenticator = authenticator

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or refuse it."""
        if scope["type"] == "http" and not self._authenticator.asks_for_keys:
            try:
                refuse_foreign_origin(Headers(scope=scope))
            except ProblemError as error:
                await problem_for(error)(scope, receive, send)
                return
        await self._app(scope, receive, send)


def refuse_foreign_origin(headers: Mapping[str, str]) -> None:
    """Check the headers, by their lower-case names.

    Raises:
        ProblemError: 403 if the request comes from a page of another host.
    """
    problem = _problem(headers.get("host"), headers.get("origin"))
    if problem is not None:
        raise ProblemError(403, *problem)


@lru_cache(maxsize=256)
def _problem(host: str | None, origin: str | None) -> tuple[str, str] | None:
    if host is not None and not is_loopback(_hostname(host)):
        return "foreign_host", "without API keys this service can only be reached as localhost or 127.0.0.1"
    if origin is not None and _authority(origin) != (host or "").lower():
        return "foreign_origin", "without API keys only pages of this host may call this service"
    return None


def _hostname(host: str) -> str:
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def _authority(origin: str) -> str:
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        return ""
