"""uvicorn's HTTP protocol with a shortcut for the most frequent request.

A scoring request for one row needs no task and no ASGI messages: it is validated as soon as it is complete, queued in the
micro-batcher, and answered in one write when its batch is on disk. That saves a third of a request's cost
(`python -m benchmarks.serving`). Every other request, and every refusal, passes through the ASGI application; the rules for
both are in `serving.scoring.fast_path`.
"""

from __future__ import annotations

import logging
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import orjson

from serving.schemas.problems import ProblemError, internal_error, problem_for
from serving.scoring.fast_path import problem_of_row
from serving.security.http_protocol import StrictHttpProtocol

if TYPE_CHECKING:
    import asyncio

    from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

    from serving.scoring.fast_path import FastPath
    from serving.scoring.micro_batcher import Outcome

logger = logging.getLogger(__name__)

MAX_BODY_BYTES = 16_384
"""Largest body on the shortcut: far more than one row has, and less than uvicorn reads ahead."""

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n"


class FastPathProtocol(StrictHttpProtocol):
    """For uvicorn's `http` option. The application that it serves has a `FastPath` as `fast_path`."""

    def __init__(self, config: Any, *arguments: Any, **options: Any) -> None:
        super().__init__(config, *arguments, **options)
        self._fast_path: FastPath = config.loaded_app.fast_path
        self._awaiting_body: tuple[RequestResponseCycle, Any] | None = None

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        """Take the shortcut if possible. uvicorn calls this when the headers are read and it is the request's turn.

        The shortcut is not for a client that does not read its responses: uvicorn's own path makes it wait.
        """
        if self.flow.write_paused or not _may_take_shortcut(cycle):
            super()._start_asgi_task(cycle, app)
        elif cycle.more_body:
            self._awaiting_body = cycle, app
        else:
            self._submit(cycle, app)

    def on_message_complete(self) -> None:
        """Submit the request whose body is now complete. httptools defines the name."""
        super().on_message_complete()
        complete, self._awaiting_body = self._awaiting_body, None
        if complete is not None:
            self._submit(*complete)

    def _submit(self, cycle: RequestResponseCycle, app: Any) -> None:
        try:
            answers = self._fast_path.submit(cast(Any, cycle.scope), bytes(cycle.body))
        except ProblemError as error:
            self._refuse(cycle, error)
        except Exception as error:
            self._fail(cycle, error)
        else:
            if answers is None:
                super()._start_asgi_task(cycle, app)
            else:
                answers.add_done_callback(partial(self._answer, cycle))

    def _answer(self, cycle: RequestResponseCycle, answers: asyncio.Future[list[Outcome]]) -> None:
        error = answers.exception()
        if isinstance(error, ProblemError):
            self._refuse(cycle, error)
        elif error is not None:
            self._fail(cycle, error)
        elif not isinstance(answer := answers.result()[0], dict):
            self._refuse(cycle, problem_of_row(answer))
        elif not cycle.disconnected:
            self._write(cycle, orjson.dumps(answer))

    def _refuse(self, cycle: RequestResponseCycle, error: ProblemError) -> None:
        self._fast_path.note_refusal(error)
        super()._start_asgi_task(cycle, cast(Any, problem_for(error)))

    def _fail(self, cycle: RequestResponseCycle, error: BaseException) -> None:
        logger.error("POST /predict failed", exc_info=error)
        self._refuse(cycle, internal_error())

    def _write(self, cycle: RequestResponseCycle, body: bytes) -> None:
        head = [HEAD % len(body)]
        for name, value in cycle.default_headers:
            head += [name, b": ", value, b"\r\n"]
        if not cycle.keep_alive:
            head.append(b"connection: close\r\n")
        self.transport.write(b"".join([*head, b"\r\n", body]))
        cycle.response_started = cycle.response_complete = True
        if not cycle.keep_alive:
            self.transport.close()
        self.on_response_complete()


def _may_take_shortcut(cycle: RequestResponseCycle) -> bool:
    scope = cycle.scope
    if scope["path"] != "/predict" or scope["method"] != "POST" or cycle.waiting_for_100_continue:
        return False
    for name, value in scope["headers"]:
        if name == b"content-length":
            return value.isdigit() and len(value) < 6 and int(value) <= MAX_BODY_BYTES
    return False
