"""The fast path: ASGI middleware that responds to scoring requests without the framework.

FastAPI's routing, dependencies and serialisation cost several times as much as validating, scoring and journaling a row
(`python -m benchmarks.serving`). The routes in `serving.routes.predict` put these endpoints into the documentation;
keys, bodies and problems are handled by the same functions as everywhere (`auth`, `body_limit`, `problems`).
"""

from __future__ import annotations

import logging
from collections import Counter
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import parse_qsl

import orjson
from starlette.requests import ClientDisconnect

from serving.schemas.problems import ProblemError, internal_error, invalid_request, problem_for
from serving.scoring.micro_batcher import Row
from serving.scoring.request_parser import RefusedRow, RequestParser
from serving.security.auth import CALLER, Authenticator, Scope, key_of
from serving.security.body_limit import check_body, read_body
from serving.security.origin_check import refuse_foreign_origin
from serving.tracing import name_span

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Awaitable, Callable, Sequence

    from fastapi import FastAPI
    from starlette.types import Receive, Send
    from starlette.types import Scope as AsgiScope

    from serving.dependencies import Service
    from serving.scoring.idempotency import Outcome
    from serving.scoring.micro_batcher import Answer

    Handler = Callable[[Service, bytes, bool], Awaitable[Any]]

logger = logging.getLogger(__name__)


class FastPath:
    """ASGI middleware, the outermost."""

    def __init__(self, framework: FastAPI, authenticator: Authenticator, parser: RequestParser) -> None:
        self._framework = framework
        self._app = framework.build_middleware_stack()
        self._authenticator = authenticator
        self._parser = parser
        self.n_refused: Counter[str] = Counter()
        """Number of refused requests by the kind of their problem."""
        self._handlers: dict[str, Handler] = {"/predict": self._predict, "/predict/batch": self._predict_batch}

    async def __call__(self, scope: AsgiScope, receive: Receive, send: Send) -> None:
        """Respond to a scoring request; pass everything else on."""
        handle = self._handlers.get(scope["path"]) if scope["type"] == "http" and scope["method"] == "POST" else None
        if handle is None:
            await self._app(scope, receive, send)
            return
        name_span(scope["path"])
        try:
            self._check_access(scope)
            is_explained = wants_explanation(scope["query_string"])
            body = await read_body(receive)
            answer = orjson.dumps(await handle(self._framework.state.service, body, is_explained))
        except ProblemError as error:
            self.note_refusal(error)
            await problem_for(error)(scope, receive, send)
        except ClientDisconnect:
            return
        except Exception:
            logger.exception("POST %s failed", scope["path"])
            self.note_refusal(internal_error())
            await problem_for(internal_error())(scope, receive, send)
        else:
            headers_out = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(answer))]
            await send({"type": "http.response.start", "status": 200, "headers": headers_out})
            await send({"type": "http.response.body", "body": answer})

    def note_refusal(self, error: ProblemError) -> None:
        """Count a refused request."""
        self.n_refused[error.kind] += 1

    def submit(self, scope: AsgiScope, body: bytes) -> asyncio.Future[list[Answer]] | None:
        """Queue a request for one row without an id of its own and without an explanation; return its future answer.

        Any other request is not queued: None is returned, and it takes the way of all requests.

        Raises:
            ProblemError: if the request is refused.
        """
        if scope["path"] != "/predict" or scope["query_string"]:
            return None
        self._check_access(scope)
        row = self._parser.row(body)
        if row.prediction_id is not None or row.is_explained:
            return None
        service: Service = self._framework.state.service
        return service.batcher.submit([row])

    def _check_access(self, scope: AsgiScope) -> None:
        head = _read_head(tuple(scope["headers"]))
        if CALLER not in scope:
            if not self._authenticator.asks_for_keys:
                refuse_foreign_origin(head.headers)
            scope[CALLER] = self._authenticator.admit(head.key, Scope.SCORE)
        if not head.has_sound_body:
            check_body(head.headers)

    async def _predict(self, service: Service, body: bytes, is_explained: bool) -> Answer:
        row = self._parser.row(body)
        (outcome,) = await service.idempotency.score([row])
        if isinstance(outcome, ProblemError):
            raise outcome
        if is_explained or row.is_explained:
            await service.explanations.add([row], [outcome])
        return outcome

    async def _predict_batch(self, service: Service, body: bytes, is_explained: bool) -> dict[str, Any]:
        rows = self._parser.batch(body)
        sound = [row for row in rows if isinstance(row, Row)]
        outcomes = await service.idempotency.score(sound) if sound else []
        explained = [
            (row, outcome)
            for row, outcome in zip(sound, outcomes, strict=True)
            if (is_explained or row.is_explained) and isinstance(outcome, dict)
        ]
        if explained:
            await service.explanations.add(*zip(*explained, strict=True))
        return _batch_answer(rows, outcomes)


def _batch_answer(rows: Sequence[Row | RefusedRow], outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """Return a prediction or null for each row, with the errors. `outcomes` are those of the rows not refused."""
    predictions: list[Answer | None] = []
    errors: list[dict[str, Any]] = []
    of_sound_rows = iter(outcomes)
    for position, row in enumerate(rows):
        outcome = row if isinstance(row, RefusedRow) else next(of_sound_rows)
        predictions.append(outcome if isinstance(outcome, dict) else None)
        if isinstance(outcome, RefusedRow):
            errors += [{"row": position, **problem} for problem in outcome.problems]
        elif isinstance(outcome, ProblemError):
            errors.append({"row": position, "field": "prediction_id", "message": outcome.detail})
    return {"predictions": predictions, "errors": errors}


class _RequestHead(NamedTuple):
    """What follows from a request's headers alone."""

    headers: dict[str, str]
    key: str | None
    has_sound_body: bool


@lru_cache(maxsize=256)
def _read_head(headers: tuple[tuple[bytes, bytes], ...]) -> _RequestHead:
    """Read the headers. Cached, because a client sends the same ones with every request."""
    readable = {str(name, "latin-1"): str(value, "latin-1") for name, value in headers}
    try:
        check_body(readable)
    except ProblemError:
        return _RequestHead(readable, key_of(readable), has_sound_body=False)
    return _RequestHead(readable, key_of(readable), has_sound_body=True)


def wants_explanation(query_string: bytes) -> bool:
    """Return the value of `?explain=`, the only parameter.

    Raises:
        ProblemError: 422 for another parameter or value.
    """
    if not query_string:
        return False
    parameters = dict(parse_qsl(query_string.decode("latin-1"), keep_blank_values=True, max_num_fields=None))
    unknown = sorted(parameters.keys() - {"explain"})
    if unknown:
        raise invalid_request([{"field": unknown[0][:100], "message": "unknown parameter; the only one is explain"}])
    answers = {"true": True, "1": True, "false": False, "0": False}
    explain = parameters.get("explain", "false").lower()
    if explain not in answers:
        raise invalid_request([{"field": "explain", "message": "Input should be true or false"}])
    return answers[explain]
