"""A client that sends exactly the bytes it is told, and reads the answers as they come.

Belongs here: what no HTTP library lets a test do (several requests in one send, pieces, old versions, leaving early).
"""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from tests.serving.running import Api
from tests.waiting import TIMEOUT_SECONDS


@dataclass(frozen=True)
class RawAnswer:
    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


class RawConnection:
    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection
        self._received = connection.makefile("rb")

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def answer(self) -> RawAnswer:
        """The next answer; of status 100 there is no more than the status."""
        version, status, *_ = self._received.readline().split()
        assert version == b"HTTP/1.1"
        headers: dict[str, str] = {}
        while line := self._received.readline().strip():
            name, _, value = line.decode().partition(":")
            headers[name.lower()] = value.strip()
        return RawAnswer(int(status), headers, self._received.read(int(headers.get("content-length", "0"))))

    def is_closed(self) -> bool:
        """Waits for the server to say no more; False if it says something."""
        try:
            return self._received.read(1) == b""
        except ConnectionResetError:
            return True


@contextmanager
def connected(api: Api, receive_buffer_bytes: int | None = None) -> Iterator[RawConnection]:
    """A connection of its own to the API; closed at the end."""
    url = api.client.base_url
    with socket.socket() as connection:
        if receive_buffer_bytes is not None:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer_bytes)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.settimeout(TIMEOUT_SECONDS)
        connection.connect((url.host, url.port))
        yield RawConnection(connection)


def post(body: Any, path: str = "/predict", *, version: str = "1.1", headers: Mapping[str, str] | None = None) -> bytes:
    """A POST of this body: bytes as they are, anything else as JSON. A header given as "" is left out."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    named = {"Host": "localhost", "Content-Type": "application/json", "Content-Length": str(len(content))} | dict(
        headers or {}
    )
    lines = [f"POST {path} HTTP/{version}", *(f"{name}: {value}" for name, value in named.items() if value), "", ""]
    return "\r\n".join(lines).encode() + content


def chunked(body: Any, n_pieces: int = 3, headers: Mapping[str, str] | None = None) -> bytes:
    """The same with Transfer-Encoding: chunked."""
    content = json.dumps(body).encode()
    size = -(-len(content) // n_pieces)
    pieces = [content[start : start + size] for start in range(0, len(content), size)]
    head = post(b"", headers={"Transfer-Encoding": "chunked", "Content-Length": ""} | dict(headers or {}))
    return head + b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in [*pieces, b""])
