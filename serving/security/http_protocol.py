"""A hardened HTTP/1.1 protocol: uvicorn's, without the attacks that it leaves open.

- A head (request line and headers) that does not end is refused. The parser collects a header in one string, piece by piece, so
  that each piece of an endless one takes longer than the last: one connection could block the event loop for all.
- An offer to upgrade to anything but a WebSocket is ignored, as RFC 9110 (7.8) allows. The parser would take the
  body behind it for the next request: a request smuggled past a proxy, and a row lost from clients such as Java's, which
  offer HTTP/2 with every request.
- Anything that is not HTTP is answered with a problem document.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import httptools
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from serving.schemas.problems import ProblemError, problem_for
from serving.security.body_limit import MAX_BODY_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterable

MAX_HEAD_BYTES = 65_536
"""For a head, not counting the piece that it begins in (at most 256 kB, the most that is read at once)."""

MAX_AROUND_BODY_BYTES = MAX_BODY_BYTES
"""For chunk sizes and trailers: as much again as the largest body."""

INVALID_HTTP = ProblemError(400, "invalid_http", "this is not an HTTP/1.1 request")
HEAD_TOO_LARGE = ProblemError(
    431, "head_too_large", f"the request line and headers may have {MAX_HEAD_BYTES:,} bytes; send data in the body"
)


class StrictHttpProtocol(HttpToolsProtocol):
    """For uvicorn's `http` option."""

    def __init__(self, config: Any, *arguments: Any, **options: Any) -> None:
        super().__init__(config, *arguments, **options)
        self._n_body_bytes = 0
        self._n_other_bytes = 0  # of the message that is being read: head, sizes of chunks, trailers

    def data_received(self, data: bytes) -> None:
        """Parse what has arrived and refuse a head without end. The name is asyncio's."""
        self._unset_keepalive_if_required()
        headers, n_body_bytes = self.headers, self._n_body_bytes
        try:
            try:
                self.parser.feed_data(data)
            except httptools.HttpParserUpgrade as offer:
                self._answer_offer(offer, memoryview(data))
        except httptools.HttpParserError:
            self.logger.warning("Invalid HTTP request received.")
            self._refuse_and_close(INVALID_HTTP)
            return
        if self.headers is not headers:  # a message has begun
            self._n_other_bytes = 0
        else:
            self._n_other_bytes += len(data) - (self._n_body_bytes - n_body_bytes)
            if self._n_other_bytes > (MAX_HEAD_BYTES if self._is_in_head() else MAX_AROUND_BODY_BYTES):
                self._refuse_and_close(HEAD_TOO_LARGE)

    def _is_in_head(self) -> bool:
        return self.cycle is None or self.cycle.scope is not self.scope

    def on_headers_complete(self) -> None:
        """Begin the request, unless its head is read again without an offer to upgrade. The name is httptools'."""
        if not self.parser.should_upgrade() or self._should_upgrade():
            super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Count and pass on a piece of the body. The name is httptools'."""
        self._n_body_bytes += len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Complete the request, unless its head is read again without an offer to upgrade. The name is httptools'."""
        if not self.parser.should_upgrade() or self._should_upgrade():
            super().on_message_complete()

    def _should_upgrade(self) -> bool:
        return self.parser.get_method() == b"GET" and super()._should_upgrade()

    def _answer_offer(self, offer: httptools.HttpParserUpgrade, data: memoryview) -> None:
        """Accept the offer of a WebSocket; with any other, read the head again without the offer."""
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
            HttpParserError: for CONNECT, which is an upgrade by itself.
        """
        method = self.parser.get_method()
        if method == b"CONNECT":
            raise httptools.HttpParserError("CONNECT is for proxies")
        yield b"%b %b HTTP/%b\r\n" % (method, self.url, self.parser.get_http_version().encode())
        for name, value in self.headers:
            if name != b"upgrade":
                yield b"%b: %b\r\n" % (name, value)
        yield b"\r\n"

    def _refuse_and_close(self, problem: ProblemError) -> None:
        """Respond with the problem and close the connection: where the next request begins is unknown."""
        answer = problem_for(problem)
        headers = [*self.server_state.default_headers, *answer.raw_headers, (b"connection", b"close")]
        head = [STATUS_LINE[answer.status_code], *(b"%b: %b\r\n" % header for header in headers), b"\r\n"]
        self.transport.write(b"".join([*head, bytes(answer.body)]))
        self.transport.close()
