"""Hash chain: one chain of links in two tables, decisions (`decisions`) and digests of the journal (`journal_seals`).

Belongs here: what a link is, and queries over both tables. The content of a link is its table's.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from sqlalchemy import Connection, text

from selfheal.adapters.postgres.lock_keys import Lock

GENESIS = "0" * 64
"""What the first link follows."""

LINKS = """
    (SELECT position, hash FROM retraining_decisions UNION ALL SELECT position, hash FROM journal_seals) AS links
"""


@dataclass(frozen=True, slots=True)
class Link:
    """One row of the chain, its name for messages, and whether its content matches its hash."""

    position: int
    prev_hash: str
    hash: str
    name: str
    is_as_hashed: bool


def link_problems(links: Iterable[Link]) -> Iterator[str]:
    """Yield what is wrong with the chain (edited rows, missing links), one sentence each; nothing if it is intact."""
    previous = GENESIS
    for link in sorted(links, key=lambda link: link.position):
        if link.prev_hash != previous:
            yield f"{link.name}: the record before it in the chain is missing or was changed"
        if not link.is_as_hashed:
            yield f"{link.name}: its content does not match its hash"
        previous = link.hash


def lock(connection: Connection) -> None:
    """Let nobody else append before the connection's transaction ends."""
    connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": Lock.CHAIN})


def next_position(connection: Connection) -> int:
    """Return the next place in the chain: both tables draw from one sequence, the one of decisions."""
    query = "SELECT nextval(pg_get_serial_sequence('retraining_decisions', 'position'))"
    return int(connection.execute(text(query)).scalar_one())


def last_hash(connection: Connection) -> str:
    """Return the newest link's hash; `GENESIS` if there is none."""
    last = connection.execute(text(f"SELECT hash FROM {LINKS} ORDER BY position DESC LIMIT 1")).scalar()
    return last or GENESIS


def position_of(connection: Connection, head: str) -> int | None:
    """Return where the link with this hash is; -1 for `GENESIS`, None if no link has it."""
    if head == GENESIS:
        return -1
    return connection.execute(text(f"SELECT position FROM {LINKS} WHERE hash = :head"), {"head": head}).scalar()
