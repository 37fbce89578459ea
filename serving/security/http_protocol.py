"""Hardened HTTP/1.1 protocol: uvicorn's, with protection against attacks to which it is vulnerable.

- A head (request line and headers) has at most `MAX_HEAD_BYTES`. The parser collects a header in one string, piece by
  piece, so that each piece of an endless one takes longer than the last: one connection could block the event loop.
- A request of HTTP/1.1 has exactly one Host, as RFC 9112 (3.2) demands: proxies, and the check of origins, go by it.
- An offer to upgrade to anything but a WebSocket is ignored, as RFC 9110 (7.8) allows. The parser would take the
  body behind it for the next request: a request smuggled past a proxy, and a row lost from clients such as Java's, which
  offer HTTP/2 with every request.
- Anything that is not HTTP is answered with a problem document.
- A connection that is refused is closed only once its client has stopped sending: closed earlier, the kernel would
  reset it, and the answer be lost.

How long a client may take, and how many may be connected, is in `serving.security.connection_limits`.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import httptools
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from serving.schemas.problems import ProblemError, problem_for
from serving.security.body_limit import MAX_BODY_BYTES
from serving.security.connection_limits import (
    CHECKED_EVERY_SECONDS,
    MIN_IDLE_SECONDS,
    IdleSearch,
    ReadingClock,
    WaitingFor,
    max_connections,
)

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Iterable

MAX_HEAD_BYTES = 65_536

MAX_AROUND_BODY_BYTES = MAX_BODY_BYTES
"""Largest total of chunk sizes and trailers: as much as the largest body."""

MAX_LINGER_SECONDS = 2.0
MAX_LINGER_BYTES = MAX_BODY_BYTES
"""How long, and how much, a client that was refused may go on sending before its connection is closed."""

HOST = re.compile(rb"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._~!$&'()*+,;=%-]*)(:[0-9]*)?")
"""A name or address, and a port (RFC 9110, 7.2)."""

INVALID_HTTP = ProblemError(400, "invalid_http", "this is not an HTTP/1.1 request")
WRONG_HOST = ProblemError(
    400, "invalid_http", "an HTTP/1.1 request has exactly one header Host, with a name and a port"
)
TOO_SLOW = ProblemError(
    408, "too_slow", "the request did not arrive in time; send its head and body without long pauses"
)
TOO_MANY_CONNECTIONS = ProblemError(
    503, "overloaded", "too many clients are connected; reuse connections, or try again", retry_after_seconds=1
)
HEAD_TOO_LARGE = ProblemError(
    431, "head_too_large", f"the request line and headers may have {MAX_HEAD_BYTES:,} bytes; send data in the body"
)


class StrictHttpProtocol(HttpToolsProtocol):
    """For uvicorn's `http` option."""

    def __init__(self, config: Any, *arguments: Any, **options: Any) -> None:
        super().__init__(config, *arguments, **options)
        self._n_body_bytes = 0
        self._n_other_bytes = 0  # of the message that is being read: head, sizes of chunks, trailers
        self._n_piece_bytes = 0
        self._headers_before_piece: object = None
        self._n_hosts = 0
        self._problem: ProblemError | None = None  # why the parser was stopped, if it was stopped from here
        self._n_discarded_bytes: int | None = None  # since the connection was refused; None if it was not
        self._made_at = 0.0
        self._clock: ReadingClock
        self._timer: asyncio.TimerHandle | None = None

    # What arrives

    def data_received(self, data: bytes) -> None:
        """Parse what has arrived and refuse a head without end. The name is asyncio's."""
        if self._n_discarded_bytes is not None:
            self._discard(data)
            return
        self._unset_keepalive_if_required()
        headers, n_body_bytes = self.headers, self._n_body_bytes
        self._headers_before_piece, self._n_piece_bytes = headers, len(data)
        try:
            try:
                self.parser.feed_data(data)
            except httptools.HttpParserUpgrade as offer:
                self._answer_offer(offer, memoryview(data))
        except httptools.HttpParserError:
            if self._problem is None:
                self.logger.warning("Invalid HTTP request received.")
            self.refuse_and_close(self._problem or INVALID_HTTP)
            return
        if self.headers is not headers:  # a message has started
            self._n_other_bytes = 0
        else:
            self._n_other_bytes += len(data) - (self._n_body_bytes - n_body_bytes)
            if self._n_other_bytes > (MAX_HEAD_BYTES if self._is_in_head() else MAX_AROUND_BODY_BYTES):
                self.refuse_and_close(HEAD_TOO_LARGE)

    def _is_in_head(self) -> bool:
        return self.cycle is None or self.cycle.scope is not self.scope

    def on_message_begin(self) -> None:
        """Begin a message. The name is httptools'."""
        super().on_message_begin()
        self._n_hosts = 0

    def on_header(self, name: bytes, value: bytes) -> None:
        """Note a header, as uvicorn does, and count the hosts. The name is httptools'."""
        name = name.lower()
        if name == b"host":
            self._n_hosts += 1 if _is_host(value) else 2
        elif name == b"expect" and value.lower() == b"100-continue":
            self.expect_100_continue = True
        self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        """Begin the request, unless its head is read again without an offer to upgrade. The name is httptools'."""
        if self._n_hosts != 1 and (self._n_hosts or self.parser.get_http_version() != "1.0"):
            self._stop_parser(WRONG_HOST)
        # Most heads begin and end in one small piece.
        if self._n_piece_bytes > MAX_HEAD_BYTES or self.headers is self._headers_before_piece:
            n_bytes = len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)
            if n_bytes > MAX_HEAD_BYTES:
                self._stop_parser(HEAD_TOO_LARGE)
        if not self.parser.should_upgrade() or self._should_upgrade():
            super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Count and pass on a piece of the body. httptools defines the name."""
        self._n_body_bytes += len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Complete the request, unless its head is read again without an offer to upgrade. httptools defines the name."""
        if not self.parser.should_upgrade() or self._should_upgrade():
            super().on_message_complete()

    def _stop_parser(self, problem: ProblemError) -> None:
        self._problem = problem
        raise httptools.HttpParserError(problem.detail)

    def _should_upgrade(self) -> bool:
        return self.parser.get_method() == b"GET" and super()._should_upgrade()

    def _answer_offer(self, offer: httptools.HttpParserUpgrade, data: memoryview) -> None:
        """Accept the offer of a WebSocket; for any other offer, read the head again without it."""
        while not self._should_upgrade():
            (n_read,) = offer.args
            data = data[n_read:]
            self.parser.feed_data(b"".join(self._head_without_offer()))
            try:
                self.parser.feed_data(data)
                return
            except httptools.HttpParserUpgrade as next_offer:
                offer = next_offer
        self.handle_websocket_upgrade()

    def _head_without_offer(self) -> Iterable[bytes]:
        """Yield the head's lines without the offer.

        Raises:
            HttpParserError: if the method is CONNECT, which is itself an upgrade.
        """
        method = self.parser.get_method()
        if method == b"CONNECT":
            raise httptools.HttpParserError("CONNECT is for proxies")
        yield b"%b %b HTTP/%b\r\n" % (method, self.url, self.parser.get_http_version().encode())
        for name, value in self.headers:
            if name != b"upgrade":
                yield b"%b: %b\r\n" % (name, value)
        yield b"\r\n"

    # What is refused

    def refuse_and_close(self, problem: ProblemError) -> None:
        """Respond with the problem and close the connection: where the next request begins is unknown."""
        if self.cycle is not None and self.cycle.response_started and not self.cycle.response_complete:
            self.transport.close()  # the problem would be taken for a part of that response
            return
        self._respond_last(problem)
        self._n_discarded_bytes = 0
        self.flow.resume_reading()
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self._set_timer(MAX_LINGER_SECONDS, self.transport.close)

    def _respond_last(self, problem: ProblemError) -> None:
        answer = problem_for(problem)
        headers = [*self.server_state.default_headers, *answer.raw_headers, (b"connection", b"close")]
        head = [STATUS_LINE[answer.status_code], *(b"%b: %b\r\n" % header for header in headers), b"\r\n"]
        self.transport.write(b"".join([*head, bytes(answer.body)]))
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.disconnected = True  # nothing more is sent for it
            self.cycle.message_event.set()
        self.pipeline.clear()

    def _discard(self, data: bytes) -> None:
        assert self._n_discarded_bytes is not None
        self._n_discarded_bytes += len(data)
        if self._n_discarded_bytes > MAX_LINGER_BYTES:
            self.transport.close()

    # Who may stay

    def connection_made(self, transport: Any) -> None:
        """Take a connection if there is room for it. The name is asyncio's."""
        super().connection_made(transport)
        self._made_at = self.loop.time()
        self._clock = ReadingClock(self._made_at)
        self._set_timer(CHECKED_EVERY_SECONDS, self._check_progress)
        if len(self.connections) > max_connections():
            self._make_room()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection. The name is asyncio's."""
        self._unset_timer()
        super().connection_lost(exc)

    def handle_websocket_upgrade(self) -> None:
        """Hand the connection over; `/live` has limits of its own. The name is uvicorn's."""
        self._unset_timer()
        super().handle_websocket_upgrade()

    def _make_room(self) -> None:
        """Close the connection that has been idle longest, or this one if all are in use."""
        search: IdleSearch = vars(self.server_state).setdefault("idle_search", IdleSearch())  # one per server
        others = (one for one in self.connections if isinstance(one, StrictHttpProtocol) and one is not self)
        idlest = search.next(others, self.loop.time(), MIN_IDLE_SECONDS)
        if isinstance(idlest, StrictHttpProtocol):
            idlest.transport.close()
        else:
            self._respond_last(TOO_MANY_CONNECTIONS)
            self.transport.close()  # at once: a client that is waited for would need what there is too little of

    def idle_seconds(self) -> float:
        """Return for how long nothing has been asked or sent on this connection; 0 if it is in use, or closing."""
        if self.transport.is_closing():
            return 0.0
        if self.timeout_keep_alive_task is not None:
            return self.loop.time() - (self.timeout_keep_alive_task.when() - self.timeout_keep_alive)
        return self.loop.time() - self._made_at if self.headers is None else 0.0

    def _check_progress(self) -> None:
        if self._clock.is_overdue(self._waiting_for(), self._n_body_bytes, self.loop.time()):
            if self.headers is None:
                self.transport.close()  # it has never sent anything, so there is nothing to respond to
            else:
                self.refuse_and_close(TOO_SLOW)
        elif not self.transport.is_closing():
            self._set_timer(CHECKED_EVERY_SECONDS, self._check_progress)

    def _waiting_for(self) -> WaitingFor | None:
        """Return what the client has to send next; None if it is idle between requests, or it is our turn."""
        if self.timeout_keep_alive_task is not None or self.flow.read_paused:
            return None
        if self.cycle is not None and self.cycle.more_body:
            return WaitingFor(is_body=True, after=self.cycle)
        if self.cycle is None or self.cycle.response_complete:
            return WaitingFor(is_body=False, after=self.cycle)
        return None

    def _set_timer(self, seconds: float, act: Callable[[], None]) -> None:
        self._unset_timer()
        self._timer = self.loop.call_later(seconds, act)

    def _unset_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


@lru_cache(maxsize=256)
def _is_host(value: bytes) -> bool:
    return HOST.fullmatch(value.strip()) is not None
