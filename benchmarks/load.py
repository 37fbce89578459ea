"""Load generator: connections that each send one request after the other and record the responses and their times.

It runs in one thread on uvloop and costs a fraction of the servers' time per request, so that the servers are the bottleneck.
Belongs here: sending. Does not belong here: interpreting the figures.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import cast

import numpy as np
import uvloop


@dataclass
class LoadResult:
    """Result of a load. A failed request got a status other than 200, or its connection broke."""

    seconds: float = 0.0
    latencies_seconds: list[float] = field(default_factory=list)
    answers: list[tuple[int, bytes]] = field(default_factory=list)
    n_failed: int = 0
    first_failure: str | None = None

    @property
    def n_answered(self) -> int:
        """Return the number of answered requests."""
        return len(self.latencies_seconds)

    @property
    def requests_per_second(self) -> float:
        """Return the rate of answered requests."""
        return self.n_answered / self.seconds if self.seconds else 0.0

    def percentile_ms(self, percent: float) -> float:
        """Return a percentile (0 to 100) of the latencies in milliseconds; NaN without any."""
        return 1000 * float(np.percentile(self.latencies_seconds, percent)) if self.latencies_seconds else float("nan")


def http_request(path: str, body: bytes, api_key: str | None = None) -> bytes:
    """Return a whole HTTP request that posts a JSON body, with an API key if one is given."""
    head = (
        f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    )
    key = "" if api_key is None else f"X-API-Key: {api_key}\r\n"
    return f"{head}{key}\r\n".encode() + body


def run_load(
    port: int,
    requests: Sequence[bytes],
    *,
    n_connections: int,
    seconds: float,
    keeps_answers: bool = False,
    until: Callable[[], bool] | None = None,
) -> LoadResult:
    """Send for `seconds`, or until `until()` is true (called ten times per second); each connection has one open request.

    Args:
        requests: complete HTTP requests, sent in order and repeatedly by all connections together.
        keeps_answers: whether to store each response's body with the position of its request.
    """
    return uvloop.run(_run(port, requests, n_connections, seconds, keeps_answers, until))


async def _run(
    port: int,
    requests: Sequence[bytes],
    n_connections: int,
    seconds: float,
    keeps_answers: bool,
    until: Callable[[], bool] | None,
) -> LoadResult:
    loop = asyncio.get_running_loop()
    state = _State(requests, keeps_answers)
    clients = [_Client(state, loop.create_future()) for _ in range(n_connections)]
    for client in clients:
        await loop.create_connection(lambda client=client: client, "127.0.0.1", port)  # type: ignore[misc]
    began = time.perf_counter()
    while time.perf_counter() - began < seconds and not (until is not None and until()):
        await asyncio.sleep(min(0.1, seconds / 10))
    state.is_over = True
    await asyncio.wait([client.done for client in clients], timeout=30)
    state.result.seconds = time.perf_counter() - began
    for client in clients:
        client.close()
    return state.result


class _State:
    """State that the connections share."""

    def __init__(self, requests: Sequence[bytes], keeps_answers: bool) -> None:
        self.requests = requests
        self.keeps_answers = keeps_answers
        self.next_request = 0
        self.is_over = False
        self.result = LoadResult()

    def fail(self, why: str) -> None:
        self.result.n_failed += 1
        self.result.first_failure = self.result.first_failure or why


class _Client(asyncio.Protocol):
    def __init__(self, state: _State, done: asyncio.Future[None]) -> None:
        self._state = state
        self.done = done
        self._transport: asyncio.WriteTransport | None = None
        self._received = b""
        self._position = 0
        self._sent_at = 0.0
        self._is_waiting = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.WriteTransport, transport)
        self._send_next()

    def data_received(self, data: bytes) -> None:
        self._received = self._received + data if self._received else data
        head_end = self._received.find(b"\r\n\r\n")
        if head_end < 0:
            return
        head = self._received[:head_end].lower()
        length_at = head.index(b"content-length:") + 15
        length_end = head.find(b"\r\n", length_at)
        length = int(head[length_at:] if length_end < 0 else head[length_at:length_end])
        if len(self._received) < head_end + 4 + length:
            return
        body, self._received = self._received[head_end + 4 :], b""
        self._is_waiting = False
        if head.startswith(b"http/1.1 200"):
            self._state.result.latencies_seconds.append(time.perf_counter() - self._sent_at)
            if self._state.keeps_answers:
                self._state.result.answers.append((self._position, body))
        else:
            self._state.fail(f"{head[:40].decode()}: {body[:200].decode(errors='replace')}")
        self._send_next()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._is_waiting:
            self._state.fail(f"the connection broke: {exc}")
        self._finish()

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def _send_next(self) -> None:
        if self._state.is_over:
            self._finish()
            return
        assert self._transport is not None
        self._position = self._state.next_request % len(self._state.requests)
        self._state.next_request += 1
        self._sent_at = time.perf_counter()
        self._is_waiting = True
        self._transport.write(self._state.requests[self._position])

    def _finish(self) -> None:
        if not self.done.done():
            self.done.set_result(None)
