"""The fast path: ASGI middleware that responds to rows and labels without the framework.

FastAPI's routing, dependencies and serialisation cost several times as much as validating, scoring and journaling a row
(`python -m benchmarks.serving`), and it parses a body of any size in one go, during which nobody else is answered. The
routes in `serving.routes` put these endpoints into the documentation; keys, bodies and problems are handled by the same
functions as everywhere (`auth`, `body_limit`, `problems`).

What is left of a body after `MAX_INLINE_SECONDS`, and any large one, is read beside the event loop, by one thread, piece
by piece: bodies that arrive together are read in turns, and no piece holds the interpreter lock for more than a few
milliseconds.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar
from urllib.parse import parse_qsl

import orjson
from starlette.requests import ClientDisconnect

from selfheal.kit.errors import JournalUnavailableError, LabelConflictError
from selfheal.kit.web_origins import ForeignRequest, foreign_request
from serving.schemas.label_reading import read_labels
from serving.schemas.problems import ProblemError, internal_error, invalid_request, problem_for
from serving.schemas.reading import MAX_ERRORS_PER_LIST, Refused
from serving.scoring.micro_batcher import Row
from serving.security.auth import CALLER, Authenticator, Scope, key_of
from serving.security.body_limit import check_body, read_body
from serving.security.origin_check import refuse_foreign
from serving.tracing import name_span

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Sequence

    from fastapi import FastAPI
    from starlette.types import Receive, Send
    from starlette.types import Scope as AsgiScope

    from serving.dependencies import Service
    from serving.scoring.micro_batcher import Outcome
    from serving.scoring.request_parser import RequestParser

    Handler = Callable[[Service, bytes, bool], Awaitable[bytes]]

logger = logging.getLogger(__name__)

MAX_INLINE_BYTES = 262_144
"""A thousand rows of the shipped use case. Two threads that work at once cost more than such a body."""

MAX_INLINE_SECONDS = 0.003
"""As long as a group of rows that is scored in the event loop takes."""

ItemT = TypeVar("ItemT")


class FastPath:
    """ASGI middleware, the outermost."""

    def __init__(self, framework: FastAPI, authenticator: Authenticator, parser: RequestParser) -> None:
        self._framework = framework
        self._app = framework.build_middleware_stack()
        self._authenticator = authenticator
        self._parser = parser
        self.n_refused: Counter[str] = Counter()
        """Number of refused scoring requests by the kind of their problem."""
        self._handlers: dict[str, tuple[Scope, Handler]] = {
            "/predict": (Scope.SCORE, self._predict),
            "/predict/batch": (Scope.SCORE, self._predict_batch),
            "/labels": (Scope.LABEL, self._labels),
        }
        self._reading_thread = ThreadPoolExecutor(1, thread_name_prefix="read")  # it ends with this object

    async def __call__(self, scope: AsgiScope, receive: Receive, send: Send) -> None:
        """Respond to rows and labels; pass everything else on."""
        found = self._handlers.get(scope["path"]) if scope["type"] == "http" and scope["method"] == "POST" else None
        if found is None:
            await self._app(scope, receive, send)
            return
        wanted, handle = found
        name_span(scope["path"])
        try:
            self._check_access(scope, wanted)
            is_explained = wanted is Scope.SCORE and wants_explanation(scope["query_string"])
            body = await read_body(receive)
            answer = await handle(self._framework.state.service, body, is_explained)
        except ProblemError as error:
            self._note_refusal(error, wanted)
            await problem_for(error)(scope, receive, send)
        except ClientDisconnect:
            return
        except Exception:
            logger.exception("POST %s failed", scope["path"])
            self._note_refusal(internal_error(), wanted)
            await problem_for(internal_error())(scope, receive, send)
        else:
            headers_out = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(answer))]
            await send({"type": "http.response.start", "status": 200, "headers": headers_out})
            await send({"type": "http.response.body", "body": answer})

    def note_refusal(self, error: ProblemError) -> None:
        """Count a refused scoring request."""
        self.n_refused[error.kind] += 1

    def _note_refusal(self, error: ProblemError, wanted: Scope) -> None:
        if wanted is Scope.SCORE:  # labels have a count of their own
            self.note_refusal(error)

    def submit(self, scope: AsgiScope, body: bytes) -> asyncio.Future[list[Outcome]] | None:
        """Queue a request for one row without an id of its own and without an explanation; return its future answer.

        Any other request is not queued but processed as usual; None is returned.

        Raises:
            ProblemError: if the request is refused.
        """
        if scope["path"] != "/predict" or scope["query_string"]:
            return None
        self._check_access(scope, Scope.SCORE)
        row = self._parser.row(body)
        if row.prediction_id is not None or row.is_explained:
            return None
        service: Service = self._framework.state.service
        return service.batcher.submit([row])

    def _check_access(self, scope: AsgiScope, wanted: Scope) -> None:
        head = _read_head(tuple(scope["headers"]))
        if CALLER not in scope:
            refuse_foreign(head.foreign, self._authenticator)
            scope[CALLER] = self._authenticator.admit(head.key, wanted)
        if not head.has_sound_body:
            check_body(head.headers)

    async def _predict(self, service: Service, body: bytes, is_explained: bool) -> bytes:
        row: Row = await self._at_once_or_beside(len(body), self._parser.row, body)
        (outcome,) = await service.idempotency.score([row])
        if not isinstance(outcome, dict):
            raise problem_of_row(outcome)
        if is_explained or row.is_explained:
            await service.explanations.add([row], [outcome])
        return orjson.dumps(outcome)

    async def _predict_batch(self, service: Service, body: bytes, is_explained: bool) -> bytes:
        rows = await self._read_in_turns(self._parser.batch(body), len(body))
        sound = [row for row in rows if isinstance(row, Row)]
        outcomes = await service.idempotency.score(sound) if sound else []
        explained = [
            (row, outcome)
            for row, outcome in zip(sound, outcomes, strict=True)
            if (is_explained or row.is_explained) and isinstance(outcome, dict)
        ]
        if explained:
            await service.explanations.add(*zip(*explained, strict=True))
        answer: bytes = await self._at_once_or_beside(len(body), _batch_answer, rows, outcomes)
        return answer

    async def _labels(self, service: Service, body: bytes, _: bool) -> bytes:
        labels = await self._read_in_turns(read_labels(body), len(body))
        try:
            receipt = await asyncio.to_thread(service.labels.receive, labels)
        except LabelConflictError as error:
            raise ProblemError(409, "label_conflict", str(error)) from None
        except JournalUnavailableError:
            detail = "labels cannot be made durable now, so none was acknowledged; see /health"
            raise ProblemError(503, "journal_unavailable", detail, retry_after_seconds=5) from None
        return orjson.dumps(
            {
                "accepted": receipt.n_accepted,
                "duplicates": receipt.n_duplicates,
                "replaced": receipt.n_replaced,
            }
        )

    async def _read_in_turns(self, pieces: Iterator[Sequence[ItemT]], n_bytes: int) -> list[ItemT]:
        """Return everything in the pieces of a body; after a few milliseconds, in turns with other bodies."""
        items: list[ItemT] = []
        if n_bytes <= MAX_INLINE_BYTES:
            ends_at = time.perf_counter() + MAX_INLINE_SECONDS
            for piece in pieces:
                items += piece
                if time.perf_counter() > ends_at:
                    break
            else:
                return items
        while (piece := await self._beside(next, pieces, None)) is not None:
            items += piece
        return items

    async def _at_once_or_beside(self, n_bytes: int, work: Callable[..., Any], *arguments: Any) -> Any:
        """Do work in proportion to a body's size: beside the event loop if it is large."""
        return work(*arguments) if n_bytes <= MAX_INLINE_BYTES else await self._beside(work, *arguments)

    async def _beside(self, work: Callable[..., Any], *arguments: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._reading_thread, work, *arguments)


def problem_of_row(outcome: Refused | ProblemError) -> ProblemError:
    """Return the problem of a request whose one row was refused."""
    return invalid_request(outcome.problems) if isinstance(outcome, Refused) else outcome


def _batch_answer(rows: Sequence[Row | Refused], outcomes: Sequence[Outcome | ProblemError]) -> bytes:
    """Return a prediction or null for each row, with the errors. `outcomes` are those of the rows not refused."""
    predictions: list[dict[str, Any] | None] = []
    errors: list[dict[str, Any]] = []
    of_sound_rows = iter(outcomes)
    for position, row in enumerate(rows):
        outcome = row if isinstance(row, Refused) else next(of_sound_rows)
        predictions.append(outcome if isinstance(outcome, dict) else None)
        if isinstance(outcome, dict) or len(errors) >= MAX_ERRORS_PER_LIST:
            continue
        if isinstance(outcome, Refused):
            errors += [{"row": position, **problem} for problem in outcome.problems]
        else:
            errors.append({"row": position, "field": "prediction_id", "message": outcome.detail})
    n_refused = predictions.count(None)
    return orjson.dumps({"predictions": predictions, "errors": errors[:MAX_ERRORS_PER_LIST], "n_refused": n_refused})


class _RequestHead(NamedTuple):
    """The result of reading a request's headers."""

    headers: dict[str, str]
    key: str | None
    foreign: ForeignRequest | None
    has_sound_body: bool


@lru_cache(maxsize=256)
def _read_head(headers: tuple[tuple[bytes, bytes], ...]) -> _RequestHead:
    """Read the headers. Cached, because a client sends the same ones with every request."""
    readable = {str(name, "latin-1"): str(value, "latin-1") for name, value in headers}
    try:
        check_body(readable)
    except ProblemError:
        has_sound_body = False
    else:
        has_sound_body = True
    return _RequestHead(readable, key_of(readable), foreign_request(readable), has_sound_body)


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
