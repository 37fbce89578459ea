"""Immediate notifications of changes: LISTEN/NOTIFY on a connection of its own.

A notification says only that something changed: the listener reads the tables, and polls them anyway. So a lost connection
costs only latency.
"""

from __future__ import annotations

import logging
import selectors
import socket
import time
from collections.abc import Callable

import psycopg
from psycopg import sql

from selfheal.adapters.postgres.circuit_breaker import CONNECT_ARGUMENTS, accepts_changes
from selfheal.kit.backoff import Backoff

logger = logging.getLogger(__name__)

CONNECT_BACKOFF = Backoff(initial_seconds=0.5, max_seconds=30.0)
"""Pauses between two attempts to connect."""

KEEPALIVE = {"keepalives_idle": 30, "keepalives_interval": 10, "keepalives_count": 3}
"""TCP keepalives (seconds, and a count): nothing is sent on this connection, so without them a lost peer goes unnoticed."""


class Listener:
    """Waits for notifications on one channel. One thread waits; any thread may `wake` it.

    Args:
        url: returns the database's URL (`postgresql://`); called for each connection.
    """

    def __init__(self, url: Callable[[], str], channel: str) -> None:
        self._url = url
        self._channel = channel
        self._connection: psycopg.Connection | None = None
        self._next_attempt_at = 0.0
        self._n_failures = 0
        self._has_heard = False
        self._waked, self._waker = socket.socketpair()
        self._waked.setblocking(False)

    @property
    def is_connected(self) -> bool:
        """Return whether notifications arrive now."""
        return self._connection is not None

    def wait(self, timeout_seconds: float) -> bool:
        """Return True as soon as something may have changed; False after the time-out, or if woken.

        Something may have changed if a notification arrived, and whenever the connection was lost or made, because
        notifications in between were missed.
        """
        now = time.monotonic()
        if self._connection is None and now >= self._next_attempt_at and self._connect():
            return True
        if self._connection is None:
            timeout_seconds = min(timeout_seconds, max(0.0, self._next_attempt_at - time.monotonic()))
        is_woken, has_come = self._wait_for_sockets(timeout_seconds)
        if has_come:
            return self._was_notified()
        if not is_woken:
            self._leave_demoted_server()
        has_heard, self._has_heard = self._has_heard, False
        return has_heard

    def retry_at_once(self) -> None:
        """Make the next wait connect at once, because the caller knows that Postgres is back."""
        self._next_attempt_at = 0.0

    def wake(self) -> None:
        """End the current wait, or the next one."""
        self._waker.send(b"\0")

    def close(self) -> None:
        """Close the connection. Only the waiting thread may call this, or any thread after that one has ended."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        self._waked.close()
        self._waker.close()

    def _connect(self) -> bool:
        try:
            self._connection = psycopg.connect(
                self._url(),
                autocommit=True,
                application_name=f"{self._channel} listener",
                **CONNECT_ARGUMENTS | KEEPALIVE,  # type: ignore[arg-type]
            )
            self._connection.add_notify_handler(self._hear)  # what comes during a query is dropped without one
            self._connection.execute(sql.SQL("LISTEN {}").format(sql.Identifier(self._channel)))
        except Exception as error:  # not only psycopg's: the embedded server may not start
            self._lose(error)
            return False
        self._n_failures = 0
        return True

    def _hear(self, _: psycopg.Notify) -> None:
        self._has_heard = True

    def _lose(self, error: Exception) -> None:
        self._n_failures += 1
        if self._n_failures == 1:
            logger.warning("LISTEN %s failed, falling back to polling: %s", self._channel, error)
        if self._connection is not None:
            self._connection.close()
        self._connection = None
        self._next_attempt_at = time.monotonic() + CONNECT_BACKOFF.seconds(self._n_failures)

    def _leave_demoted_server(self) -> None:
        """Give the connection up if its server accepts no changes: after a failover it will never notify of one."""
        if self._connection is None:
            return
        try:
            if not accepts_changes(self._connection):
                self._lose(psycopg.errors.ReadOnlySqlTransaction("the server is read-only"))
        except psycopg.Error as error:
            self._lose(error)

    def _wait_for_sockets(self, timeout_seconds: float) -> tuple[bool, bool]:
        """Return whether the wait was ended by `wake`, and whether something came from Postgres."""
        with selectors.DefaultSelector() as selector:
            selector.register(self._waked, selectors.EVENT_READ)
            if self._connection is not None:
                selector.register(self._connection.fileno(), selectors.EVENT_READ)
            ready = {key.fileobj for key, _ in selector.select(timeout_seconds)}
        if self._waked in ready:
            self._waked.recv(1_024)
        return self._waked in ready, bool(ready - {self._waked})

    def _was_notified(self) -> bool:
        assert self._connection is not None, "only a connection of Postgres is waited for"
        try:
            self._connection.pgconn.consume_input()
            while self._connection.pgconn.notifies() is not None:
                pass  # several notifications are one reason to read the tables once
        except psycopg.OperationalError as error:
            self._lose(error)
        return True
