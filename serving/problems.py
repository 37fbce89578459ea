"""Errors as problem documents (RFC 9457): what is wrong, with which field, and what to do. Nothing internal leaks."""

from __future__ import annotations

import logging
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from serving.schemas import LABEL_BATCH, ONE_LABEL, ProblemDocument

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

logger = logging.getLogger(__name__)

PROBLEM_TYPE = "application/problem+json"

NOT_FIELDS = ("body", ONE_LABEL, LABEL_BATCH)
"""Parts of an error's place that are not names a client sent."""

MAX_FIELD_CHARACTERS = 200


class ProblemError(Exception):
    """An answer that is not the one asked for. `kind` is stable and for programs, `detail` is for people."""

    def __init__(
        self, status: int, kind: str, detail: str, *, retry_after_seconds: int | None = None, **extra: Any
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.kind = kind
        self.detail = detail
        self.retry_after_seconds = retry_after_seconds
        self.extra = extra


def not_ready(detail: str) -> ProblemError:
    return ProblemError(503, "not_ready", detail, retry_after_seconds=2)


def documented(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """These problems for OpenAPI, under the media type they are sent with."""
    content = {PROBLEM_TYPE: {"schema": ProblemDocument.model_json_schema()}}
    return {status: {"description": HTTPStatus(status).phrase, "content": content} for status in statuses}


def validation_problems(errors: Any) -> list[dict[str, str]]:
    """Pydantic's errors as `field` and `message`, without echoing whole inputs."""
    return [_validation_problem(error) for error in errors]


def _validation_problem(error: Any) -> dict[str, str]:
    if error["type"] == "json_invalid":
        return {"field": "body", "message": f"not JSON: {error['ctx']['error']} at character {error['loc'][-1]}"}
    field = ".".join(str(part) for part in error["loc"] if part not in NOT_FIELDS) or "body"
    shown = field.encode("utf-8", "replace").decode()[:MAX_FIELD_CHARACTERS]  # a client may send any key
    return {"field": shown, "message": error["msg"].removeprefix("Value error, ")}


def install(app: FastAPI) -> None:
    """Registers the handlers on the app. Call it before adding other middleware, which then stands outside."""

    @app.exception_handler(ProblemError)
    async def _problem(_: Request, error: ProblemError) -> JSONResponse:
        return problem_response(
            error.status, error.kind, error.detail, retry_after_seconds=error.retry_after_seconds, **error.extra
        )

    @app.exception_handler(RequestValidationError)
    async def _invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        problems = validation_problems(error.errors()[:50])
        detail = "; ".join(f"{p['field']}: {p['message']}" for p in problems[:5])
        return problem_response(422, "invalid_request", detail, errors=problems)

    @app.exception_handler(HTTPException)
    async def _http(_: Request, error: HTTPException) -> JSONResponse:
        response = problem_response(error.status_code, "http_error", str(error.detail))
        response.headers.update(error.headers or {})  # such as Allow
        return response

    app.add_middleware(UnexpectedErrors)


class UnexpectedErrors:
    """Whatever no handler knows: logged once, answered as a problem document.

    A middleware, because Starlette raises such an error again after its handler has answered; the server then drops the
    connection under the client's next request.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        has_begun = False

        async def watched(message: Message) -> None:
            nonlocal has_begun
            has_begun = True
            await send(message)

        try:
            await self._app(scope, receive, watched)
        except Exception:
            if scope["type"] != "http" or has_begun:
                raise
            logger.exception("%s %s failed", scope["method"], scope["path"])
            detail = "the request failed inside the service; its log says why"
            await problem_response(500, "internal_error", detail)(scope, receive, send)


def problem_response(
    status: int, kind: str, detail: str, *, retry_after_seconds: int | None = None, **extra: Any
) -> JSONResponse:
    headers = {} if retry_after_seconds is None else {"Retry-After": str(retry_after_seconds)}
    body = {"type": kind, "title": HTTPStatus(status).phrase, "status": status, "detail": detail, **extra}
    return JSONResponse(body, status, headers, media_type=PROBLEM_TYPE)
