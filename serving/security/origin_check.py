"""Without keys, requests of other hosts' web pages are refused. The rule is `selfheal.kit.web_origins`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.datastructures import Headers

from selfheal.kit.web_origins import foreign_request
from serving.schemas.problems import ProblemError, problem_for
from serving.security.auth import Authenticator

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
    """Check the origin by the headers, given by lower-case name.

    Raises:
        ProblemError: 403 if the request comes from a page of another host.
    """
    foreign = foreign_request(headers)
    if foreign is not None:
        raise ProblemError(403, *foreign)
