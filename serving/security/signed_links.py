"""Tickets that open report pages for a while, for browsers: a link that is followed sends no key.

Whoever may read (and so has the list of reports) is given one: `<end, Unix seconds>-<HMAC over it>`. It opens report pages and their
scripts and nothing else. The secret is random, in a file that only the service's user can read, and thus the same for all
workers of a machine; whoever deletes the file ends all tickets.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from pathlib import Path

from selfheal.kit.atomic_file import write_once

LASTS_SECONDS = 600
SECRET_BYTES = 32
TICKET = re.compile(r"(\d{1,12})-([0-9a-f]{64})")


class SignedLinks:
    """Issues and checks. The first call of a process reads, or makes, the secret's file."""

    def __init__(self, data_dir: Path) -> None:
        self._path = data_dir / "run" / "signed_links.secret"
        self._secret: bytes | None = None

    def issue(self, now_seconds: float) -> str:
        """A ticket that is valid from now on for `LASTS_SECONDS`."""
        end = str(int(now_seconds) + LASTS_SECONDS)
        return f"{end}-{self._sign(end)}"

    def is_valid(self, ticket: str, now_seconds: float) -> bool:
        """Whether it was issued here and is not over."""
        parts = TICKET.fullmatch(ticket)
        if parts is None:
            return False
        end, signature = parts.groups()
        return hmac.compare_digest(signature, self._sign(end)) and now_seconds <= int(end)

    def _sign(self, end: str) -> str:
        if self._secret is None:
            self._secret = _secret_in(self._path)
        return hmac.new(self._secret, end.encode(), hashlib.sha256).hexdigest()


def _secret_in(path: Path) -> bytes:
    """The file's; made first if it is not there. Of several processes that make it at once, one wins and all read the same."""
    return write_once(path, secrets.token_bytes(SECRET_BYTES), mode=0o600)
