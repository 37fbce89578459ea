"""Pseudonyms of entities: a key that may identify a person is stored as its keyed hash only.

Which rows are of one entity is all that is needed of a key, and equal keys have equal pseudonyms. HMAC (RFC 2104) with a secret
does not let anybody without the secret try out customer numbers, as a plain hash would.
"""

from __future__ import annotations

import hashlib
import hmac

MAX_KEY_CHARACTERS = 64
"""Longest key that is accepted as text."""

MAX_KEY_NUMBER = 2**63 - 1
"""Largest key that is accepted as a whole number, without its sign."""

PSEUDONYM_CHARACTERS = 32
"""A letter and 124 bits: two of 10 billion entities share one with a probability of 1e-18."""


def pseudonym(key: str | int, secret: bytes) -> str:
    """Return the pseudonym of a key; a whole number and its decimal text are one key.

    >>> pseudonym(7, b"secret") == pseudonym("7", b"secret") != pseudonym("7", b"another")
    True
    """
    digest = hmac.digest(secret, str(key).encode(), hashlib.sha256).hex()
    return f"e{digest[: PSEUDONYM_CHARACTERS - 1]}"  # a letter first, so that no reader takes it for a number
