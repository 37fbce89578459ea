"""Labels in: journaled, then acknowledged. A second, different label is a conflict unless sent as a correction."""

from __future__ import annotations

import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING
from uuid import UUID

from sqlalchemy.exc import SQLAlchemyError

from selfheal.errors import LabelConflictError
from selfheal.journal import Record, encode_lines, format_time
from selfheal.store import with_own_connections
from selfheal.store.predictions import stored_labels

if TYPE_CHECKING:
    from selfheal.store import Store
    from serving.durability import DurableLog
    from serving.schemas import Label

REMEMBERED_LABELS = 100_000
"""Labels kept in memory until Postgres surely has them: an hour of 25 a second, a few megabytes."""


LOOK_UP_PATIENCE_SECONDS = 1.0
"""For Postgres to say which labels it has. One that takes longer counts as away."""

PAUSE_SECONDS = 2.0
"""Without asking again a Postgres that is away; or every call would wait for it, one after the other."""


class LabelDesk:
    """Accepts labels. One instance a process; calls are serialised."""

    def __init__(self, store: Store, log: DurableLog) -> None:
        self._store = with_own_connections(store, 1, LOOK_UP_PATIENCE_SECONDS)
        self._ask_again_at = 0.0
        self._log = log
        self._recent: OrderedDict[UUID, int] = OrderedDict()
        self._lock = threading.Lock()
        self.n_by_outcome: Counter[str] = Counter()
        """Labels that were `accepted`, a `duplicate`, or a `conflict`."""

    def close(self) -> None:
        """Returns the connections."""
        self._store.close()

    def accept(self, labels: Sequence[Label]) -> tuple[int, int]:
        """Keeps the labels, all or none; returns how many were new or corrections, and how many were known already.

        Raises:
            LabelConflictError: if a prediction has another label and this one is no correction.
            JournalUnavailableError: if they could not be made durable.
        """
        with self._lock:
            known = self._known({label.prediction_id for label in labels})
            fresh: list[Label] = []
            for label in labels:
                value = known.get(label.prediction_id)
                if value == label.true_label:
                    continue
                if value is not None and not label.is_correction:
                    self.n_by_outcome["conflict"] += 1
                    raise LabelConflictError(
                        f"prediction {label.prediction_id} is labelled {value}; send {label.true_label} with "
                        "is_correction=true if that was wrong"
                    )
                known[label.prediction_id] = label.true_label
                fresh.append(label)
            if fresh:
                self._log.write(encode_lines([self._record(label) for label in fresh]))
            for label in fresh:
                self._remember(label.prediction_id, label.true_label)
            self.n_by_outcome.update(accepted=len(fresh), duplicate=len(labels) - len(fresh))
            return len(fresh), len(labels) - len(fresh)

    def _known(self, ids: set[UUID]) -> dict[UUID, int]:
        recent = {prediction_id: self._recent[prediction_id] for prediction_id in ids if prediction_id in self._recent}
        return self._stored(ids - recent.keys()) | recent

    def _stored(self, ids: set[UUID]) -> dict[UUID, int]:
        """What Postgres has; nothing while it is away: the first label of a prediction wins when the journal is copied."""
        if not ids or time.monotonic() < self._ask_again_at:
            return {}
        try:
            return stored_labels(self._store, ids)
        except SQLAlchemyError:
            self._ask_again_at = time.monotonic() + PAUSE_SECONDS
            return {}

    def _remember(self, prediction_id: UUID, value: int) -> None:
        self._recent[prediction_id] = value
        self._recent.move_to_end(prediction_id)
        if len(self._recent) > REMEMBERED_LABELS:
            self._recent.popitem(last=False)

    @staticmethod
    def _record(label: Label) -> Record:
        now = datetime.now(UTC)
        return (
            str(label.prediction_id),
            label.true_label,
            format_time(label.labelled_at or now),
            format_time(now),
            label.label_source,
            label.is_correction,
        )
