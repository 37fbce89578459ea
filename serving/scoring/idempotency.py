"""Idempotency keys: a repeated `prediction_id` gets the first response and is logged once; another row is refused.

Earlier responses are in three places: this process's memory, the end of the journal at the start of the service (which a
crash may have left uncopied), and Postgres. While Postgres is unavailable, an old id may be scored again; the first line
counts in the log. The same holds for one id sent to two processes within the second or so by which Postgres lags behind the
journal.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from selfheal.adapters.journal import TAIL_LINES, JournalKind, last_lines
from selfheal.adapters.postgres.predictions import stored_predictions
from selfheal.domain.clusters import ENTITY
from selfheal.kit.errors import InvalidDataError
from serving.schemas.problems import ProblemError
from serving.scoring.micro_batcher import Answer, Outcome, Row

if TYPE_CHECKING:
    from selfheal.domain.contract import ModelContract
    from selfheal.domain.features import Example, Kind
    from serving.database.read_pool import ReadPool
    from serving.scoring.micro_batcher import MicroBatcher

logger = logging.getLogger(__name__)

MAX_REMEMBERED = 50_000
"""Number of answers in memory: several seconds at the highest rate, while Postgres lags by a fraction of a second.

50 MB when full."""

LOOKUP_TIMEOUT_SECONDS = 1.0
"""Time limit for Postgres to look up ids. If it takes longer (a lock, an unreachable host), it counts as unavailable."""

RETRY_PAUSE_SECONDS = 2.0
"""Pause before an unavailable Postgres is queried again; otherwise each request with an id of its own would wait for it."""

MAX_OPEN_LOOKUPS = 10_000

ROWS_PER_TURN = 1_000
"""Answers that are remembered before others have their turn in the event loop, after 2 ms."""


class IdempotencyKeys:
    """Scores each `prediction_id` once. One instance per process, for its event loop."""

    def __init__(self, contract: ModelContract, read_pool: ReadPool, batcher: MicroBatcher) -> None:
        self._contract = contract
        self._read_pool = read_pool
        self._ask_again_at = 0.0
        self._batcher = batcher
        self._remembered: OrderedDict[str, tuple[Row, Answer]] = OrderedDict()
        self._under_way: dict[str, tuple[Row, asyncio.Future[None]]] = {}

    def remember_journal(self, kind: JournalKind, data_dir: Path) -> None:
        """Read the last predictions acknowledged before this process started."""
        try:
            for fields in last_lines(kind, data_dir, TAIL_LINES):
                self._remember(*self._known(fields))
        except (OSError, InvalidDataError, ValueError, KeyError) as error:
            logger.warning(
                "the end of the journal could not be read, so repeated requests may be logged twice: %s", error
            )

    async def score(self, rows: Sequence[Row]) -> list[Outcome | ProblemError]:
        """Return what becomes of each row; the conflict (409) of its id is a problem, too.

        Raises:
            ProblemError: as `MicroBatcher.score`; then no row was scored.
        """
        own_ids = {row.prediction_id for row in rows if row.prediction_id is not None}
        if not own_ids:
            return list(await self._batcher.score(rows))
        while waiting_for := [self._under_way[i][1] for i in own_ids if i in self._under_way]:
            await asyncio.wait(waiting_for)
        first_rows: dict[str, Row] = {}
        for row in rows:
            if row.prediction_id is not None:
                first_rows.setdefault(row.prediction_id, row)
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._under_way |= {own_id: (row, done) for own_id, row in first_rows.items()}
        try:
            known: dict[str, tuple[Row, Outcome]] = {**await self._look_up(own_ids)}
            fresh = [row for row in rows if row.prediction_id is None or _is_first(row, first_rows, known)]
            remaining: Iterator[Outcome] = iter(await self._batcher.score(fresh) if fresh else [])
            outcomes: list[Outcome | ProblemError] = []
            for which, row in enumerate(rows, start=1):
                if row.prediction_id is None:
                    outcomes.append(next(remaining))
                    continue
                if _is_first(row, first_rows, known):
                    outcome = next(remaining)
                    known[row.prediction_id] = row, outcome
                    if isinstance(outcome, dict):  # a refused row has not used its id
                        self._remember(row, outcome)
                outcomes.append(_same_answer(row, *known[row.prediction_id]))
                if which % ROWS_PER_TURN == 0:
                    await asyncio.sleep(0)
            return outcomes
        finally:
            for own_id in own_ids:
                del self._under_way[own_id]
            done.set_result(None)

    async def _look_up(self, ids: Iterable[str]) -> dict[str, tuple[Row, Answer]]:
        known = {own_id: self._remembered[own_id] for own_id in ids if own_id in self._remembered}
        unknown = [own_id for own_id in ids if own_id not in known]
        for fields in await self._stored(unknown) if unknown else ():
            row, answer = self._known(fields)
            known[answer["prediction_id"]] = row, answer
        return known

    async def _stored(self, ids: Sequence[str]) -> list[dict[str, Any]]:
        """Return the predictions with these ids in Postgres; none while it is unavailable."""
        if time.monotonic() < self._ask_again_at:
            return []
        query = partial(stored_predictions, prediction_ids=ids)
        try:
            return await self._read_pool.run(query, timeout_seconds=LOOKUP_TIMEOUT_SECONDS)
        except ProblemError:
            self._ask_again_at = time.monotonic() + RETRY_PAUSE_SECONDS
            return []

    def _known(self, fields: Mapping[str, object]) -> tuple[Row, Answer]:
        """Return the request and the answer of a logged prediction, from the journal's text or Postgres' values."""
        prediction_id = str(fields["prediction_id"])
        values = tuple(_value(fields[f.name], f.kind) for f in self._contract.inputs)
        answer: Answer = {
            "prediction_id": prediction_id,
            "prediction": int(str(fields["prediction"])),
            "probability": float(str(fields["probability"])),
            "threshold": float(str(fields["threshold"])),
            "model_name": self._contract.name,
            "model_version": int(str(fields["model_version"])),
        }
        entity = str(fields.get(ENTITY) or "") or None
        return Row(values, str(fields["request_source"]), prediction_id, entity=entity), answer

    def _remember(self, row: Row, answer: Answer) -> None:
        self._remembered[answer["prediction_id"]] = (row, answer)
        if len(self._remembered) > MAX_REMEMBERED:
            self._remembered.popitem(last=False)


def _is_first(row: Row, first_rows: Mapping[str, Row], known: Mapping[str, object]) -> bool:
    """Return whether this row is to be scored: its id is new, and it is the first row with that id in the request."""
    assert row.prediction_id is not None
    return row.prediction_id not in known and first_rows[row.prediction_id] is row


def _same_answer(row: Row, first: Row, outcome: Outcome) -> Outcome | ProblemError:
    if (row.values, row.request_source, row.entity) == (first.values, first.request_source, first.entity):
        return dict(outcome) if isinstance(outcome, dict) else outcome
    detail = f"prediction_id {row.prediction_id} was used for another row; choose a new id for each row"
    return ProblemError(409, "prediction_id_conflict", detail)


FLAGS = {"true": 1.0, "false": 0.0}
"""A bool in the journal, and, folded, of Postgres."""


def _value(value: object, kind: Kind) -> Example | None:
    if value is None or value == "":
        return None
    text = str(value)
    if kind == "category":
        return text
    return FLAGS[text.lower()] if kind == "bool" else float(text)
