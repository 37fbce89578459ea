"""Authentication and authorisation: an API key, its scopes and its rate limit.

A key is sent in the header `X-API-Key` or as `Authorization: Bearer`. Without keys the service listens on loopback only, and
every caller may do everything. `selfheal.kit.api_keys` describes the entries of API_KEYS.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import FastAPI, Security
from fastapi.security import APIKeyHeader, HTTPBearer
from starlette.datastructures import Headers
from starlette.requests import HTTPConnection
from starlette.routing import compile_path

from selfheal.kit.api_keys import (
    ALL_SCOPES,
    MIN_PLAIN_CHARACTERS,
    Scope,
    key_of,
    known_key,
    parse_api_keys,
)
from selfheal.kit.errors import ConfigurationError
from selfheal.kit.web_origins import is_loopback
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

HEADER = APIKeyHeader(name="X-API-Key", auto_error=False, description="a key with the scope")
BEARER = HTTPBearer(auto_error=False, description="the same key as a bearer token")

WRONG_KEYS_LOGGED_EVERY_SECONDS = 60.0

CALLER = "selfheal.caller"
"""Key of the ASGI scope for the Caller, set when the call is counted, so that it is not counted twice."""


def refuse_unauthenticated_public_host(settings: Settings) -> None:
    """Refuse settings under which other hosts could reach a service that asks for no key.

    Raises:
        ConfigurationError: if there is no key, or if a key can be guessed.
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


@dataclass(frozen=True, slots=True)
class Caller:
    """The caller, by the name of the key, and the scopes of that key."""

    name: str
    scopes: frozenset[Scope]


LOCAL = Caller("local", ALL_SCOPES)
"""The caller of every request if the service requires no keys."""


@dataclass(frozen=True, slots=True)
class _Access:
    caller: Caller
    bucket: TokenBucket | None


class Authenticator:
    """Checks keys and counts calls. One per app, for its event loop's thread.

    Unknown keys are counted and logged but not slowed down. A key of 256 bits cannot be found by trying, and a limit would do
    more harm. A limit shared by all unknown callers would let one of them lock out known keys; a limit per address would not
    stop an attacker with many addresses and would hit all callers behind one proxy.
    """

    def __init__(self, settings: Settings, clock: Callable[[], float] = time.monotonic) -> None:
        """Read API_KEYS and RATE_LIMIT_PER_SECOND.

        Raises:
            ConfigurationError: if API_KEYS has an invalid entry.
        """
        self._clock = clock
        rate = settings.rate_limit_per_second

        def bucket() -> TokenBucket | None:
            return None if rate is None else TokenBucket(rate, clock())

        self._accesses = {
            key: _Access(Caller(key.name, key.scopes), bucket())
            for key in parse_api_keys(settings.api_keys.get_secret_value())
        }
        self._unauthenticated = None if self._accesses else _Access(LOCAL, bucket())
        self.n_wrong_keys = 0
        self._n_wrong_keys_logged = 0
        self._logged_at = -math.inf

    @property
    def asks_for_keys(self) -> bool:
        """Return whether there are keys; if not, every caller is on this machine and may do everything."""
        return self._unauthenticated is None

    def admit(self, key: str | None, scope: Scope) -> Caller:
        """Return the caller if the key has the scope. Every call with a known key counts towards its limit.

        Raises:
            ProblemError: 401 without a known key, 429 if it is used too often, 403 if it lacks the scope.
        """
        return with_scope(self.recognise(key), scope)

    def recognise(self, key: str | None) -> Caller:
        """Return the caller without checking a scope, and count the call.

        Raises:
            ProblemError: 401 without a known key, 429 if it is used too often.
        """
        access = self._unauthenticated or self._access_for(key)
        if access.bucket is not None:
            wait_seconds = access.bucket.take(self._clock())
            if wait_seconds > 0:
                raise _too_many(access.caller, wait_seconds)
        return access.caller

    def _access_for(self, key: str | None) -> _Access:
        if key is None:
            raise _unauthorized("no key was sent")
        found = known_key(self._accesses, key)
        if found is None:
            self._count_wrong_key()
            raise _unauthorized("the key is unknown")
        return self._accesses[found]

    def _count_wrong_key(self) -> None:
        self.n_wrong_keys += 1
        now = self._clock()
        if now - self._logged_at >= WRONG_KEYS_LOGGED_EVERY_SECONDS:
            logger.warning("%d requests with an unknown API key", self.n_wrong_keys - self._n_wrong_keys_logged)
            self._logged_at = now
            self._n_wrong_keys_logged = self.n_wrong_keys


def with_scope(caller: Caller, scope: Scope) -> Caller:
    """Return the caller if its key has the scope.

    Raises:
        ProblemError: 403 if it lacks the scope.
    """
    if scope not in caller.scopes:
        has = ", ".join(sorted(caller.scopes))
        raise ProblemError(403, "forbidden", f"the key {caller.name} lacks the scope {scope}; it has {has}")
    return caller


def _unauthorized(why: str) -> ProblemError:
    detail = f"{why}; send one in the header X-API-Key, or as Authorization: Bearer"
    return ProblemError(401, "unauthorized", detail, headers={"WWW-Authenticate": "Bearer"})


def _too_many(caller: Caller, wait_seconds: float) -> ProblemError:
    detail = f"{caller.name} calls more often than RATE_LIMIT_PER_SECOND allows; wait as long as Retry-After says"
    return ProblemError(429, "rate_limited", detail, retry_after_seconds=math.ceil(wait_seconds))


def requires(scope: Scope) -> Callable[..., Awaitable[Caller]]:
    """Return a dependency of HTTP and WebSocket endpoints that refuses keys without the scope and returns the caller.

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
    """ASGI middleware: a body is read only for a known key, and each attempt counts towards its limit.

    FastAPI reads and parses a body before it calls any dependency.

    Args:
        scopes: the scope that a body needs, by path as in a route.
    """

    def __init__(self, app: ASGIApp, authenticator: Authenticator, scopes: Mapping[str, Scope]) -> None:
        self._app = app
        self._authenticator = authenticator
        self._scopes = [(compile_path(path)[0], wanted) for path, wanted in scopes.items()]

    async def __call__(self, scope: AsgiScope, receive: Receive, send: Send) -> None:
        """Pass the request on, or refuse it before its body is read."""
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
    """Remove the security schemes from the app's OpenAPI document, for a service that asks for no keys."""
    with_schemes = app.openapi

    def openapi() -> dict[str, Any]:
        document = with_schemes()
        document.get("components", {}).pop("securitySchemes", None)
        for operations in document["paths"].values():
            for operation in operations.values():
                operation.pop("security", None)
        return document

    app.openapi = openapi  # type: ignore[method-assign]  # the way FastAPI documents
