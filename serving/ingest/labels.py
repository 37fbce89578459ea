"""Labels: written to the journal, then acknowledged. Another label is a conflict unless sent as a correction.

Labels of a prediction are ordered by a hybrid logical clock, `ordered_at`: Postgres's time, the same for all hosts,
carried on by the monotonic clock while Postgres is away, and always after the label that is replaced. So an
acknowledged correction counts, whatever the wall clocks of the hosts show or are set to.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple
from uuid import UUID

from sqlalchemy.exc import SQLAlchemyError

from selfheal.adapters.journal import LABEL_JOURNAL, TAIL_LINES, Record, encode_lines, format_time, last_lines
from selfheal.adapters.postgres.predictions import StoredLabel, stored_labels
from selfheal.adapters.postgres.store import with_own_connections
from selfheal.kit.errors import InvalidDataError, LabelConflictError
from selfheal.kit.steady_clock import SteadyClock

if TYPE_CHECKING:
    from selfheal.adapters.postgres.store import Store
    from serving.ingest.journal_writer import JournalWriter
    from serving.schemas.requests import Label

logger = logging.getLogger(__name__)

REMEMBERED_LABELS = 100_000
"""Number of newest labels in memory, until Postgres certainly has them: one hour at 25 per second, 35 MB when full."""

TICK = timedelta(microseconds=1)
"""The smallest step of `ordered_at`."""

LOOKUP_TIMEOUT_SECONDS = 1.0
"""Time limit for Postgres to return existing labels; if it takes longer, it counts as unavailable."""

RETRY_PAUSE_SECONDS = 2.0
"""Pause before an unavailable Postgres is queried again; otherwise each call would wait for it in turn."""


class LabelReceipt(NamedTuple):
    """What became of the labels of one call.

    `n_replaced` of the accepted ones took the place of another value, whatever their sender called them; None: unknown,
    because Postgres was not there to tell.
    """

    n_accepted: int
    n_duplicates: int
    n_replaced: int | None


class LabelIngest:
    """Accepts labels. One instance per process; calls are serialised."""

    def __init__(self, store: Store, log: JournalWriter) -> None:
        self._store = with_own_connections(store, 1, LOOKUP_TIMEOUT_SECONDS)
        self._ask_again_at = 0.0
        self._log = log
        self._clock = SteadyClock()
        self._recent: OrderedDict[UUID, StoredLabel] = OrderedDict()
        self._lock = threading.Lock()
        self.n_by_outcome: Counter[str] = Counter()
        """Number of labels by outcome: `accepted`, `duplicate` or `conflict`."""

    @property
    def problem(self) -> str | None:
        """Return why no label can be acknowledged now, in a sentence; None if labels can."""
        return self._log.problem

    def close(self) -> None:
        """Close the connections."""
        self._store.close()

    def remember_journal(self, data_dir: Path) -> None:
        """Read the labels that were acknowledged last before this process started: Postgres may not have them yet."""
        try:
            for fields in last_lines(LABEL_JOURNAL, data_dir, TAIL_LINES):
                prediction_id, label = UUID(fields["prediction_id"]), _stored_label(fields)
                known = self._recent.get(prediction_id)
                if known is None or label.overrules(known):
                    self._remember({prediction_id: label})
        except (OSError, InvalidDataError, ValueError, KeyError) as error:
            logger.warning("the end of the label journal could not be read; corrections may have no effect: %s", error)

    def accept(self, labels: Sequence[Label]) -> tuple[int, int]:
        """Write the labels to the journal (`receive`); return how many were accepted, and how many were known already."""
        return self.receive(labels)[:2]

    def receive(self, labels: Sequence[Label]) -> LabelReceipt:
        """Write the labels to the journal, all or none.

        A label that replaces nothing is a first label, also if it is sent as a correction.

        Raises:
            LabelConflictError: if a prediction has another label and this one is not a correction.
            JournalUnavailableError: if they could not be made durable.
        """
        with self._lock:
            answer = self._stored({label.prediction_id for label in labels})
            stored = answer or {}
            known = self._known({label.prediction_id for label in labels}, stored)
            n_replaced, is_known = 0, True
            records: list[Record] = []
            fresh: dict[UUID, StoredLabel] = {}
            for label in labels:
                before = known.get(label.prediction_id)
                is_repeated = before is not None and before.value == label.true_label
                if is_repeated and not (label.is_correction and self._may_be_replaced(label, stored, fresh)):
                    continue
                if before is not None and not is_repeated and not label.is_correction:
                    self.n_by_outcome["conflict"] += 1
                    raise LabelConflictError(
                        f"prediction {label.prediction_id} is labelled {before.value}; send {label.true_label} with "
                        "is_correction=true if that was wrong"
                    )
                received_at, ordered_at = datetime.now(UTC), self._clock.now()
                if before is not None:
                    ordered_at = max(ordered_at, before.order + TICK)
                    n_replaced += before.value != label.true_label
                elif label.is_correction and answer is None:
                    is_known = False
                accepted = StoredLabel(label.true_label, label.is_correction, received_at, ordered_at)
                fresh[label.prediction_id] = known[label.prediction_id] = accepted
                records.append(_record(label, received_at, ordered_at))
            if records:
                self._log.write(encode_lines(records))
            self._remember(fresh)
            self.n_by_outcome.update(accepted=len(records), duplicate=len(labels) - len(records))
            return LabelReceipt(len(records), len(labels) - len(records), n_replaced if is_known else None)

    @staticmethod
    def _may_be_replaced(label: Label, stored: Mapping[UUID, StoredLabel], fresh: Mapping[UUID, StoredLabel]) -> bool:
        """Return whether another process may have replaced the value that this one remembers: Postgres has another, or none."""
        if label.prediction_id in fresh:
            return False
        confirmed = stored.get(label.prediction_id)
        return confirmed is None or confirmed.value != label.true_label

    def _known(self, ids: set[UUID], stored: Mapping[UUID, StoredLabel]) -> dict[UUID, StoredLabel]:
        """Return the labels that count now. Postgres may lack the newest, memory those of other processes."""
        known = dict(stored)
        for prediction_id in ids & self._recent.keys():
            mine, theirs = self._recent[prediction_id], known.get(prediction_id)
            if theirs is None or mine.overrules(theirs):
                known[prediction_id] = mine
        return known

    def _stored(self, ids: set[UUID]) -> dict[UUID, StoredLabel] | None:
        """Return the labels in Postgres; None while it is unavailable: ingest decides which label counts."""
        if time.monotonic() < self._ask_again_at:
            return None
        try:
            known, now = stored_labels(self._store, ids)
        except SQLAlchemyError:
            self._ask_again_at = time.monotonic() + RETRY_PAUSE_SECONDS
            return None
        self._clock.set(now)
        return known

    def _remember(self, fresh: dict[UUID, StoredLabel]) -> None:
        for prediction_id, label in fresh.items():
            self._recent[prediction_id] = label
            self._recent.move_to_end(prediction_id)
        while len(self._recent) > REMEMBERED_LABELS:
            self._recent.popitem(last=False)


def _stored_label(fields: Mapping[str, str]) -> StoredLabel:
    """Return the label of a journal line. Lines of earlier releases have no `ordered_at`."""
    ordered_at = fields.get("ordered_at")
    return StoredLabel(
        int(fields["true_label"]),
        fields["is_correction"] == "true",
        datetime.fromisoformat(fields["received_at"]),
        datetime.fromisoformat(ordered_at) if ordered_at else None,
    )


def _record(label: Label, received_at: datetime, ordered_at: datetime) -> Record:
    return (
        str(label.prediction_id),
        label.true_label,
        format_time(label.labelled_at or received_at),
        format_time(received_at),
        label.label_source,
        label.is_correction,
        format_time(ordered_at),
    )
