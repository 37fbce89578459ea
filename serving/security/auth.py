"""Who may call what: an API key with the right scope, not more often than agreed.

A key comes in the header `X-API-Key` or as `Authorization: Bearer`. Without keys the service listens on loopback only, and
everybody there may do everything. What an entry of API_KEYS looks like is said in `selfheal.kit.api_keys`.
"""

from __future__ import annotations

import ipaddress
import logging
import math
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from hmac import compare_digest
from typing import TYPE_CHECKING, Annotated, Any, Protocol

from fastapi import FastAPI, Security
from fastapi.security import APIKeyHeader, HTTPBearer
from starlette.datastructures import Headers
from starlette.requests import HTTPConnection
from starlette.routing import compile_path

from selfheal.kit.api_keys import (
    ALL_SCOPES,
    MAX_KEY_CHARACTERS,
    MIN_PLAIN_CHARACTERS,
    Scope,
    key_digest,
    parse_api_keys,
)
from selfheal.kit.errors import ConfigurationError
from selfheal.settings import Settings
from serving.schemas.problems import ProblemError, problem_for
from serving.security.body_limit import BODILESS_METHODS, has_body
from serving.security.rate_limit import TokenBucket

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Send
    from starlette.types import Scope as AsgiScope

__all__ = [
    "CALLER",
    "Authenticator",
    "Caller",
    "KeyBeforeBody",
    "Scope",
    "key_of",
    "refuse_unauthenticated_public_host",
    "requires",
    "with_scope",
]

logger = logging.getLogger(__name__)

HEADER = APIKeyHeader(name="X-API-Key", auto_error=False, description="a key with the scope; not needed if none is set")
BEARER = HTTPBearer(auto_error=False, description="the same key as a bearer token")

WRONG_KEYS_LOGGED_EVERY_SECONDS = 60.0

CALLER = "selfheal.caller"
"""Where an ASGI scope has the Caller once the call was counted, so that no second door counts it again."""


def refuse_unauthenticated_public_host(settings: Settings) -> None:
    """Raises:
    ConfigurationError: if other hosts could reach a service that asks for no key, or for one that can be guessed.
    """
    if is_loopback(settings.api_host):
        return
    keys = parse_api_keys(settings.api_keys.get_secret_value())
    if not keys:
        raise ConfigurationError(
            f"API_HOST={settings.api_host} is reachable from other hosts but API_KEYS is empty; set API_KEYS (`selfheal "
            "api-key` makes one), or API_HOST=127.0.0.1"
        )
    short = [key.name for key in keys if key.is_short]
    if short:
        raise ConfigurationError(
            f"API_HOST={settings.api_host} is reachable from other hosts but API_KEYS has plain keys of fewer than "
            f"{MIN_PLAIN_CHARACTERS} characters ({', '.join(short)}); make others with `selfheal api-key`"
        )


def is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls, by the name of the key, and what that key is good for."""

    name: str
    scopes: frozenset[Scope]


LOCAL = Caller("local", ALL_SCOPES)
"""Everybody, where no key is asked for."""


@dataclass(frozen=True, slots=True)
class _Access:
    digest: bytes
    caller: Caller
    bucket: TokenBucket | None


class Authenticator:
    """Knows the keys and counts calls. One an app, for its event loop's thread.

    Wrong keys are counted and told in the log but not slowed down. A key of 256 bits is not found by trying, and the cure
    would be worse: a limit shared by all strangers would let one of them lock the good keys out, and a limit an address
    falls to whoever has many addresses and hits all who share one behind a proxy.
    """

    def __init__(self, settings: Settings, clock: Callable[[], float] = time.monotonic) -> None:
        """Raises:
        ConfigurationError: if API_KEYS has a wrong entry.
        """
        self._clock = clock
        rate = settings.rate_limit_per_second

        def bucket() -> TokenBucket | None:
            return None if rate is None else TokenBucket(rate, clock())

        self._doors = [
            _Access(key.digest, Caller(key.name, key.scopes), bucket())
            for key in parse_api_keys(settings.api_keys.get_secret_value())
        ]
        self._unauthenticated = None if self._doors else _Access(b"", LOCAL, bucket())
        self.n_wrong_keys = 0
        self._n_wrong_keys_logged = 0
        self._logged_at = -math.inf

    @property
    def asks_for_keys(self) -> bool:
        return self._unauthenticated is None

    def admit(self, key: str | None, scope: Scope) -> Caller:
        """Who calls, if the key has the scope. Every call of a known key counts towards its limit, whatever comes of it.

        Raises:
            ProblemError: 401 without a known key, 429 if it calls too often, 403 if it lacks the scope.
        """
        return with_scope(self.recognise(key), scope)

    def recognise(self, key: str | None) -> Caller:
        """Whose call it is, whatever for; counts it.

        Raises:
            ProblemError: 401 without a known key, 429 if it calls too often.
        """
        door = self._unauthenticated or self._access_for(key)
        if door.bucket is not None:
            wait_seconds = door.bucket.take(self._clock())
            if wait_seconds > 0:
                raise _too_many(door.caller, wait_seconds)
        return door.caller

    def _access_for(self, key: str | None) -> _Access:
        if key is None:
            raise _unauthorized("no key was sent")
        found = None
        if len(key) <= MAX_KEY_CHARACTERS:
            given = key_digest(key)
            for door in self._doors:  # all of them: the time must not tell which one it was
                if compare_digest(given, door.digest):
                    found = door
        if found is None:
            self._count_wrong_key()
            raise _unauthorized("the key is not known")
        return found

    def _count_wrong_key(self) -> None:
        self.n_wrong_keys += 1
        now = self._clock()
        if now - self._logged_at >= WRONG_KEYS_LOGGED_EVERY_SECONDS:
            logger.warning("%d requests with an unknown API key", self.n_wrong_keys - self._n_wrong_keys_logged)
            self._logged_at = now
            self._n_wrong_keys_logged = self.n_wrong_keys


def with_scope(caller: Caller, scope: Scope) -> Caller:
    """Raises:
    ProblemError: 403 if the caller's key lacks the scope.
    """
    if scope not in caller.scopes:
        has = ", ".join(sorted(caller.scopes))
        raise ProblemError(403, "forbidden", f"the key {caller.name} lacks the scope {scope}; it has {has}")
    return caller


def _unauthorized(why: str) -> ProblemError:
    detail = f"{why}; send one in the header X-API-Key, or as Authorization: Bearer"
    return ProblemError(401, "unauthorized", detail, headers={"WWW-Authenticate": "Bearer"})


def _too_many(caller: Caller, wait_seconds: float) -> ProblemError:
    detail = f"{caller.name} calls more often than RATE_LIMIT_PER_SECOND allows; slow down"
    return ProblemError(429, "rate_limited", detail, retry_after_seconds=math.ceil(wait_seconds))


class _Headers(Protocol):
    def get(self, name: str, /) -> str | None: ...


def key_of(headers: _Headers) -> str | None:
    """The key that was sent, if any; `headers` finds a value by its lower-case name. X-API-Key goes first."""
    key = headers.get("x-api-key")
    if key is not None:
        return key
    method, _, token = (headers.get("authorization") or "").partition(" ")
    return token.strip() or None if method.lower() == "bearer" else None


def requires(scope: Scope) -> Callable[..., Awaitable[Caller]]:
    """A dependency, for HTTP and WebSocket endpoints, that lets in only keys with the scope and says who calls.

    Use it as `Depends(requires(Scope.READ))`. The two schemes are arguments so that OpenAPI shows them.
    """

    async def admitted(
        connection: HTTPConnection,
        _header: Annotated[Any, Security(HEADER)],
        _bearer: Annotated[Any, Security(BEARER)],
    ) -> Caller:
        caller: Caller | None = connection.scope.get(CALLER)
        if caller is None:
            authenticator: Authenticator = connection.app.state.authenticator
            caller = authenticator.recognise(key_of(connection.headers))
        return with_scope(caller, scope)

    return admitted


class KeyBeforeBody:
    """ASGI middleware: a body is read only for a known key, and each try counts towards its limit.

    FastAPI reads and parses a body before it asks any dependency. `scopes` says, by path as
    in a route, what such bodies are for.
    """

    def __init__(self, app: ASGIApp, authenticator: Authenticator, scopes: Mapping[str, Scope]) -> None:
        self._app = app
        self._authenticator = authenticator
        self._scopes = [(compile_path(path)[0], wanted) for path, wanted in scopes.items()]

    async def __call__(self, scope: AsgiScope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] not in BODILESS_METHODS and CALLER not in scope:
            headers = Headers(scope=scope)
            if has_body(headers):
                try:
                    scope[CALLER] = caller = self._authenticator.recognise(key_of(headers))
                    for path, wanted in self._scopes:
                        if path.match(scope["path"]):
                            with_scope(caller, wanted)
                except ProblemError as error:
                    await problem_for(error)(scope, receive, send)
                    return
        await self._app(scope, receive, send)


def describe_without_keys(app: FastAPI) -> None:
    """Takes the security schemes out of the app's OpenAPI document, for a service that asks for no key."""
    with_schemes = app.openapi

    def openapi() -> dict[str, Any]:
        document = with_schemes()
        document.get("components", {}).pop("securitySchemes", None)
        for operations in document["paths"].values():
            for operation in operations.values():
                operation.pop("security", None)
        return document

    app.openapi = openapi  # type: ignore[method-assign]  # the way FastAPI documents
