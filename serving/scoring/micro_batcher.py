"""Micro-batching and group commit: rows that arrive together are scored by one call and made durable by one write.

An idle service makes no request wait. Under load the next group is whatever has arrived while the last one was scored
and written to disk. Scoring ahead of the disk was tried: it makes groups smaller, and a call of the model takes a
millisecond whether for one row or for fifty.

Large requests have a queue of their own, so that a row never waits for the batches that were sent before it, only for
its share of the processor.

Rows are judged one by one: one whose derived features are unusable, or on which `derive` fails, is refused without the
others of its request. A model that fails on a row fails the request.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter, deque
from collections.abc import Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property, partial
from itertools import accumulate
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np
import uuid_utils

from selfheal.adapters.journal import column_values, encode_lines, format_time, level_values
from selfheal.domain.contract import DTYPES
from selfheal.kit.errors import JournalUnavailableError
from selfheal.kit.latency import LatencyHistogram
from serving.schemas.problems import ProblemError, not_ready
from serving.schemas.reading import MAX_ERRORS_PER_LIST, Refused
from serving.scoring.isolation import isolate

if TYPE_CHECKING:
    from selfheal.domain.contract import Columns, FloatArray, ModelContract
    from selfheal.domain.features import Example
    from serving.champion.holder import Champion, ChampionHolder
    from serving.ingest.journal_writer import JournalWriter

logger = logging.getLogger(__name__)

MAX_WAITING_ROWS = 50_000
"""Largest number of waiting rows; beyond it, requests are refused at once instead of timing out."""

MAX_GROUP_ROWS = 10_000

MAX_INLINE_ROWS = 256
"""Largest group (3 ms) that is scored in the event loop, because a thread would compete with it for the interpreter lock."""

Answer: TypeAlias = dict[str, Any]
"""One acknowledged prediction, with the fields of `serving.schemas.requests.Prediction`."""

Outcome: TypeAlias = Answer | Refused
"""What becomes of a row: its answer, or what is wrong with it."""


class Row(NamedTuple):
    """One validated row: the raw inputs in the contract's order (None if missing), its sender, and the client's id.

    `entity` is the pseudonym of whom or what it is about; None if no key was sent.
    """

    values: tuple[Example | None, ...]
    request_source: str
    prediction_id: str | None = None
    is_explained: bool = False
    entity: str | None = None


@dataclass(slots=True)
class _Waiting:
    rows: Sequence[Row]
    arrived_at: float
    answers: asyncio.Future[list[Outcome]]


class _Queue:
    """Requests that wait, and the thread that scores and writes them: one group at a time."""

    def __init__(self, name: str) -> None:
        self.waiting: deque[_Waiting] = deque()
        self.n_rows = 0
        """Rows that have been accepted and not yet acknowledged: those that wait, and those of the group in progress."""
        self.n_to_score_alone = 0
        self.has_arrived = asyncio.Event()
        self.thread = ThreadPoolExecutor(1, thread_name_prefix=name)

    def add(self, request: _Waiting) -> None:
        """Add a request at the end."""
        self.waiting.append(request)
        self.n_rows += len(request.rows)
        self.has_arrived.set()

    def queue_one_by_one(self, group: Sequence[_Waiting]) -> None:
        """Queue the requests of a failed group again, one by one: a row that the model fails on fails no other."""
        self.waiting.extendleft(reversed(group))
        self.n_to_score_alone = len(group)
        self.has_arrived.set()

    async def next_group(self) -> list[_Waiting]:
        """Return the next group, as soon as a request waits and no other is just arriving."""
        await self.has_arrived.wait()
        await self._drain_ready_rows()
        group: list[_Waiting] = []
        n_rows, max_rows = 0, MAX_GROUP_ROWS
        if self.n_to_score_alone:
            self.n_to_score_alone -= 1
            max_rows = 0
        while self.waiting and (not group or n_rows + len(self.waiting[0].rows) <= max_rows):
            waiting = self.waiting.popleft()
            group.append(waiting)
            n_rows += len(waiting.rows)
        if not self.waiting:
            self.has_arrived.clear()
        return group

    async def _drain_ready_rows(self) -> None:
        """Yield to the event loop while new rows keep arriving: a few microseconds when idle."""
        n_seen = 0
        while n_seen < self.n_rows < MAX_INLINE_ROWS:
            n_seen = self.n_rows
            await asyncio.sleep(0)

    def fail(self, group: Iterable[_Waiting], error: Exception) -> None:
        """Fail the requests of a group."""
        for waiting in group:
            self.n_rows -= len(waiting.rows)
            if not waiting.answers.done():
                waiting.answers.set_exception(error)

    def close(self) -> None:
        """Refuse what waits, and stop the thread."""
        self.fail(self.waiting, not_ready("the service is stopping"))
        self.thread.shutdown(wait=True)


class _DerivationError(Exception):
    """The contract's `derive` fails on a group of rows; its error is the cause."""


@dataclass(slots=True)
class _Scored:
    """A group that has been scored but not yet acknowledged; without lines if all of its rows are refused."""

    group: Sequence[_Waiting]
    outcomes: list[list[Outcome]]
    model_version: int
    n_answers: int
    n_positive: int
    lines: bytes


class MicroBatcher:
    """Groups waiting rows, scores them and writes them to the journal. One instance per process."""

    def __init__(self, contract: ModelContract, holder: ChampionHolder, log: JournalWriter) -> None:
        self._contract = contract
        self._has_entity_key = contract.has_entity_key
        self._kinds = [contract.kinds[name] for name in contract.feature_names]
        self._categories = [place for place, feature in enumerate(contract.inputs) if feature.kind == "category"]
        self._derived_categories = [
            (place, contract.feature_names[place])
            for place in contract.category_positions
            if place >= len(contract.inputs)
        ]
        self._holder = holder
        self._log = log
        self._small, self._large = _Queue("score"), _Queue("score-large")
        self._is_closed = False
        self.n_acknowledged = 0
        self.n_by_outcome: Counter[tuple[int, int]] = Counter()
        """Acknowledged predictions by model version and prediction."""
        self.latency = LatencyHistogram()

    @property
    def n_waiting_rows(self) -> int:
        """Rows that have been accepted and not yet acknowledged."""
        return self._small.n_rows + self._large.n_rows

    @property
    def problem(self) -> str | None:
        """Return why no prediction can be acknowledged now, in a sentence; None if predictions can."""
        if self._holder.current is None:
            return self._holder.problem or "no model is loaded yet"
        return self._log.problem

    async def score(self, rows: Sequence[Row]) -> list[Outcome]:
        """Score the rows and return once those with an answer are in the journal, with the durability of JOURNAL_FSYNC.

        Raises:
            ProblemError: 503 if there is no model, too many rows wait, or the journal cannot be written.
        """
        return await self.submit(rows)

    def submit(self, rows: Sequence[Row]) -> asyncio.Future[list[Outcome]]:
        """Queue the rows as `score` does, for a caller without a coroutine. The future fails as `score` does."""
        if self._is_closed:
            raise not_ready("the service is stopping")
        if self._holder.current is None:
            raise not_ready(self._holder.problem or "no model is loaded yet")
        if self._log.problem is not None:
            raise _not_durable()
        if self._small.n_rows + self._large.n_rows + len(rows) > MAX_WAITING_ROWS:
            raise ProblemError(503, "overloaded", "too many rows are waiting to be scored", retry_after_seconds=1)
        answers: asyncio.Future[list[Outcome]] = asyncio.get_running_loop().create_future()
        queue = self._small if len(rows) <= MAX_INLINE_ROWS else self._large
        queue.add(_Waiting(rows, time.perf_counter(), answers))
        return answers

    async def work(self) -> None:
        """Process group after group until cancelled."""
        async with asyncio.TaskGroup() as both:
            both.create_task(self._work(self._small))
            both.create_task(self._work(self._large))

    async def _work(self, queue: _Queue) -> None:
        while True:
            group = await queue.next_group()
            try:
                await self._serve(group, queue)
            except asyncio.CancelledError:
                queue.fail(group, not_ready("the service is stopping"))
                raise
            except Exception as error:
                if len(group) == 1:
                    queue.fail(group, error)
                else:
                    queue.queue_one_by_one(group)

    def close(self) -> None:
        """Refuse all waiting and future rows; none of them was acknowledged."""
        self._is_closed = True
        self._small.close()
        self._large.close()

    async def _serve(self, group: Sequence[_Waiting], queue: _Queue) -> None:
        champion = self._holder.current
        assert champion is not None, "rows wait only while there is a champion; it is never taken away"
        in_thread = partial(asyncio.get_running_loop().run_in_executor, queue.thread)
        try:
            if sum(len(waiting.rows) for waiting in group) <= MAX_INLINE_ROWS:
                scored = self._score(group, champion)
            else:
                scored = await in_thread(self._score, group, champion)
        except _DerivationError:
            if len(group) > 1:
                raise
            scored = await in_thread(self._score_apart, group, champion)
        try:
            if scored.lines:
                await in_thread(self._log.write, scored.lines)
        except JournalUnavailableError:
            queue.fail(group, _not_durable())
        else:
            self._acknowledge(scored, queue)

    def _acknowledge(self, scored: _Scored, queue: _Queue) -> None:
        now = time.perf_counter()
        self.n_acknowledged += scored.n_answers
        for waiting, outcomes in zip(scored.group, scored.outcomes, strict=True):
            queue.n_rows -= len(outcomes)
            self.latency.observe(now - waiting.arrived_at, now)
            if not waiting.answers.done():
                waiting.answers.set_result(outcomes)
        self.n_by_outcome[scored.model_version, 1] += scored.n_positive
        self.n_by_outcome[scored.model_version, 0] += scored.n_answers - scored.n_positive

    def _score(self, group: Sequence[_Waiting], champion: Champion) -> _Scored:
        rows = [row for waiting in group for row in waiting.rows]
        try:
            matrix = self._matrix(rows)
        except Exception as error:  # a contract's own code may raise anything
            raise _DerivationError from error
        refused = self._refused(matrix)
        if refused:
            matrix = _without(matrix, refused)
        probabilities = _probabilities(champion, matrix) if len(matrix) else np.empty(0)
        return self._scored(group, rows, refused, matrix, probabilities, champion)

    def _score_apart(self, group: Sequence[_Waiting], champion: Champion) -> _Scored:
        """Score a request some of whose rows make the contract's `derive` fail: those are refused.

        Raises:
            Exception: what the model raises: then it is the request that fails.
        """
        rows = [row for waiting in group for row in waiting.rows]
        matrix, refused = self._derive_apart(rows)
        probabilities = _probabilities(champion, matrix) if len(matrix) else np.empty(0)
        return self._scored(group, rows, refused, matrix, probabilities, champion)

    def unusable(self, rows: Sequence[Row]) -> Mapping[int, Refused]:
        """Return what is wrong with the rows that scoring would refuse, by place; nothing is scored."""
        try:
            return self._refused(self._matrix(rows))
        except Exception:  # a contract's own code may raise anything
            return self._derive_apart(rows)[1]

    def _derive_apart(self, rows: Sequence[Row]) -> tuple[FloatArray, dict[int, Refused]]:
        """Return the features of the usable rows, and what is wrong with the others, some of which make `derive` fail."""
        derived = isolate(lambda part: self._matrix(rows[part]), len(rows))
        if derived.failures:
            first = next(iter(derived.failures.values()))
            logger.error("derive fails on %d of %d rows of a request", len(derived.failures), len(rows), exc_info=first)
        refused = dict.fromkeys(derived.failures, self._underivable)
        matrix = np.array(list(derived.results.values())).reshape(len(derived.results), len(self._kinds))
        unusable, places = self._refused(matrix), list(derived.results)
        refused |= {places[which]: problem for which, problem in unusable.items()}
        return _without(matrix, unusable), refused

    def _matrix(self, rows: Sequence[Row]) -> FloatArray:
        return self._contract.matrix(input_columns(self._contract, rows))

    def _refused(self, matrix: FloatArray) -> dict[int, Refused]:
        """Return what is wrong with the rows whose derived features are unusable, by place; usually nothing."""
        derived, values = self._contract.derived_values, self._contract.derived_part(matrix)
        if derived.are_usable(values):
            return {}
        places = np.flatnonzero(~derived.usable(values)).tolist()
        return {
            place: Refused(derived.problems(values[:, place]) if which < MAX_ERRORS_PER_LIST else ())
            for which, place in enumerate(places)
        }

    @cached_property
    def _underivable(self) -> Refused:
        names = [feature.name for feature in self._contract.derived]
        field = names[0] if len(names) == 1 else "derived features"
        return Refused([{"field": field, "message": "cannot be computed from this row: correct its inputs"}])

    def _scored(
        self,
        group: Sequence[_Waiting],
        all_rows: Sequence[Row],
        refused: Mapping[int, Refused],
        matrix: FloatArray,
        probabilities: FloatArray,
        champion: Champion,
    ) -> _Scored:
        """Return the group with its answers and lines. `matrix` and `probabilities` are of the rows that are not refused."""
        rows = [row for place, row in enumerate(all_rows) if place not in refused] if refused else all_rows
        version = champion.version
        predictions = (probabilities >= version.threshold).astype(int).tolist()
        answers: list[Answer] = [
            {
                "prediction_id": row.prediction_id or str(uuid_utils.uuid7()),
                "prediction": prediction,
                "probability": probability,
                "threshold": version.threshold,
                "model_name": version.model_name,
                "model_version": version.version,
            }
            for row, prediction, probability in zip(rows, predictions, probabilities.tolist(), strict=True)
        ]
        lines = self._lines(group, refused, rows, answers, matrix) if answers else b""
        outcomes: list[Outcome] = list(answers)
        if refused:
            remaining = iter(answers)
            outcomes = [refused[place] if place in refused else next(remaining) for place in range(len(all_rows))]
        ends = list(accumulate(len(waiting.rows) for waiting in group))
        by_request = [outcomes[end - len(waiting.rows) : end] for end, waiting in zip(ends, group, strict=True)]
        return _Scored(group, by_request, version.version, len(answers), sum(predictions), lines)

    def _lines(
        self,
        group: Sequence[_Waiting],
        refused: Collection[int],
        rows: Sequence[Row],
        answers: Sequence[Answer],
        matrix: FloatArray,
    ) -> bytes:
        """Return the journal's lines. `latency_ms` is the time from a row's arrival to its score, before the write.

        Args:
            rows: those that are not refused, as `answers` and `matrix`.
        """
        created_at, now = format_time(datetime.now(UTC)), time.perf_counter()
        latencies_ms = [round(1000 * (now - waiting.arrived_at), 3) for waiting in group]
        senders = [
            (row.request_source, latency_ms, row.entity) if self._has_entity_key else (row.request_source, latency_ms)
            for waiting, latency_ms in zip(group, latencies_ms, strict=True)
            for row in waiting.rows
        ]
        if refused:
            senders = [sender for place, sender in enumerate(senders) if place not in refused]
        columns = [column_values(values, kind) for values, kind in zip(matrix.T, self._kinds, strict=True)]
        for place in self._categories:
            columns[place] = level_values(row.values[place] for row in rows)
        if self._derived_categories:  # a matrix has their codes, so that they are derived once more
            derived = self._contract.feature_columns(input_columns(self._contract, rows))
            for place, name in self._derived_categories:
                columns[place] = level_values(derived[name])
        return encode_lines(
            [
                (
                    answer["prediction_id"],
                    created_at,
                    answer["model_version"],
                    answer["prediction"],
                    answer["probability"],
                    answer["threshold"],
                    *sender,
                    *features,
                )
                for answer, sender, features in zip(answers, senders, zip(*columns, strict=True), strict=True)
            ]
        )


def input_columns(contract: ModelContract, rows: Sequence[Row]) -> Columns:
    """Return the raw inputs of rows, column by column."""
    if not contract.category_names:
        inputs = np.array([row.values for row in rows], dtype=np.float64)
        return dict(zip(contract.input_names, inputs.T, strict=True))
    columns = zip(*(row.values for row in rows), strict=True)
    return {
        feature.name: np.array(values, dtype=DTYPES[feature.kind])
        for feature, values in zip(contract.inputs, columns, strict=True)
    }


def _probabilities(champion: Champion, matrix: FloatArray) -> FloatArray:
    probabilities = champion.probabilities(matrix)
    if not ((probabilities >= 0.0) & (probabilities <= 1.0)).all():
        raise ValueError(f"version {champion.version.version} gave a probability outside [0, 1]")
    return probabilities


def _without(matrix: FloatArray, places: Collection[int]) -> FloatArray:
    """Return the matrix without these rows; in memory column by column, as it was."""
    return np.delete(matrix.T, list(places), axis=1).T


def _not_durable() -> ProblemError:
    detail = "predictions cannot be made durable now, so this one was not acknowledged; see /health"
    return ProblemError(503, "journal_unavailable", detail, retry_after_seconds=5)
