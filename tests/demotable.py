"""A Postgres that a test demotes and fails over, as a cluster does: nobody restarts, nobody closes a connection.

After `demote` every session is refused changes (SQLSTATE 25006) and answers pings. After `fail_over` that is so for the
sessions there were; new ones reach a server that accepts changes.
"""

from __future__ import annotations

import psycopg

from selfheal.adapters.postgres.embedded import EmbeddedServer


class Demotable:
    """A server of the test's own."""

    def __init__(self, server: EmbeddedServer) -> None:
        self._server = server
        self.url = server.url

    def demote(self) -> None:
        self._administer("ALTER SYSTEM SET default_transaction_read_only = on")

    def fail_over(self, database: str) -> None:
        self._administer(f"ALTER DATABASE {database} SET default_transaction_read_only = off")

    def restore(self, database: str | None = None) -> None:
        """Make it as it was."""
        self._administer("ALTER SYSTEM RESET default_transaction_read_only")
        if database is not None:
            self._administer(f"ALTER DATABASE {database} RESET default_transaction_read_only")

    def _administer(self, command: str) -> None:
        options = "-c default_transaction_read_only=off"
        with psycopg.connect(self._server.url("postgres"), autocommit=True, options=options) as connection:
            connection.execute(command)
            connection.execute("SELECT pg_reload_conf()")
