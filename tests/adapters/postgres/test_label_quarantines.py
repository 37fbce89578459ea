"""The newest labels are read by their receipt, withheld or not, and a quarantine that was released remains so."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import numpy as np

from selfheal.adapters.journal import LABEL_JOURNAL, prediction_journal
from selfheal.adapters.postgres.ingest import ingest
from selfheal.adapters.postgres.label_quarantines import label_quarantines, newest_labels, record_label_quarantine
from selfheal.adapters.postgres.store import Store
from selfheal.domain.records import LabelQuarantine
from tests.times import T0
from tests.toy_use_case import contract
from tests.traffic import SECOND, journal_labels, journal_predictions, toy_rows

HOUR = timedelta(hours=1)


def test_the_newest_labels_are_those_received_last(store: Store, data_dir: Path) -> None:
    scores = np.linspace(0.1, 0.9, 9)
    sent = journal_predictions(data_dir, contract, toy_rows(9), scores, start=T0 + SECOND)
    late, early = sent.prediction_ids[:3], sent.prediction_ids[3:7]
    journal_labels(data_dir, late, [1, 0, 1], received_at=T0 + 2 * HOUR, source="bank")
    journal_labels(data_dir, early, [0, 0, 1, 0], received_at=T0 + HOUR, source="agency")
    for kind in (prediction_journal(contract), LABEL_JOURNAL):
        ingest(store, kind, data_dir)
    record_label_quarantine(store, LabelQuarantine("q", 1, T0, ("a reason",)))
    found = newest_labels(store, 1, T0 + 3 * HOUR, 5)
    assert found["label_source"].tolist() == ["agency"] * 2 + ["bank"] * 3
    assert found["probability"].tolist() == scores[[5, 6, 0, 1, 2]].tolist()
    assert found["true_label"].tolist() == [1, 0, 1, 0, 1]
    assert len(newest_labels(store, 1, T0 + 1.5 * HOUR, 5)) == 4, "what was received later is not known then"
    assert newest_labels(store, 2, T0 + 3 * HOUR, 5).empty


def test_what_a_person_released_no_tick_closes_again(store: Store) -> None:
    found = LabelQuarantine("q", 1, T0, ("a reason",), label_source="bank", is_exchanged=True)
    record_label_quarantine(store, found)
    ended = replace(found, ended_at=T0 + HOUR, reasons=("another",))
    record_label_quarantine(store, ended)
    assert label_quarantines(store, 1) == [ended]
    released = replace(ended, released_at=T0 + 2 * HOUR, released_by="ada")
    record_label_quarantine(store, released)
    record_label_quarantine(store, ended)
    assert label_quarantines(store) == [released]
    assert label_quarantines(store, 2) == []
