"""API keys: the entries of API_KEYS, and how a new key is made. `serving.security.auth` decides what a key may do.

An entry is `name:scope+scope:digest`, where the digest is the SHA-256 of the key in hex, or a plain key, which may do
everything. One round of SHA-256 without salt is enough, because `new_api_key` makes keys of 256 random bits, which cannot be
guessed from a digest; a slow password hash would cost time with every request.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from hmac import compare_digest
from typing import Protocol

from selfheal.kit.errors import ConfigurationError

MAX_KEY_CHARACTERS = 256
"""Largest length of a key that is hashed: a header may be much longer, and anyone can send one."""

MIN_PLAIN_CHARACTERS = 16
"""Smallest length of a plain key that cannot easily be guessed."""

KEY_PREFIX = "selfheal_"
"""Prefix by which secret scanners and people recognise a leaked key."""

NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")
DIGEST = re.compile(r"[0-9a-f]{64}", re.IGNORECASE)
PLAIN_KEY = re.compile(rf"[!-~]{{1,{MAX_KEY_CHARACTERS}}}")
"""Printable ASCII, which every client encodes in a header as the same bytes."""


class Scope(StrEnum):
    """What a key allows."""

    SCORE = "score"
    LABEL = "label"
    READ = "read"
    ADMIN = "admin"


ALL_SCOPES = frozenset(Scope)


@dataclass(frozen=True, slots=True)
class ApiKey:
    """One entry of API_KEYS. The key itself is not stored."""

    name: str
    scopes: frozenset[Scope]
    digest: bytes = field(repr=False)
    is_short: bool = False
    """Whether it is a plain key of fewer than MIN_PLAIN_CHARACTERS; the length of a hashed one is unknown."""


def key_digest(key: str) -> bytes:
    """Return the SHA-256 of the key's bytes, 32 bytes."""
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()


def new_api_key() -> str:
    """Return a new random key of 256 bits."""
    return KEY_PREFIX + secrets.token_urlsafe(32)


def hashed_entry(name: str, scopes: frozenset[Scope], key: str) -> str:
    """Return the entry of API_KEYS for a key.

    Raises:
        ConfigurationError: if the name is not valid in an entry, or if there is no scope.
    """
    if not NAME.fullmatch(name):
        raise ConfigurationError(
            f"the name {name!r} of an API key must be 1 to 64 letters, digits, dots, hyphens or underscores"
        )
    if not scopes:
        raise ConfigurationError(f"the API key {name!r} needs at least one scope of {_known_scopes()}")
    return f"{name}:{'+'.join(scope for scope in Scope if scope in scopes)}:{key_digest(key).hex()}"


def parse_scopes(text: str) -> frozenset[Scope]:
    """Parse scopes joined by `+` or commas.

    Raises:
        ConfigurationError: if a scope is unknown; the message names the first one.
    """
    names = [name.strip() for name in text.replace(",", "+").split("+")]
    for name in names:
        if name not in ALL_SCOPES:
            raise ConfigurationError(f"{name!r} is not a scope of API keys; known are {_known_scopes()}")
    return frozenset(map(Scope, names))


def parse_api_keys(text: str) -> tuple[ApiKey, ...]:
    """Parse API_KEYS: entries, separated by commas; blank ones are skipped.

    Raises:
        ConfigurationError: if an entry is invalid; the message gives its position, and its name if that cannot be part of a key.
    """
    keys: list[ApiKey] = []
    for position, entry in enumerate(_entries(text), start=1):
        key = _hashed(position, entry) if ":" in entry else _plain(position, entry)
        for earlier, other in enumerate(keys, start=1):
            if other.name == key.name or other.digest == key.digest:
                raise ConfigurationError(
                    f"entry {position} ({key.name}) repeats the name or the key of entry {earlier}"
                )
        keys.append(key)
    return tuple(keys)


def known_key(keys: Iterable[ApiKey], given: str) -> ApiKey | None:
    """Return the key that was given, None if it is unknown."""
    if len(given) > MAX_KEY_CHARACTERS:
        return None
    digest, found = key_digest(given), None
    for key in keys:  # all of them: the time must not reveal which one it is
        if compare_digest(digest, key.digest):
            found = key
    return found


def first_plain_key(text: str) -> str | None:
    """Return the first plain key of API_KEYS, for the clients on this machine; None if every entry is hashed."""
    return next((entry for entry in _entries(text) if ":" not in entry), None)


def _entries(text: str) -> list[str]:
    return [entry.strip() for entry in text.split(",") if entry.strip()]


def _plain(position: int, entry: str) -> ApiKey:
    if not PLAIN_KEY.fullmatch(entry):
        raise ConfigurationError(
            f"entry {position} is not a key: at most {MAX_KEY_CHARACTERS} printable ASCII characters, no blanks"
        )
    digest = key_digest(entry)
    return ApiKey(f"key-{digest.hex()[:8]}", ALL_SCOPES, digest, is_short=len(entry) < MIN_PLAIN_CHARACTERS)


def _hashed(position: int, entry: str) -> ApiKey:
    name, scopes, digest = [*entry.split(":"), "", ""][:3]
    if entry.count(":") != 2 or not NAME.fullmatch(name) or not DIGEST.fullmatch(digest):
        raise ConfigurationError(
            f"entry {position} is neither name:scope+scope:<64 hex digits>, as `selfheal api-key` prints it, nor a plain "
            "key, which has no colon"
        )
    try:
        return ApiKey(name, parse_scopes(scopes), bytes.fromhex(digest))
    except ConfigurationError as error:
        raise ConfigurationError(f"entry {position} ({name}): {error}") from None


def _known_scopes() -> str:
    return ", ".join(Scope)


class _Headers(Protocol):
    def get(self, name: str, /) -> str | None: ...


def key_of(headers: _Headers) -> str | None:
    """Return the key that was sent, if any, X-API-Key first; `headers` finds a value by its lower-case name."""
    key = headers.get("x-api-key")
    if key is not None:
        return key
    method, _, token = (headers.get("authorization") or "").partition(" ")
    return token.strip() or None if method.lower() == "bearer" else None
