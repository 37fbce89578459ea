"""ASGI middleware that answers what other protocols' clients send to be scored; the shell around the pure modules beside it.

Keys, scopes, rate limits, limits of bodies, idempotency keys and the journal are those of `POST /predict/batch`. Unlike
there a request is scored as a whole or not at all, since these protocols have no place for a refused row.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import orjson
from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect

from selfheal.kit.web_origins import foreign_request
from serving.protocols import mlflow_scoring, open_inference
from serving.protocols.errors import Protocol, protocol_of, translating
from serving.protocols.rows import JsonRow, batch_body, refused_rows, wrong
from serving.schemas.problems import (
    ANSWERED,
    DISCONNECTED,
    MAX_ERRORS,
    ProblemError,
    internal_error,
    not_ready,
    problem_for,
)
from serving.scoring.micro_batcher import MAX_INLINE_ROWS, Row
from serving.security.auth import CALLER, Authenticator, Scope, key_of
from serving.security.body_limit import check_encoding, check_length, is_json, read_body
from serving.security.origin_check import refuse_foreign
from serving.tracing import name_span

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Send
    from starlette.types import Scope as AsgiScope

    from selfheal.domain.contract import ModelContract
    from serving.dependencies import Service
    from serving.scoring.micro_batcher import Answer
    from serving.scoring.request_parser import RequestParser

logger = logging.getLogger(__name__)

ResultT = TypeVar("ResultT")

MAX_INLINE_BYTES = 32_768
"""A hundred rows or more, read in about 2 ms; larger bodies are read beside the event loop."""

HEADER_LENGTH = "inference-header-content-length"
"""Length of the JSON before binary tensors, in requests and responses."""

INFER = re.compile(r"/v2/models/(?P<model>[^/]+)(?:/versions/(?P<version>[^/]+))?/infer")
INVOCATIONS = re.compile(r"/(?:endpoints/(?P<model>[^/]+)/)?invocations")


@dataclass(frozen=True, slots=True)
class _Request:
    headers: Headers
    body: bytes
    model: str | None
    version: str | None


@dataclass(frozen=True, slots=True)
class _Response:
    body: bytes
    headers: tuple[tuple[bytes, bytes], ...] = ((b"content-type", b"application/json"),)


class WireProtocols:
    """ASGI middleware for the paths of other protocols, inside `SecurityHeaders` and outside all that reads bodies.

    Args:
        n_by_outcome: counts scoring requests by protocol and outcome.
    """

    def __init__(
        self,
        app: ASGIApp,
        authenticator: Authenticator,
        contract: ModelContract,
        parser: RequestParser,
        n_by_outcome: Counter[tuple[str, str]],
    ) -> None:
        self._app = app
        self._authenticator = authenticator
        self._contract = contract
        self._parser = parser
        self._n_by_outcome = n_by_outcome
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="protocols")  # it ends with this object

    async def __call__(self, scope: AsgiScope, receive: Receive, send: Send) -> None:
        """Answer what is to be scored; pass everything else on, with errors in the protocol's form."""
        protocol = protocol_of(scope["path"]) if scope["type"] == "http" else None
        if protocol is None:
            await self._app(scope, receive, send)
            return
        send = translating(protocol, send)
        pattern, handle = (
            (INFER, self._infer) if protocol is Protocol.OPEN_INFERENCE else (INVOCATIONS, self._invocations)
        )
        found = pattern.fullmatch(scope["path"]) if scope["method"] == "POST" else None
        if found is None:
            await self._app(scope, receive, send)
            return
        outcome = ANSWERED
        try:
            response = await self._respond(scope, receive, found, handle)
        except ProblemError as error:
            outcome = error.kind
            await problem_for(error)(scope, receive, send)
        except ClientDisconnect:
            outcome = DISCONNECTED
        except Exception:
            logger.exception("POST %s failed", scope["path"])
            outcome = internal_error().kind
            await problem_for(internal_error())(scope, receive, send)
        else:
            length = (b"content-length", b"%d" % len(response.body))
            await send({"type": "http.response.start", "status": 200, "headers": [*response.headers, length]})
            await send({"type": "http.response.body", "body": response.body})
        finally:
            self._n_by_outcome[protocol, outcome] += 1

    async def _respond(
        self,
        scope: AsgiScope,
        receive: Receive,
        found: re.Match[str],
        handle: Callable[[Service, _Request], Awaitable[_Response]],
    ) -> _Response:
        parts = found.groupdict()
        name_span(_route(found))
        headers = Headers(scope=scope)
        if CALLER not in scope:
            refuse_foreign(foreign_request(headers), self._authenticator)
            scope[CALLER] = self._authenticator.admit(key_of(headers), Scope.SCORE)
        check_length(headers)
        check_encoding(headers)
        if scope["query_string"]:
            raise wrong(scope["query_string"].decode("latin-1"), "unknown parameter; this endpoint has none")
        self._check_model(parts["model"], found.string)
        request = _Request(headers, await read_body(receive), parts["model"], parts.get("version"))
        return await handle(scope["app"].state.service, request)

    def _check_model(self, name: str | None, path: str) -> None:
        served = self._contract.name
        if name is not None and name != served:
            right = path.replace(f"/{name}/", f"/{served}/", 1)
            raise ProblemError(404, "not_found", f"model {name[:100]!r} is not served here; call {right}")

    # The protocols

    async def _infer(self, service: Service, request: _Request) -> _Response:
        version = current_version(service, request.version)
        json_bytes = _json_bytes(request.headers)

        def read() -> tuple[open_inference.Inference, list[Row]]:
            inference = open_inference.read_inference(request.body, json_bytes, self._contract)
            return inference, self._rows(inference.rows)

        inference, rows = await self._at_once_or_beside(len(request.body), read)
        answers = await self._answers(service, rows, is_explained=inference.is_explained)
        open_inference.check_version(request.version, answers, self._contract.name)
        versions = {answer["model_version"] for answer in answers}
        name = self._contract.name
        body, n_json = open_inference.write_inference(
            inference, name, versions.pop() if len(versions) == 1 else version, answers
        )
        if n_json == len(body):
            return _Response(body)
        content_type = (b"content-type", b"application/octet-stream")
        return _Response(body, (content_type, (HEADER_LENGTH.encode(), b"%d" % n_json)))

    async def _invocations(self, service: Service, request: _Request) -> _Response:
        content_type = request.headers.get("content-type", "")

        def read() -> tuple[mlflow_scoring.ScoringRequest, list[Row]]:
            invocation = mlflow_scoring.read_invocation(request.body, content_type, self._contract)
            return invocation, self._rows(invocation.rows)

        invocation, rows = await self._at_once_or_beside(len(request.body), read)
        answers = await self._answers(service, rows, is_explained=invocation.is_explained)
        return _Response(orjson.dumps({"predictions": answers}))

    # What they share

    def _rows(self, rows: list[JsonRow]) -> list[Row]:
        """Return the validated rows.

        Raises:
            ProblemError: 422 if one is refused.
        """
        read = [row for piece in self._parser.batch(batch_body(rows)) for row in piece]
        refused = refused_rows(read)
        if refused is not None:
            raise refused
        return [row for row in read if isinstance(row, Row)]

    async def _answers(self, service: Service, rows: Sequence[Row], *, is_explained: bool) -> list[Answer]:
        """Return the answer to each row, once it is on disk.

        Raises:
            ProblemError: 422 if a row cannot be scored, and then none is; 409 if an id was used for another row; 503.
        """
        if len(rows) <= MAX_INLINE_ROWS:
            unusable = service.batcher.unusable(rows)
        else:
            unusable = await self._beside(lambda: service.batcher.unusable(rows))
        problem = refused_rows([unusable.get(place) for place in range(len(rows))])
        outcomes: Sequence[Any] = ()
        if problem is None:
            outcomes = await service.idempotency.score(rows)
            problem = refused_rows(outcomes) or _conflict(outcomes)
        if problem is not None:
            raise problem
        explained = [
            (row, answer) for row, answer in zip(rows, outcomes, strict=True) if is_explained or row.is_explained
        ]
        if explained:
            await service.explanations.add(*zip(*explained, strict=True))
        return list(outcomes)

    async def _at_once_or_beside(self, n_bytes: int, work: Callable[[], ResultT]) -> ResultT:
        return work() if n_bytes <= MAX_INLINE_BYTES else await self._beside(work)

    async def _beside(self, work: Callable[[], ResultT]) -> ResultT:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)


def current_version(service: Service, asked_for: str | None) -> int:
    """Return the version that scores now.

    Raises:
        ProblemError: 503 without one; 404 if another is asked for.
    """
    champion = service.holder.current
    if champion is None:
        raise not_ready(service.holder.problem or "no model is loaded yet")
    version = champion.version.version
    if asked_for is not None and asked_for != str(version):
        detail = (
            f"version {asked_for[:40]!r} does not score now, version {version} does; leave the version out of the path to get "
            "whichever is in production"
        )
        raise ProblemError(404, "not_found", detail)
    return version


def _route(found: re.Match[str]) -> str:
    """Return the path as OpenAPI has it."""
    if found.re is INFER:
        return f"/v2/models/{{model}}{'/versions/{version}' if found['version'] else ''}/infer"
    return "/endpoints/{model}/invocations" if found["model"] else "/invocations"


def _json_bytes(headers: Headers) -> int | None:
    """Return the length of the JSON that a request begins with; None if it is nothing else.

    Raises:
        ProblemError: 415 if the body is of another type, 422 if the length is not a number.
    """
    content_type = headers.get("content-type", "")
    if not (content_type == "" or is_json(content_type) or content_type.lower() == "application/octet-stream"):
        detail = f"Content-Type is {content_type[:100]!r}; send application/json, or application/octet-stream with binary tensors"
        raise ProblemError(415, "unsupported_media_type", detail)
    length = headers.get(HEADER_LENGTH)
    if length is not None and not (length.isascii() and length.isdigit() and len(length) < 10):
        raise wrong("Inference-Header-Content-Length", f"Input should be a number of bytes, not {length[:40]!r}")
    return None if length is None else int(length)


def _conflict(outcomes: Sequence[Any]) -> ProblemError | None:
    """Return the problem (409) of a request some of whose ids were used for other rows; None if none was."""
    problems = [
        {"row": place, "field": "prediction_id", "message": outcome.detail}
        for place, outcome in enumerate(outcomes)
        if isinstance(outcome, ProblemError)
    ]
    if not problems:
        return None
    kind = next(outcome.kind for outcome in outcomes if isinstance(outcome, ProblemError))
    detail = "; ".join(f"row {one['row']}: {one['message']}" for one in problems[:5])
    if len(problems) < len(outcomes):
        detail += "; the other rows are recorded, and get the same answers under the same ids"
    return ProblemError(409, kind, detail, errors=problems[:MAX_ERRORS])
