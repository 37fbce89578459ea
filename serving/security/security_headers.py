"""Security headers of every response: no MIME sniffing, no framing by other sites, no caching unless allowed."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

ALWAYS = (
    (b"x-content-type-options", b"nosniff"),
    (b"content-security-policy", b"frame-ancestors 'self'"),  # no framing by other sites, which enables clickjacking
)
NO_STORE = (b"cache-control", b"no-store")
"""Header of responses without caching headers of their own: states, and refusals that caches may store by default (404,
405)."""


class SecurityHeaders:
    """ASGI middleware. The fast path does not need it: the response to a POST is neither cached nor shown as a page."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on and add the headers to its response."""

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = [*message.get("headers", []), *ALWAYS]
                names = {name for name, _ in headers}
                if not names & {b"cache-control", b"etag"}:
                    headers.append(NO_STORE)
                message = {**message, "headers": headers}
            await send(message)

        await self._app(scope, receive, send_with_headers if scope["type"] == "http" else send)
