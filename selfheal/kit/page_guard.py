"""Protects the pages of a program that is not ours, such as Dagster's, by the rules of our API: origins and keys.

ASGI middleware without a framework. Whoever may use such pages may do everything, so a key needs the scope `admin`. It
is sent as to the API, in X-API-Key or as a bearer token, or typed into the browser's own form: the password is the key,
the user does not matter. A browser sends such a password with every request, other pages' included; therefore origins
are checked with keys as well.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Awaitable, Callable, Mapping, MutableMapping, Sequence
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from selfheal.kit.api_keys import ApiKey, Scope, key_of, known_key
from selfheal.kit.web_origins import foreign_request

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
AsgiApp = Callable[[Message, Receive, Send], Awaitable[None]]

POLICY_VIOLATION = 1008
"""Close code of a WebSocket (RFC 6455)."""

CHALLENGES = ('Basic realm="selfheal", charset="UTF-8"', "Bearer")


class Refusal(NamedTuple):
    """A response other than the one requested."""

    status: int
    kind: str
    detail: str


class PageGuard:
    """Passes on what comes from pages of its own host, with a key where there are keys.

    Args:
        keys: of API_KEYS; without any, the host must be this machine's loopback.
        public_url: where browsers reach the pages, if that is behind a proxy.
        open_paths: answered without a key, for those who watch whether the program runs.
    """

    def __init__(
        self, app: AsgiApp, keys: Sequence[ApiKey], *, public_url: str | None = None, open_paths: Sequence[str] = ()
    ) -> None:
        self._app = app
        self._keys = keys
        self._public_host = None if public_url is None else urlsplit(public_url).netloc.lower()
        self._open_paths = frozenset(open_paths)

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Pass the request on, or refuse it."""
        refusal = None if scope["type"] == "lifespan" else self._refusal(scope)
        if refusal is None:
            await self._app(scope, receive, send)
        elif scope["type"] == "websocket":
            await receive()  # the request to connect
            await send({"type": "websocket.close", "code": POLICY_VIOLATION, "reason": refusal.kind})
        else:
            await _refuse(refusal, send)

    def _refusal(self, scope: Message) -> Refusal | None:
        names = [name for name, _ in scope["headers"]]
        if names.count(b"host") != 1:
            return Refusal(400, "invalid_http", "a request has exactly one header Host")
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        foreign = foreign_request(headers, asks_for_keys=bool(self._keys), public_host=self._public_host)
        if foreign is not None:
            return Refusal(403, *foreign)
        if not self._keys or scope["path"] in self._open_paths:
            return None
        given = _key_or_password(headers)
        key = None if given is None else known_key(self._keys, given)
        if key is None:
            detail = "send a key of API_KEYS as the password, in the header X-API-Key, or as Authorization: Bearer"
            return Refusal(401, "unauthorized", detail)
        if Scope.ADMIN not in key.scopes:
            return Refusal(403, "forbidden", f"the key {key.name} lacks the scope {Scope.ADMIN}")
        return None


def _key_or_password(headers: Mapping[str, str]) -> str | None:
    key = key_of(headers)
    method, _, token = headers.get("authorization", "").partition(" ")
    if key is not None or method.lower() != "basic":
        return key
    try:
        user, _, password = base64.b64decode(token, validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        return None
    return password or user or None


async def _refuse(refusal: Refusal, send: Send) -> None:
    body = json.dumps({"type": refusal.kind, "status": refusal.status, "detail": refusal.detail}).encode()
    headers = [
        (b"content-type", b"application/problem+json"),
        (b"content-length", b"%d" % len(body)),
        (b"cache-control", b"no-store"),
        *((b"www-authenticate", challenge.encode()) for challenge in CHALLENGES if refusal.status == 401),
    ]
    await send({"type": "http.response.start", "status": refusal.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
