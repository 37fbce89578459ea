"""Labels: written to the journal, then acknowledged. Another label is a conflict unless sent as a correction."""

from __future__ import annotations

import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING
from uuid import UUID

from sqlalchemy.exc import SQLAlchemyError

from selfheal.adapters.journal import Record, encode_lines, format_time
from selfheal.adapters.postgres.predictions import StoredLabel, stored_labels
from selfheal.adapters.postgres.store import with_own_connections
from selfheal.kit.errors import LabelConflictError

if TYPE_CHECKING:
    from selfheal.adapters.postgres.store import Store
    from serving.ingest.journal_writer import JournalWriter
    from serving.schemas.requests import Label

REMEMBERED_LABELS = 100_000
"""Labels that stay in memory until Postgres surely has them: an hour at 25 per second, a few megabytes."""

LOOKUP_TIMEOUT_SECONDS = 1.0
"""For Postgres to return the labels it has. If it takes longer it counts as unavailable."""

RETRY_PAUSE_SECONDS = 2.0
"""Before an unavailable Postgres is asked again; otherwise each call would wait for it, one after the other."""


class LabelIngest:
    """Accepts labels. One instance per process; calls are serialised."""

    def __init__(self, store: Store, log: JournalWriter) -> None:
        self._store = with_own_connections(store, 1, LOOKUP_TIMEOUT_SECONDS)
        self._ask_again_at = 0.0
        self._log = log
        self._recent: OrderedDict[UUID, StoredLabel] = OrderedDict()
        self._lock = threading.Lock()
        self.n_by_outcome: Counter[str] = Counter()
        """Number of labels by outcome: `accepted`, `duplicate` or `conflict`."""

    @property
    def problem(self) -> str | None:
        """Why no label can be acknowledged now, in a sentence; None if labels can."""
        return self._log.problem

    def close(self) -> None:
        """Close the connections."""
        self._store.close()

    def accept(self, labels: Sequence[Label]) -> tuple[int, int]:
        """Write the labels to the journal, all or none.

        Returns:
            How many labels were new or corrections, and how many were known already.

        Raises:
            LabelConflictError: if a prediction has another label and this one is not a correction.
            JournalUnavailableError: if they could not be made durable.
        """
        with self._lock:
            known = self._known({label.prediction_id for label in labels})
            records: list[Record] = []
            fresh: dict[UUID, StoredLabel] = {}
            for label in labels:
                before = known.get(label.prediction_id)
                if before is not None and before.value == label.true_label:
                    continue
                if before is not None and not label.is_correction:
                    self.n_by_outcome["conflict"] += 1
                    raise LabelConflictError(
                        f"prediction {label.prediction_id} is labelled {before.value}; send {label.true_label} with "
                        "is_correction=true if that was wrong"
                    )
                received_at = datetime.now(UTC)
                fresh[label.prediction_id] = StoredLabel(label.true_label, label.is_correction, received_at)
                known[label.prediction_id] = fresh[label.prediction_id]
                records.append(_record(label, received_at))
            if records:
                self._log.write(encode_lines(records))
            self._remember(fresh)
            self.n_by_outcome.update(accepted=len(records), duplicate=len(labels) - len(records))
            return len(records), len(labels) - len(records)

    def _known(self, ids: set[UUID]) -> dict[UUID, StoredLabel]:
        """Return the labels that count now. Postgres may lack the newest, memory those of other processes."""
        known = self._stored(ids)
        for prediction_id in ids & self._recent.keys():
            mine, stored = self._recent[prediction_id], known.get(prediction_id)
            if stored is None or mine.overrules(stored):
                known[prediction_id] = mine
        return known

    def _stored(self, ids: set[UUID]) -> dict[UUID, StoredLabel]:
        """Return the labels in Postgres; none while it is unavailable: ingest decides which label counts."""
        if time.monotonic() < self._ask_again_at:
            return {}
        try:
            return stored_labels(self._store, ids)
        except SQLAlchemyError:
            self._ask_again_at = time.monotonic() + RETRY_PAUSE_SECONDS
            return {}

    def _remember(self, fresh: dict[UUID, StoredLabel]) -> None:
        for prediction_id, label in fresh.items():
            self._recent[prediction_id] = label
            self._recent.move_to_end(prediction_id)
        while len(self._recent) > REMEMBERED_LABELS:
            self._recent.popitem(last=False)


def _record(label: Label, received_at: datetime) -> Record:
    return (
        str(label.prediction_id),
        label.true_label,
        format_time(label.labelled_at or received_at),
        format_time(received_at),
        label.label_source,
        label.is_correction,
    )
