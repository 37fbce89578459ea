"""The WebSocket `/live`: access control and sending. `serving.observability.live` defines the messages."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, WebSocket
from starlette.websockets import WebSocketDisconnect

from selfheal.kit.web_origins import foreign_request
from serving.dependencies import ServiceDependency
from serving.observability.live import INTERVAL_SECONDS, MAX_LISTENERS, message_schema
from serving.schemas.problems import ProblemError, problem_for
from serving.security.auth import Scope, key_of
from serving.security.origin_check import refuse_foreign

if TYPE_CHECKING:
    from serving.observability.live import Listener
    from serving.security.auth import Authenticator

router = APIRouter(tags=["live"])

SUBPROTOCOL = "selfheal"
KEY_SUBPROTOCOL = "selfheal.key."
"""Prefix of the subprotocol that carries the key, because browsers cannot set headers on a WebSocket."""

POLICY_VIOLATION = 1008
TRY_AGAIN_LATER = 1013

CLOSE_TIMEOUT_SECONDS = 5.0
"""Time in which a listener that fell behind can read the reason; then the connection is closed without it."""

DESCRIPTION = f"""
Return the JSON Schema of the messages of the WebSocket **`/live`** (a `GET` with an upgrade, which OpenAPI cannot
describe).

Each message is a JSON text with a `type`:

| `type` | when |
|---|---|
| `snapshot` | every {INTERVAL_SECONDS:g} s: predictions per second, latency, versions, verdict, drift ratio, open alerts |
| `verdict` | the monitor has made a tick for the version in production |
| `promotion` | another version is in production, after a promotion or a rollback |
| `decision` | the loop has taken a decision |
| `alert_opened`, `alert_resolved` | an alert has been opened, resolved |

Events are sent from the time of connecting; earlier ones are under `/decisions` and `/monitoring`. Values that Postgres
does not return in time are null, and `problem` says why. `predictions_per_second` and latencies are those of the worker
that serves the socket.

**Keys** (scope `read`): `X-API-Key` or `Authorization: Bearer`; browsers, which cannot set headers for a WebSocket, offer the
subprotocols `{SUBPROTOCOL}` and `{KEY_SUBPROTOCOL}<key>`: `new WebSocket(url, ["{SUBPROTOCOL}", "{KEY_SUBPROTOCOL}" + key])`.
A wrong key is answered with 401 or 403 instead of the upgrade. If the service asks for no keys, only pages of this host
may connect.

**Close codes**: {TRY_AGAIN_LATER} for a listener that reads too slowly (it is dropped, never waited for) and for one that
is too many ({MAX_LISTENERS} per worker); {POLICY_VIOLATION} for one that sends messages: this socket only sends.
"""


@router.get("/live/schema", summary="Show the schema of the WebSocket /live", description=DESCRIPTION)
async def live_schema() -> dict[str, Any]:
    """Return the JSON Schema of the messages; `DESCRIPTION` is what OpenAPI shows."""
    return message_schema()


@router.websocket("/live")
async def live(websocket: WebSocket, service: ServiceDependency) -> None:
    """Send messages until the listener leaves, falls behind or sends something."""
    try:
        _admit(websocket)
    except ProblemError as error:
        await websocket.send_denial_response(problem_for(error))
        return
    await websocket.accept(SUBPROTOCOL if SUBPROTOCOL in websocket.scope["subprotocols"] else None)
    listener = service.live.join()
    if listener is None:
        await _close(websocket, TRY_AGAIN_LATER, f"{MAX_LISTENERS} others are connected; try again later")
        return
    try:
        await _serve(websocket, listener)
    finally:
        service.live.leave(listener)


def _admit(websocket: WebSocket) -> None:
    """Check the key and the origin of the page that connects.

    Raises:
        ProblemError: if one of them is refused.
    """
    authenticator: Authenticator = websocket.app.state.authenticator
    refuse_foreign(foreign_request(websocket.headers), authenticator)
    authenticator.admit(_key(websocket), Scope.READ)


def _key(websocket: WebSocket) -> str | None:
    offered: list[str] = websocket.scope["subprotocols"]
    in_subprotocol = (name.removeprefix(KEY_SUBPROTOCOL) for name in offered if name.startswith(KEY_SUBPROTOCOL))
    return key_of(websocket.headers) or next(in_subprotocol, None)


async def _serve(websocket: WebSocket, listener: Listener) -> None:
    """Send until the listener leaves, falls behind or sends something."""
    sending = asyncio.create_task(_send_messages(websocket, listener))
    receiving = asyncio.create_task(websocket.receive())
    falling_behind = asyncio.create_task(listener.is_too_slow.wait())
    tasks = (sending, receiving, falling_behind)
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    if listener.is_too_slow.is_set():
        await _close(websocket, TRY_AGAIN_LATER, "you read too slowly; connect again when you can keep up")
    elif _has_received(receiving):
        await _close(websocket, POLICY_VIOLATION, "this socket only sends; send nothing")


async def _send_messages(websocket: WebSocket, listener: Listener) -> None:
    with contextlib.suppress(WebSocketDisconnect):
        while True:
            await websocket.send_text(await listener.next_message())


def _has_received(receiving: asyncio.Task[Any]) -> bool:
    if receiving.cancelled() or receiving.exception() is not None:
        return False
    return bool(receiving.result()["type"] == "websocket.receive")


async def _close(websocket: WebSocket, code: int, reason: str) -> None:
    """Send the reason, if the client reads it soon; the server closes the connection when the endpoint returns."""
    with contextlib.suppress(TimeoutError, WebSocketDisconnect):
        async with asyncio.timeout(CLOSE_TIMEOUT_SECONDS):
            await websocket.close(code, reason)
