"""Circuit breaker for Postgres connections: blocked until the database is known to be ours, and open after a failure.

Without it, every request would wait for the time-out of a server that does not answer, and a service that started
without Postgres could write into any database that comes up at its address. Connections whose server no longer accepts
changes are not used again: after a failover another server does.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

import psycopg
from sqlalchemy import create_engine, event
from sqlalchemy.engine import make_url

from selfheal.adapters.postgres.refusals import drop_refused_connection

if TYPE_CHECKING:
    from sqlalchemy import URL, Engine

CONNECT_TIMEOUT_SECONDS = 5

CONNECT_ARGUMENTS = {
    "connect_timeout": CONNECT_TIMEOUT_SECONDS,
    "tcp_user_timeout": 10_000,  # ms until an unreachable host is given up; the kernel's default is 15 min
}


class ConnectionBreaker:
    """Decides which connections may be attempted. A refusal is a `psycopg.OperationalError`, like an outage.

    After a failure, connection attempts fail fast for as long as the failed one took; then one caller probes (half-open). So
    a refused connection costs nothing, and at most half of the time is spent waiting for time-outs.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._is_allowed = False
        self._host: str | None = None
        self._has_failed = False
        self._failure = ""
        self._open_until = 0.0

    def allow(self, host: str | None = None) -> None:
        """Allow connections; to `host`, if the engine's URL names none (the embedded server's folder)."""
        with self._lock:
            self._is_allowed, self._host = True, host
            self._has_failed, self._open_until = False, 0.0

    def block(self) -> None:
        """Refuse new connections until `allow` is called."""
        with self._lock:
            self._is_allowed = False

    def connect(self, dialect: Any, _record: Any, arguments: list[Any], parameters: dict[str, Any]) -> Any:
        """Make a connection for SQLAlchemy, which calls this instead of the driver.

        Raises:
            psycopg.OperationalError: if it is refused here, or the driver fails.
        """
        host = self._pass()
        given = {"host": host} | parameters if host is not None else parameters
        began_at = time.monotonic()
        try:
            connection = dialect.connect(*arguments, **given)
        except psycopg.OperationalError as error:
            self._failure = str(error)
            self._note(took_seconds=time.monotonic() - began_at)
            raise
        self._note(took_seconds=None)
        return connection

    def _pass(self) -> str | None:
        now = time.monotonic()
        with self._lock:
            if not self._is_allowed:
                raise psycopg.OperationalError("Postgres has not been reached yet, or its database is not ours")
            if now < self._open_until:
                raise psycopg.OperationalError(f"Postgres did not answer a moment ago: {self._failure}")
            if self._has_failed:
                self._open_until = now + CONNECT_TIMEOUT_SECONDS
            return self._host

    def _note(self, *, took_seconds: float | None) -> None:
        with self._lock:
            self._has_failed = took_seconds is not None
            self._open_until = 0.0 if took_seconds is None else time.monotonic() + took_seconds


def breaker_engine(
    url: str | URL, breaker: ConnectionBreaker, *, options: str = "-c timezone=UTC", **pool: Any
) -> Engine:
    """Return a lazy engine behind the breaker; `options` go to the server with each connection, after the URL's own."""
    own = make_url(url).query.get("options", "")
    arguments = CONNECT_ARGUMENTS | {"options": f"{own} {options}".strip()}
    engine = create_engine(url, pool_pre_ping=True, connect_args=arguments, **pool)
    event.listen(engine, "do_connect", breaker.connect)
    event.listen(engine, "handle_error", drop_refused_connection)
    engine.dialect.do_ping = accepts_changes  # type: ignore[method-assign,assignment]
    return engine


def accepts_changes(connection: Any) -> bool:
    """Ping a connection of the pool before it is used: if it is read-only, the pool tries a new one and closes its others.

    Readers would else see the past of a server that a failover has left behind, for as long as the process runs. If the
    new connection is read-only, too, it is used: there is no server that accepts changes, and reading goes on.
    """
    was_autocommit = connection.autocommit
    connection.autocommit = True
    try:
        (is_read_only,) = connection.execute("SHOW transaction_read_only").fetchone()
    finally:
        if not connection.closed:
            connection.autocommit = was_autocommit
    return bool(is_read_only == "off")
