"""Clients that record all answers, for a benchmark that kills the service under load.

Belongs here: sending requests, repeating them where a client would, and recording acknowledgements. Does not belong here: the
failures of the service, and the verification (`benchmarks.crash`).
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any
from uuid import uuid4

import orjson

from benchmarks.load import http_request

ANSWER_TIMEOUT_SECONDS = 60.0
RETRY_PAUSE_SECONDS = 0.05
PAUSE_SECONDS = 0.1
"""Mean pause of a client between two requests, which leaves the machine time to restart killed processes."""

LABELLED_SHARE = 0.05
MAX_LABELS_DUE = 2_000
"""Of one client; what is beyond that is never labelled."""

SCORE_TOLERANCE = 1e-12
"""Tolerance for rounding: the rows scored together may affect the last bits of a probability."""

OK, UNAVAILABLE = 200, 503
UNREACHED, BROKEN = 0, -1
"""Values in place of a status: the connection was refused, or it broke before the answer arrived."""


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """One acknowledged prediction. `number` is that of its row among all rows sent."""

    number: int
    prediction_id: str
    prediction: int
    probability: float
    threshold: float
    model_version: int


@dataclass(frozen=True, slots=True)
class Question:
    """One request, with one row per number."""

    numbers: range
    request: bytes
    has_own_ids: bool


@dataclass
class Ledger:
    """All requests and answers.

    Each row has a `request_source` of its own, so that rows in Postgres can be counted by request and not only by id.
    """

    rows: Sequence[dict[str, Any]]
    true_labels: Sequence[int] = (0, 1)
    """Of the rows; those of the first two, round and round, if nobody learns from them."""

    api_key: str | None = None
    """Sent with each request, if the service asks for one."""

    acknowledged: list[Acknowledged] = field(default_factory=list)
    labels: dict[str, int] = field(default_factory=dict)
    n_asked_rows: int = 0
    n_refused: int = 0
    n_broken: int = 0
    n_retried: int = 0
    n_asked_again: int = 0
    n_answered_differently: int = 0
    n_other_answers: int = 0
    first_other_answer: str | None = None

    def question(self, n_rows: int, *, has_own_ids: bool) -> Question:
        """Return a new request with the next rows."""
        numbers = range(self.n_asked_rows, self.n_asked_rows + n_rows)
        self.n_asked_rows += n_rows
        rows = [
            self.row(number)
            | {"request_source": source_of(number)}
            | ({"prediction_id": str(uuid4())} if has_own_ids else {})
            for number in numbers
        ]
        path, body = ("/predict", rows[0]) if n_rows == 1 else ("/predict/batch", {"instances": rows})
        return Question(numbers, http_request(path, orjson.dumps(body), self.api_key), has_own_ids)

    def row(self, number: int) -> dict[str, Any]:
        """Return the inputs of the row with this number."""
        return self.rows[number % len(self.rows)]

    def true_label(self, number: int) -> int:
        """Return the true label of the row with this number."""
        return self.true_labels[number % len(self.true_labels)]

    def note_other_answer(self, status: int, body: bytes) -> None:
        """Count an unexpected answer and remember the first one."""
        self.n_other_answers += 1
        self.first_other_answer = self.first_other_answer or f"{status}: {body[:300].decode(errors='replace')}"


def source_of(number: int) -> str:
    """Return the `request_source` of a row number."""
    return f"row-{number}"


def number_of(source: str) -> int:
    """Return the row number of a `request_source`."""
    return int(source.removeprefix("row-"))


@dataclass
class Door:
    """A port on which one API process serves after the other.

    `n_processes` distinguishes a late answer of a killed process from the first one of its successor.
    """

    port: int
    n_processes: int = 0
    n_acknowledged: int = 0
    """Rows acknowledged since the current process was started."""

    closed_at: float | None = None
    is_cold: bool = True
    """Whether the current process had to do its imports."""

    cold_recovery_seconds: list[float] = field(default_factory=list)
    warm_recovery_seconds: list[float] = field(default_factory=list)

    def note_closed(self) -> None:
        """Note that the process behind the port was killed."""
        self.n_processes += 1
        self.n_acknowledged = 0
        self.closed_at = time.monotonic()

    def note_answer(self, process: int, n_rows: int) -> None:
        """Count acknowledged rows of the current process; its first answer ends the recovery time."""
        if process != self.n_processes:
            return
        self.n_acknowledged += n_rows
        if self.closed_at is not None:
            recoveries = self.cold_recovery_seconds if self.is_cold else self.warm_recovery_seconds
            recoveries.append(time.monotonic() - self.closed_at)
            self.closed_at = None


class Client:
    """Sends one request after the other to its port.

    A request without ids is sent once: its outcome is unknown if the connection breaks. A request with ids is sent until it is
    answered, on this port or (`goes_elsewhere`) on the next one, as behind a load balancer. After each break, the last answered
    request is sent again, as by a client that lost the answer. It must get the same answer; on another port, equal up to
    rounding if that process does not know the first answer yet.
    """

    def __init__(
        self,
        ledger: Ledger,
        doors: Sequence[Door],
        home: int,
        n_rows: int,
        *,
        has_own_ids: bool,
        goes_elsewhere: bool,
        pause_seconds: float = PAUSE_SECONDS,
        labelled_share: float = LABELLED_SHARE,
        label_delay_seconds: float = 0.0,
    ) -> None:
        self._ledger = ledger
        self._doors = doors
        self._home = self._at = home
        self._n_rows = n_rows
        self._has_own_ids = has_own_ids
        self._goes_elsewhere = goes_elsewhere
        self._pause_seconds = pause_seconds
        self._labelled_share = labelled_share
        self._label_delay_seconds = label_delay_seconds
        self._due: deque[tuple[float, Acknowledged]] = deque(maxlen=MAX_LABELS_DUE)
        self._process = 0
        self._connection: tuple[Door, asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self._has_broken = False
        self._last: tuple[Question, list[Acknowledged]] | None = None

    async def run(self) -> None:
        """Send requests until cancelled."""
        try:
            while True:
                await asyncio.sleep(random.uniform(0, 2 * self._pause_seconds))
                if self._has_broken and self._last is not None:
                    await self._ask_again(*self._last)
                self._has_broken = False
                question = self._ledger.question(self._n_rows, has_own_ids=self._has_own_ids)
                answers = await self._ask(question)
                if answers:
                    self._ledger.acknowledged += answers
                    self._last = (question, answers) if self._has_own_ids else None
                    when = time.monotonic() + self._label_delay_seconds
                    self._due += [(when, answers[0])] if random.random() < self._labelled_share else []
                while self._due and self._due[0][0] <= time.monotonic():
                    await self._label(self._due.popleft()[1])
                self._at = self._home
        finally:
            self._disconnect()

    async def _ask(self, question: Question) -> list[Acknowledged]:
        """Send a request and return the acknowledged predictions; none if the outcome will never be known."""
        while True:
            status, body = await self._post(question.request)
            if status == OK:
                return self._acknowledged(question, orjson.loads(body))
            if status not in (UNAVAILABLE, UNREACHED, BROKEN):
                self._ledger.note_other_answer(status, body)
                return []
            if not question.has_own_ids:
                return []
            self._ledger.n_retried += status == BROKEN
            await asyncio.sleep(RETRY_PAUSE_SECONDS)
            if status != UNAVAILABLE and self._goes_elsewhere:
                self._at = (self._at + 1) % len(self._doors)

    async def _ask_again(self, question: Question, answers: list[Acknowledged]) -> None:
        again = await self._ask(question)
        self._ledger.n_asked_again += 1
        tolerance = SCORE_TOLERANCE if self._goes_elsewhere else 0.0
        is_same = len(again) == len(answers) and all(map(partial(is_same_answer, tolerance=tolerance), again, answers))
        self._ledger.n_answered_differently += not is_same

    async def _label(self, answer: Acknowledged) -> None:
        label = self._ledger.true_label(answer.number)
        body = orjson.dumps({"prediction_id": answer.prediction_id, "true_label": label})
        status, body = await self._post(http_request("/labels", body, self._ledger.api_key), n_rows=0)
        if status == OK:
            self._ledger.labels[answer.prediction_id] = label
        elif status not in (UNAVAILABLE, UNREACHED, BROKEN):
            self._ledger.note_other_answer(status, body)

    def _acknowledged(self, question: Question, answer: dict[str, Any]) -> list[Acknowledged]:
        if answer.get("errors"):
            self._ledger.note_other_answer(OK, orjson.dumps(answer["errors"]))
            return []
        return [
            Acknowledged(
                number,
                one["prediction_id"],
                one["prediction"],
                one["probability"],
                one["threshold"],
                one["model_version"],
            )
            for number, one in zip(question.numbers, answer.get("predictions", [answer]), strict=True)
        ]

    async def _post(self, request: bytes, n_rows: int | None = None) -> tuple[int, bytes]:
        """Return status (or UNREACHED, BROKEN) and body. A 200 acknowledges `n_rows`, by default those of the request."""
        door = self._doors[self._at]
        failure = UNREACHED
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT_SECONDS):
                reader, writer = await self._connect(door)
                failure = BROKEN
                writer.write(request)
                status, body = await _read_answer(reader)
        except (OSError, EOFError):
            self._has_broken = self._has_broken or failure == BROKEN
            self._ledger.n_broken += failure == BROKEN
            self._disconnect()
            return failure, b""
        if status == OK:
            door.note_answer(self._process, self._n_rows if n_rows is None else n_rows)
        self._ledger.n_refused += status == UNAVAILABLE
        return status, body

    async def _connect(self, door: Door) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if self._connection is not None and self._connection[0] is not door:
            self._disconnect()
        if self._connection is None:
            self._process = door.n_processes
            self._connection = (door, *await asyncio.open_connection("127.0.0.1", door.port))
        return self._connection[1:]

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection[2].close()
            self._connection = None


def is_same_answer(one: Acknowledged, other: Acknowledged, tolerance: float) -> bool:
    """Return whether two answers agree, with probabilities within `tolerance`."""
    is_close = abs(one.probability - other.probability) <= tolerance
    return is_close and replace(one, probability=other.probability) == other


async def _read_answer(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    status = int(head.split(b" ", 2)[1])
    length = int(head.split(b"content-length:", 1)[1].split(b"\r\n", 1)[0])
    return status, await reader.readexactly(length)
