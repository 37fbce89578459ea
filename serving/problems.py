"""Errors as problem documents (RFC 9457): what is wrong, with which field, and what to do. Nothing internal leaks."""

from __future__ import annotations

import logging
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

logger = logging.getLogger(__name__)

PROBLEM_TYPE = "application/problem+json"


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


def validation_problems(errors: Any) -> list[dict[str, str]]:
    """Pydantic's errors as `field` and `message`, without echoing whole inputs."""
    return [
        {
            "field": ".".join(str(part) for part in error["loc"] if part != "body") or "body",
            "message": error["msg"],
        }
        for error in errors
    ]


def install(app: FastAPI) -> None:
    """Registers the handlers on the app."""

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
        return problem_response(error.status_code, "http_error", str(error.detail))

    @app.exception_handler(Exception)
    async def _unexpected(request: Request, error: Exception) -> JSONResponse:
        logger.error("%s %s failed", request.method, request.url.path, exc_info=error)
        return problem_response(500, "internal_error", "the request failed inside the service; its log says why")


def problem_response(
    status: int, kind: str, detail: str, *, retry_after_seconds: int | None = None, **extra: Any
) -> JSONResponse:
    headers = {} if retry_after_seconds is None else {"Retry-After": str(retry_after_seconds)}
    body = {"type": kind, "title": HTTPStatus(status).phrase, "status": status, "detail": detail, **extra}
    return JSONResponse(body, status, headers, media_type=PROBLEM_TYPE)
