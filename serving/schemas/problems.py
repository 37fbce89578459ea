"""Errors as problem documents (RFC 9457): what is wrong, in which field, and what to do. They expose nothing internal."""

from __future__ import annotations

import logging
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from serving.schemas.requests import LEVEL_PATTERN, ProblemDocument

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

logger = logging.getLogger(__name__)

PROBLEM_TYPE = "application/problem+json"

NOT_FIELDS = ("body",)
"""Parts of an error's location that are not names a client sent."""

NO_OBJECT = ("model_type", "model_attributes_type", "dict_type")
"""Types of errors for a value that is not a JSON object."""

MAX_FIELD_CHARACTERS = 200

NOT_WHOLE = "Input should be a whole number"
NOT_A_FLAG = "Input should be true or false: write it without quotes, and true for 1, false for 0"
NOT_A_TEXT = "Input should be a text: write it in quotes, also where it looks like a number"
NOT_A_LEVEL = "Input should be a text that is not blank and has no control characters; what is missing is null"
WORDING = {"bool_type": NOT_A_FLAG, "string_type": NOT_A_TEXT}
"""Messages with the remedy instead of Pydantic's, by the type of the error."""

MAX_ERRORS = 50
"""Largest number of wrong fields listed in one problem document."""

RETRY_AFTER = {"Retry-After": {"description": "seconds to wait", "required": True, "schema": {"type": "integer"}}}
HEADERS = {
    401: {"WWW-Authenticate": {"description": "how to send a key", "required": True, "schema": {"type": "string"}}},
    429: RETRY_AFTER,
    503: RETRY_AFTER,
}
"""Headers that problems of a status always have, for OpenAPI."""

KINDS = {404: "not_found", 405: "method_not_allowed", 413: "too_large"}
"""Kinds of the errors that the framework raises, by status."""

ANSWERED = "answered"
"""Outcome of a request that was; of any other it is the kind of its problem."""

DISCONNECTED = "disconnected"
"""Outcome of a request whose client left before it was complete."""

NOT_REFUSED = frozenset({ANSWERED, DISCONNECTED})
"""Outcomes of a request that are no problem's kind."""


class ProblemError(Exception):
    """A response other than the one requested. `kind` is stable and for programs, `detail` is for people."""

    def __init__(
        self,
        status: int,
        kind: str,
        detail: str,
        *,
        retry_after_seconds: int | None = None,
        headers: Mapping[str, str] | None = None,
        **extra: Any,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.kind = kind
        self.detail = detail
        self.retry_after_seconds = retry_after_seconds
        self.headers = headers or {}
        self.extra = extra


def not_ready(detail: str) -> ProblemError:
    """Return the problem (503) of a service that cannot score yet, or no longer."""
    return ProblemError(503, "not_ready", detail, retry_after_seconds=2)


def invalid_request(problems: Sequence[Mapping[str, str]]) -> ProblemError:
    """Return the problem (422) of a request that violates the contract: `field` and `message` of each wrong field."""
    detail = "; ".join(f"{p['field']}: {p['message']}" for p in problems[:5])
    return ProblemError(422, "invalid_request", detail, errors=list(problems[:MAX_ERRORS]))


def unreadable_body(reason: str | None = None) -> ProblemError:
    """Return the problem (422) of a body that is not JSON, with the parser's reason and position if known."""
    message = (
        f"not JSON: {reason}"
        if reason
        else "not JSON in UTF-8, nested too deeply, or containing a number with too many digits"
    )
    return invalid_request([{"field": "body", "message": message}])


def internal_error() -> ProblemError:
    """Return the problem (500) of an unexpected error, which the caller has logged."""
    return ProblemError(500, "internal_error", "the request failed inside the service; see its log")


def answered_before() -> ProblemError:
    """Return what is raised by a route that is there for the documentation only, since a middleware answers before it.

    Only a path that ends in a line break gets there: for the framework it is also the path without it.
    """
    return ProblemError(404, "not_found", "there is no such path; it ends in a line break")


def documented(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return the OpenAPI responses of these statuses, with the media type and headers of problem documents."""
    content = {PROBLEM_TYPE: {"schema": {"$ref": f"#/components/schemas/{ProblemDocument.__name__}"}}}
    return {
        status: {"description": HTTPStatus(status).phrase, "content": content, "headers": HEADERS.get(status, {})}
        for status in statuses
    }


def validation_problems(errors: Any) -> list[dict[str, str]]:
    """Return Pydantic's errors as `field` and `message`, without echoing whole inputs."""
    return [_validation_problem(error) for error in errors]


def _validation_problem(error: Any) -> dict[str, str]:
    if error["type"] == "json_invalid":
        return {"field": "body", "message": f"not JSON: {error['ctx']['error']} at character {error['loc'][-1]}"}
    if error["type"] == "multiple_of" and error["ctx"]["multiple_of"] == 1:
        error = error | {"msg": NOT_WHOLE}
    if error["type"] in WORDING:
        error = error | {"msg": WORDING[error["type"]]}
    if error["type"] == "string_pattern_mismatch" and error["ctx"]["pattern"] == LEVEL_PATTERN:
        error = error | {"msg": NOT_A_LEVEL}
    field = ".".join(str(part) for part in error["loc"] if part not in NOT_FIELDS) or "body"
    shown = field.encode("utf-8", "replace").decode()[:MAX_FIELD_CHARACTERS]  # a client may send any key
    message = "Input should be an object" if error["type"] in NO_OBJECT else error["msg"]  # without the class's name
    return {"field": shown, "message": message.removeprefix("Value error, ")}


def install(app: FastAPI) -> None:
    """Register the handlers on the app. Call this before adding other middleware, which must enclose them."""

    @app.exception_handler(ProblemError)
    async def _problem(_: Request, error: ProblemError) -> JSONResponse:
        return problem_for(error)

    @app.exception_handler(RequestValidationError)
    async def _invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        return problem_for(invalid_request(validation_problems(error.errors()[:MAX_ERRORS])))

    @app.exception_handler(HTTPException)
    async def _http(_: Request, error: HTTPException) -> JSONResponse:
        if isinstance(error.__cause__, ValueError | RecursionError):  # raised by the JSON parser
            return problem_for(unreadable_body())
        kind = KINDS.get(error.status_code, "http_error")
        return problem_for(ProblemError(error.status_code, kind, str(error.detail), headers=error.headers))

    app.add_middleware(UnexpectedErrors)
    _describe_problems(app)


def _describe_problems(app: FastAPI) -> None:
    """Put the schema that `documented` refers to into the app's OpenAPI document."""
    without_problems = app.openapi

    def openapi() -> dict[str, Any]:
        document = without_problems()
        document["components"]["schemas"][ProblemDocument.__name__] = ProblemDocument.model_json_schema()
        return document

    app.openapi = openapi  # type: ignore[method-assign]  # the way FastAPI documents


class UnexpectedErrors:
    """ASGI middleware: an error without a handler is logged once and answered with a problem document.

    It is not a handler, because Starlette raises such an error again after its handler has responded, and the server then
    closes the connection on which the client sends its next request.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on; respond with 500 to an error, unless a response has started."""
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
            await problem_for(internal_error())(scope, receive, send)


def problem_for(error: ProblemError) -> JSONResponse:
    """Return the response for a problem."""
    response = problem_response(
        error.status, error.kind, error.detail, retry_after_seconds=error.retry_after_seconds, **error.extra
    )
    response.headers.update(error.headers)  # Allow, for example
    return response


def problem_response(
    status: int, kind: str, detail: str, *, retry_after_seconds: int | None = None, **extra: Any
) -> JSONResponse:
    """Return a problem document as a response; `extra` are further fields of it."""
    headers = {} if retry_after_seconds is None else {"Retry-After": str(retry_after_seconds)}
    body = {"type": kind, "title": HTTPStatus(status).phrase, "status": status, "detail": detail, **extra}
    return JSONResponse(body, status, headers, media_type=PROBLEM_TYPE)
