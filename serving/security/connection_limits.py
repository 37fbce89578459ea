"""Limits of connections: how long a client may take to send a request, and how many clients may be connected.

A client that sends nothing, or a byte a second, costs a file descriptor and some memory for as long as it likes; where
all descriptors are taken, nobody else can connect and no journal file can be opened. `serving.security.http_protocol`
applies these limits.
"""

from __future__ import annotations

import resource
from functools import cache
from operator import itemgetter
from typing import TYPE_CHECKING, NamedTuple, Protocol

from selfheal.kit.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

HEAD_TIMEOUT_SECONDS = 20.0
"""For the request line and headers, and for the first byte on a new connection."""

BODY_TIMEOUT_SECONDS = 30.0
"""For the body, and a second more for every `MIN_BODY_BYTES_PER_SECOND` that have arrived."""

MIN_BODY_BYTES_PER_SECOND = 10_000
"""Slower than any network that a batch is sent over; the largest body may take half an hour."""

CHECKED_EVERY_SECONDS = 2.0
"""A connection may exceed its time by so much: timers per request would cost more than the requests do."""

MAX_CONNECTIONS = 4_096
"""Per worker. A load balancer keeps some hundred open."""

RESERVED_DESCRIPTORS = 128
"""For what is not a client: journals, pools of Postgres, the model, channels of alerts (about 60), and some air."""

MIN_CONNECTIONS = 32

MIN_IDLE_SECONDS = 5.0
"""A connection that has been idle for so long is closed if a new one needs its place."""

SEARCH_PAUSE_SECONDS = 0.1
"""Between two searches for an idle connection: each looks at all of them, for some milliseconds."""


class WaitingFor(NamedTuple):
    """The part of a request that a client has not sent completely; `after` is the request before it, or its own."""

    is_body: bool
    after: RequestResponseCycle | None


class HasIdleTime(Protocol):
    """A connection that knows for how long it has been idle; 0 while it is in use."""

    def idle_seconds(self) -> float:
        """Return it in seconds."""


class IdleSearch:
    """Finds the connections that were idle longest, for a server that is full.

    A new client must not cost a look at every connection. So a search notes all that have been idle for long enough, and
    after one that found too few there is none before the next connection can have been idle for so long.
    """

    def __init__(self) -> None:
        self._found: list[HasIdleTime] = []
        """The one that is idle longest is the last."""
        self._next_search_at = 0.0

    def next(
        self, connections: Iterable[HasIdleTime], now_seconds: float, min_idle_seconds: float
    ) -> HasIdleTime | None:
        """Return a connection that has been idle for long enough; None if there is none, as far as is known."""
        while self._found:
            one = self._found.pop()
            if one.idle_seconds() >= min_idle_seconds:
                return one
        if now_seconds < self._next_search_at:
            return None
        by_idle_time = sorted(((one.idle_seconds(), one) for one in connections), key=itemgetter(0))
        self._found = [one for idle, one in by_idle_time if idle >= min_idle_seconds]
        longest_of_others = max((idle for idle, _ in by_idle_time if idle < min_idle_seconds), default=0.0)
        self._next_search_at = now_seconds + max(min_idle_seconds - longest_of_others, SEARCH_PAUSE_SECONDS)
        return self._found.pop() if self._found else None


class ReadingClock:
    """How long a connection has waited for the same part of a request, as far as regular checks can see."""

    def __init__(self, now_seconds: float) -> None:
        self._waiting_for: WaitingFor | None = WaitingFor(is_body=False, after=None)
        self._since = now_seconds
        self._n_body_bytes = 0

    def is_overdue(self, waiting_for: WaitingFor | None, n_body_bytes: int, now_seconds: float) -> bool:
        """Return whether the client has taken too long.

        Args:
            waiting_for: None if it is not the client's turn.
            n_body_bytes: all bytes of bodies that this connection has received.
            now_seconds: the time of a monotonic clock.
        """
        if waiting_for != self._waiting_for:
            self._waiting_for, self._since, self._n_body_bytes = waiting_for, now_seconds, n_body_bytes
        if waiting_for is None:
            return False
        if not waiting_for.is_body:
            return now_seconds - self._since > HEAD_TIMEOUT_SECONDS
        earned_seconds = (n_body_bytes - self._n_body_bytes) / MIN_BODY_BYTES_PER_SECOND
        return now_seconds - self._since > BODY_TIMEOUT_SECONDS + earned_seconds


def connections_for(n_descriptors: int) -> int:
    """Return how many clients may be connected to a process that may open so many files.

    Raises:
        ConfigurationError: if there would be too few.
    """
    n_left = n_descriptors - RESERVED_DESCRIPTORS
    if n_left < MIN_CONNECTIONS:
        raise ConfigurationError(
            f"this process may open {n_descriptors} files, the API needs {RESERVED_DESCRIPTORS + MIN_CONNECTIONS} or more; "
            "raise the limit, for example with `ulimit -n 4096`"
        )
    return min(n_left, MAX_CONNECTIONS)


def open_files_limit() -> int:
    """Return how many files this process may open."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return MAX_CONNECTIONS + RESERVED_DESCRIPTORS if soft == resource.RLIM_INFINITY else soft


@cache
def max_connections() -> int:
    """Return how many clients may be connected to this process.

    Raises:
        ConfigurationError: as `connections_for`.
    """
    return connections_for(open_files_limit())
