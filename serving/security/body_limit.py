"""Limits of a request's body, checked before it occupies memory: JSON, not encoded, not too large.

`check_body` checks the headers, `read_body` counts while the body arrives. `serving.scoring.fast_path` calls them for
rows and labels, `BodyLimit` for everything else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect

from serving.schemas.problems import ProblemError, problem_for
from serving.schemas.reading import refuse_repeated_names

if TYPE_CHECKING:
    from collections.abc import Mapping

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

MAX_BODY_BYTES = 16_000_000
"""Three times the largest batch of the shipped use case, with the longest names."""

MAX_COMMAND_BYTES = 16_384
"""For whatever is not rows or labels: a few fields, the longest of them a reason or a note."""

BODILESS_METHODS = ("GET", "HEAD")
"""Methods whose body is not checked, because no endpoint reads it and the server skips it."""


class BodyLimit:
    """ASGI middleware that reads a small body, and refuses what is larger, not JSON, or has a name twice."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on with its body, or refuse it."""
        if scope["type"] != "http" or scope["method"] in BODILESS_METHODS:
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        try:
            check_body(headers, MAX_COMMAND_BYTES)
            if has_body(headers):
                body = await read_body(receive, MAX_COMMAND_BYTES)
                refuse_repeated_names(body)
                receive = _replayed(body, receive)
        except ProblemError as error:
            await problem_for(error)(scope, receive, send)
        except ClientDisconnect:
            return
        else:
            await self._app(scope, receive, send)


def _replayed(body: bytes, receive: Receive) -> Receive:
    """Return a `receive` that gives the body in one message, and then what else there is."""
    pending: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replayed() -> Message:
        return pending.pop() if pending else await receive()

    return replayed


def has_body(headers: Mapping[str, str]) -> bool:
    """Return whether the headers announce a body; HTTP/1 has no other way to send one."""
    return "transfer-encoding" in headers or headers.get("content-length", "0") != "0"


def check_body(headers: Mapping[str, str], max_bytes: int = MAX_BODY_BYTES) -> None:
    """Check what the headers, by their lower-case names, say about the body.

    Raises:
        ProblemError: 400 if its length is not a number, 413 if it is too long, 415 if it is not plain JSON. The last also
            prevents web pages of other hosts from posting to a service on loopback, because browsers let them send forms but
            not JSON.
    """
    check_length(headers, max_bytes)
    if not has_body(headers):
        return
    if not is_json(headers.get("content-type", "")):
        raise ProblemError(415, "unsupported_media_type", "send the body as JSON, with Content-Type: application/json")
    check_encoding(headers)


def check_length(headers: Mapping[str, str], max_bytes: int = MAX_BODY_BYTES) -> None:
    """Check the length that the headers announce.

    Raises:
        ProblemError: 400 if it is not a number, 413 if it is too long.
    """
    length = headers.get("content-length", "0")
    if not (length.isascii() and length.isdigit()):
        raise ProblemError(400, "invalid_request", f"Content-Length must be a whole number, not {length[:40]!r}")
    if len(length) > 18 or int(length) > max_bytes:
        raise too_large(max_bytes)


def check_encoding(headers: Mapping[str, str]) -> None:
    """Check that the body is sent as it is.

    Raises:
        ProblemError: 415 if it is compressed.
    """
    if headers.get("content-encoding", "identity").lower() != "identity":
        raise ProblemError(415, "unsupported_media_type", "send the body unencoded, without Content-Encoding")


def is_json(content_type: str) -> bool:
    """Return whether a value of Content-Type names JSON or a format based on it."""
    name = content_type.partition(";")[0].strip().lower()
    return name == "application/json" or (name.startswith("application/") and name.endswith("+json"))


async def read_body(receive: Receive, max_bytes: int = MAX_BODY_BYTES) -> bytes:
    """Return the whole body, for an ASGI application without a framework.

    Raises:
        ProblemError: 413 as soon as it is too large.
        ClientDisconnect: if the client left before it was complete.
    """
    pieces: list[bytes] = []
    n_bytes = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        pieces.append(message.get("body", b""))
        n_bytes += len(pieces[-1])
        if n_bytes > max_bytes:
            raise too_large(max_bytes)
        if not message.get("more_body", False):
            return b"".join(pieces)


def too_large(max_bytes: int = MAX_BODY_BYTES) -> ProblemError:
    """Return the problem (413) of a body above the limit."""
    remedy = "send several batches" if max_bytes == MAX_BODY_BYTES else "this request needs a few fields only"
    return ProblemError(413, "too_large", f"the body of this request may have {max_bytes:,} bytes; {remedy}")
