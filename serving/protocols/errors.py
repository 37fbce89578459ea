"""Problem documents in the form that a protocol's clients read, whichever layer has made them. Pure, but for the sending.

The words stay ours, and so does `type`. A request that violates its declaration is a 400, as these protocols have it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from enum import StrEnum
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import orjson
from pydantic import BaseModel

from serving.schemas.mlflow_scoring import ScoringError
from serving.schemas.open_inference import InferenceError
from serving.schemas.problems import HEADERS, PROBLEM_TYPE

if TYPE_CHECKING:
    from starlette.types import Message, Send


class Protocol(StrEnum):
    """A wire protocol beside our own, as metrics name it."""

    OPEN_INFERENCE = "open_inference"
    MLFLOW = "mlflow"


MLFLOW_PATHS = ("/invocations", "/ping", "/version")
MLFLOW_PREFIXES = ("/endpoints/", "/api/2.0/endpoints/")

ERROR_CODES = {
    400: "BAD_REQUEST",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "ENDPOINT_NOT_FOUND",
    409: "RESOURCE_CONFLICT",
    413: "BAD_REQUEST",
    415: "BAD_REQUEST",
    429: "REQUEST_LIMIT_EXCEEDED",
    500: "INTERNAL_ERROR",
    503: "TEMPORARILY_UNAVAILABLE",
}
"""MLflow's name of each status."""


def protocol_of(path: str) -> Protocol | None:
    """Return the protocol that a path belongs to; None if it is our own API's."""
    if path == "/v2" or path.startswith("/v2/"):
        return Protocol.OPEN_INFERENCE
    return Protocol.MLFLOW if path in MLFLOW_PATHS or path.startswith(MLFLOW_PREFIXES) else None


def in_form_of(protocol: Protocol, document: Mapping[str, Any]) -> tuple[int, dict[str, Any]]:
    """Return status and body of a problem document as the protocol has them."""
    status = HTTPStatus.BAD_REQUEST if document["status"] == HTTPStatus.UNPROCESSABLE_ENTITY else document["status"]
    beside = {name: document[name] for name in ("type", "errors") if name in document}
    if protocol is Protocol.OPEN_INFERENCE:
        return status, {"error": document["detail"], **beside}
    return status, {"error_code": ERROR_CODES.get(status, "BAD_REQUEST"), "message": document["detail"], **beside}


def documented(protocol: Protocol, *statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return the OpenAPI responses of these statuses."""
    model: type[BaseModel] = InferenceError if protocol is Protocol.OPEN_INFERENCE else ScoringError
    return {
        status: {"model": model, "description": HTTPStatus(status).phrase, "headers": HEADERS.get(status, {})}
        for status in statuses
    }


def translating(protocol: Protocol, send: Send) -> Send:
    """Return a `send` that passes everything on, but for problem documents, which it gives the protocol's form."""
    started: Message | None = None
    body = b""

    async def translated(message: Message) -> None:
        nonlocal started, body
        if message["type"] == "http.response.start" and _is_problem(message):
            started = message
        elif started is None:
            await send(message)
        else:
            body += message.get("body", b"")
            if not message.get("more_body", False):
                status, content = in_form_of(protocol, json.loads(body))
                await _send_json(send, status, orjson.dumps(content), started)

    return translated


def _is_problem(message: Message) -> bool:
    return (b"content-type", PROBLEM_TYPE.encode()) in message["headers"]


async def _send_json(send: Send, status: int, body: bytes, instead_of: Message) -> None:
    replaced = {b"content-type": b"application/json", b"content-length": b"%d" % len(body)}
    headers = [(name, replaced.get(name, value)) for name, value in instead_of["headers"]]
    await send({**instead_of, "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
