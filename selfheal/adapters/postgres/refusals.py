"""Refusals: what Postgres's error codes (SQLSTATE) mean for whoever runs the platform, and which end a connection.

After a failover a pool may hold connections to a server that answers every ping and accepts no change. What such a
connection is refused, the next one, to the server that has taken over, is not.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sqlalchemy.engine import ExceptionContext

UNAVAILABLE = "Postgres is unavailable"

READ_ONLY = "25006"

SENTENCES = {
    READ_ONLY: "Postgres accepts no changes: it is a standby, was demoted by a failover, or was set read-only",
    "08": f"{UNAVAILABLE}: the connection was lost",
    "26000": "Postgres no longer knows a prepared statement: a connection pooler is between",
    "28": "Postgres refuses the user or the password",
    "3D000": "Postgres has no such database",
    "40": "another transaction was in the way of this one in Postgres",
    "42501": "Postgres refuses the user a privilege",
    "42P01": "Postgres lacks a table: its schema is not of this release",
    "42703": "Postgres lacks a column: its schema is not of this release",
    "53100": "Postgres has no room on its disk",
    "53200": "Postgres is out of memory",
    "53300": "Postgres has no connection left (max_connections)",
    "55P03": "a lock in Postgres is held by another session",
    "57014": "Postgres took too long and the query was cancelled",
    "57P01": f"{UNAVAILABLE}: it is shutting down",
    "57P02": f"{UNAVAILABLE}: it restarts after a crash",
    "57P03": f"{UNAVAILABLE}: it is starting or shutting down",
    "57P04": "Postgres has dropped the database",
    "58": "Postgres cannot read or write its files",
    "XX": "Postgres reports damaged data or a defect of its own",
}
"""By SQLSTATE, or its class: what happened, as the reason in a sentence for an operator. No addresses and no SQL: the
health page, which shows it, asks for no key."""

CONNECTION_FAILURES = {
    "28": r"authentication failed|no pg_hba\.conf entry|role .* does not exist|no password supplied",
    "3D000": r"database .* does not exist",
    "42501": r"permission denied",
    "53300": r"too many (clients|connections)|connection slots are reserved",
    "57P03": r"the database system is (starting up|shutting down|in recovery mode|not (yet )?accepting connections)",
    READ_ONLY: r"session is read-only|server is in hot standby mode",
}
"""What a failed attempt to connect says: the driver has no SQLSTATE then. In another language it is `UNAVAILABLE`."""

ENDS_CONNECTION = frozenset(
    {READ_ONLY, "0A000", "26000", "42P05", "25P03", "57P01", "57P02", "57P03", "57P04", "57P05"}
)
"""Refused because of the connection's server or state (a demoted server; a cached plan of tables that have changed; a
pooler's other server), and answered by pings all the same: a new connection may be refused nothing."""


def refusal(error: BaseException) -> str:
    """Return why Postgres did not do what it was asked, to be continued by its effect: `{refusal}, so ...`."""
    original = _of_driver(error)
    code = getattr(original, "sqlstate", None) or _code_of_failed_connection(str(original))
    if code is None:
        return UNAVAILABLE
    known = SENTENCES.get(code) or SENTENCES.get(code[:2])
    return known or f"Postgres refuses it (SQLSTATE {code})"


def drop_refused_connection(context: ExceptionContext) -> None:
    """Have SQLAlchemy close the pool's connections where one was refused for what it is; a listener of `handle_error`."""
    if getattr(context.original_exception, "sqlstate", None) in ENDS_CONNECTION:
        context.is_disconnect = True


def _of_driver(error: BaseException) -> BaseException:
    """Return the driver's own error behind SQLAlchemy's or one of ours."""
    seen: BaseException | None = error
    while seen is not None:
        original = getattr(seen, "orig", None)
        if isinstance(original, BaseException):
            return original
        if getattr(seen, "sqlstate", None) is not None:
            return seen
        seen = seen.__cause__
    return error


def _code_of_failed_connection(message: str) -> str | None:
    return next((code for code, pattern in CONNECTION_FAILURES.items() if re.search(pattern, message)), None)
