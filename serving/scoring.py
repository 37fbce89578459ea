"""The one path of a prediction: rows that arrive together are scored by one call and made durable by one commit.

Nothing waits while the path is idle: whatever has arrived when the last group is done is the next group.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING
from uuid import UUID

import numpy as np

from selfheal.journal import Journal, format_number, format_time
from selfheal.time_ordered import new_id
from serving.problems import ProblemError, not_ready

if TYPE_CHECKING:
    from selfheal.contract import ModelContract
    from serving.champion import Champion, ChampionHolder

MAX_WAITING_ROWS = 50_000
"""Rows that may wait for their group; beyond it a client is better told to come back than left to time out."""

MAX_GROUP_ROWS = 10_000


@dataclass(frozen=True, slots=True)
class Row:
    """One validated row: the raw inputs in the contract's order (None where missing) and who sent it."""

    values: Sequence[float | int | None]
    request_source: str


@dataclass(frozen=True, slots=True)
class Scored:
    """One acknowledged prediction."""

    prediction_id: UUID
    prediction: int
    probability: float
    champion: Champion


@dataclass(slots=True)
class _Waiting:
    rows: Sequence[Row]
    arrived_at: float
    answer: asyncio.Future[list[Scored]]


class Scorer:
    """Groups waiting rows, scores and journals them. One instance a process."""

    def __init__(self, contract: ModelContract, holder: ChampionHolder, journal: Journal) -> None:
        self._contract = contract
        self._holder = holder
        self._journal = journal
        self._waiting: deque[_Waiting] = deque()
        self._n_waiting_rows = 0
        self._arrived = asyncio.Event()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="score")

    async def score(self, rows: Sequence[Row]) -> list[Scored]:
        """Scores the rows and returns once they are on disk.

        Raises:
            ProblemError: 503 if there is no model, too much is waiting, or the journal cannot be written.
        """
        if self._holder.current is None:
            raise not_ready(self._holder.problem or "no model is loaded yet")
        if self._n_waiting_rows + len(rows) > MAX_WAITING_ROWS:
            raise ProblemError(503, "overloaded", "too many rows are waiting to be scored", retry_after_seconds=1)
        answer: asyncio.Future[list[Scored]] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Waiting(rows, time.perf_counter(), answer))
        self._n_waiting_rows += len(rows)
        self._arrived.set()
        return await answer

    async def work(self) -> None:
        """Serves group after group until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            await self._arrived.wait()
            group = self._next_group()
            champion = self._holder.current
            assert champion is not None, "rows wait only while there is a champion; it is never taken away"
            try:
                scored = await loop.run_in_executor(self._thread, self._score_group, group, champion)
            except OSError as error:
                detail = f"the prediction could not be made durable ({error.strerror}); it was not acknowledged"
                _fail(group, ProblemError(503, "journal_unavailable", detail, retry_after_seconds=5))
            except Exception as error:
                _fail(group, error)
            else:
                for waiting, answer in zip(group, scored, strict=True):
                    if not waiting.answer.done():
                        waiting.answer.set_result(answer)

    def close(self) -> None:
        """Fails what still waits; nothing of it was acknowledged."""
        _fail(self._waiting, not_ready("the service is stopping"))
        self._thread.shutdown(wait=True)

    def _next_group(self) -> list[_Waiting]:
        group: list[_Waiting] = []
        n_rows = 0
        while self._waiting and (not group or n_rows + len(self._waiting[0].rows) <= MAX_GROUP_ROWS):
            waiting = self._waiting.popleft()
            group.append(waiting)
            n_rows += len(waiting.rows)
        self._n_waiting_rows -= n_rows
        if not self._waiting:
            self._arrived.clear()
        return group

    def _score_group(self, group: Sequence[_Waiting], champion: Champion) -> list[list[Scored]]:
        rows = [row for waiting in group for row in waiting.rows]
        raw = np.array([row.values for row in rows], dtype=np.float64)
        features = self._contract.feature_columns(dict(zip(self._contract.input_names, raw.T, strict=True)))
        matrix = np.column_stack(list(features.values()))
        probabilities = champion.probabilities(matrix)
        predictions = (probabilities >= champion.version.threshold).astype(int)
        ids = [new_id() for _ in rows]
        self._journal.append(self._records(group, champion, ids, matrix, probabilities, predictions))
        scored = iter(
            Scored(prediction_id, int(prediction), float(probability), champion)
            for prediction_id, prediction, probability in zip(ids, predictions, probabilities, strict=True)
        )
        return [[next(scored) for _ in waiting.rows] for waiting in group]

    def _records(
        self,
        group: Sequence[_Waiting],
        champion: Champion,
        ids: Sequence[UUID],
        matrix: np.ndarray,
        probabilities: np.ndarray,
        predictions: np.ndarray,
    ) -> list[tuple[str, ...]]:
        created_at = format_time(datetime.now(UTC))
        now = time.perf_counter()
        version, threshold = str(champion.version.version), repr(champion.version.threshold)
        kinds = [self._contract.kinds[name] for name in self._contract.feature_names]
        senders = [(row.request_source, 1000 * (now - w.arrived_at)) for w in group for row in w.rows]
        return [
            (
                str(prediction_id),
                created_at,
                version,
                str(prediction),
                repr(probability),
                threshold,
                source,
                f"{latency_ms:.3f}",
                *(format_number(value, kind) for value, kind in zip(values, kinds, strict=True)),
            )
            for prediction_id, prediction, probability, (source, latency_ms), values in zip(
                ids, predictions.tolist(), probabilities.tolist(), senders, matrix.tolist(), strict=True
            )
        ]


def _fail(group: Iterable[_Waiting], error: Exception) -> None:
    for waiting in group:
        if not waiting.answer.done():
            waiting.answer.set_exception(error)
