"""Refuses a request body that is too large before it fills the memory: by its announced length, or while it arrives."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException

from serving.problems import problem_response

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

MAX_BODY_BYTES = 16_000_000
"""Three times the largest batch of the shipped use case, with the longest names."""

DETAIL = f"a request body may have {MAX_BODY_BYTES:,} bytes; send several batches"


class BodyLimit:
    """ASGI middleware."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if int(Headers(scope=scope).get("content-length", 0)) > MAX_BODY_BYTES:
            await problem_response(413, "too_large", DETAIL)(scope, receive, send)
            return
        n_bytes = 0

        async def counted() -> Message:
            nonlocal n_bytes
            message = await receive()
            n_bytes += len(message.get("body", b""))
            if n_bytes > MAX_BODY_BYTES:
                raise HTTPException(413, DETAIL)  # becomes a problem document like any other
            return message

        await self._app(scope, counted, send)
