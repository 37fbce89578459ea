"""Without keys, requests of other hosts' web pages are refused. Which they are is `selfheal.kit.web_origins`'."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.datastructures import Headers

from selfheal.kit.web_origins import ForeignRequest, foreign_request
from serving.schemas.problems import ProblemError, problem_for
from serving.security.auth import Authenticator

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send


class OriginCheck:
    """ASGI middleware for HTTP. `/live` and the fast path, which it does not reach, ask `refuse_foreign` themselves."""

    def __init__(self, app: ASGIApp, authenticator: Authenticator) -> None:
        self._app = app
        self._authenticator = authenticator

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or refuse it."""
        if scope["type"] == "http":
            try:
                refuse_foreign(foreign_request(Headers(scope=scope)), self._authenticator)
            except ProblemError as error:
                await problem_for(error)(scope, receive, send)
                return
        await self._app(scope, receive, send)


def refuse_foreign(foreign: ForeignRequest | None, authenticator: Authenticator) -> None:
    """Refuse a request of a page of another host, unless keys are asked for.

    Args:
        foreign: what `foreign_request` says of its headers.

    Raises:
        ProblemError: 403.
    """
    if foreign is not None and not authenticator.asks_for_keys:
        raise ProblemError(403, *foreign)
