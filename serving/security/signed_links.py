"""Signed links: tickets that give access to report pages for ten minutes, because a browser sends no key with a link.

A caller with the scope `read` gets a ticket with the list of reports. It gives access to report pages and their scripts only.
The secret is random and in a file that only the service's user can read, so all workers of a machine share it; deleting the
file invalidates all tickets at the next start.
"""

from __future__ import annotations

import hashlib
import secrets
import time
from collections.abc import Callable
from pathlib import Path

from itsdangerous import BadSignature, TimestampSigner

from selfheal.kit.atomic_file import write_once

LIFETIME_SECONDS = 600
SECRET_BYTES = 32
PURPOSE = "reports"
"""Purpose of a ticket, which is part of its signature."""


class SignedLinks:
    """Issues and checks tickets. The first call in a process reads or creates the secret's file."""

    def __init__(self, data_dir: Path, clock: Callable[[], float] = time.time) -> None:
        self._path = data_dir / "run" / "report_tickets.secret"
        self._clock = clock
        self._made: _Signer | None = None

    def issue(self) -> str:
        """Return a ticket that is valid from now on for `LIFETIME_SECONDS`."""
        return self._signer().sign(PURPOSE).decode("ascii")

    def is_valid(self, ticket: str) -> bool:
        """Return whether the ticket was issued on this machine and has not expired."""
        try:
            return self._signer().unsign(ticket, max_age=LIFETIME_SECONDS) == PURPOSE.encode()
        except BadSignature:  # the base class of all of a ticket's errors, including its age
            return False

    def _signer(self) -> _Signer:
        if self._made is None:
            self._made = _Signer(_read_or_create_secret(self._path), self._clock)
        return self._made


class _Signer(TimestampSigner):
    """itsdangerous' signer under a clock that a test can set."""

    def __init__(self, secret: bytes, clock: Callable[[], float]) -> None:
        super().__init__(secret, salt=PURPOSE, key_derivation="hmac", digest_method=hashlib.sha256)
        self._clock = clock

    def get_timestamp(self) -> int:
        return int(self._clock())


def _read_or_create_secret(path: Path) -> bytes:
    """Return the secret in the file; create it if it is missing. Of several processes the first one wins."""
    return write_once(path, secrets.token_bytes(SECRET_BYTES), mode=0o600)
