"""The sample that tells how long labels take: spread over the version's life, bounded, and the same as long as nothing came."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest

from selfheal.adapters.journal import LABEL_JOURNAL, prediction_journal
from selfheal.adapters.postgres.ingest import ingest
from selfheal.adapters.postgres.label_delays import label_delay_sample
from selfheal.adapters.postgres.store import Store
from selfheal.domain.monitoring.label_delay import N_SLICES, label_delay
from tests.times import T0
from tests.toy_use_case import contract
from tests.traffic import SECOND, Sent, journal_labels, journal_predictions, toy_rows

HOUR = timedelta(hours=1)


def copy(store: Store, data_dir: Path) -> None:
    for kind in (prediction_journal(contract), LABEL_JOURNAL):
        ingest(store, kind, data_dir)


def sent_over(store: Store, data_dir: Path, n_rows: int, step: timedelta, model_version: int = 1) -> Sent:
    sent = journal_predictions(
        data_dir,
        contract,
        toy_rows(n_rows),
        np.full(n_rows, 0.5),
        start=T0 + step,
        step=step,
        model_version=model_version,
    )
    copy(store, data_dir)
    return sent


def test_each_prediction_has_its_age_and_the_delay_of_its_label(store: Store, data_dir: Path) -> None:
    sent = sent_over(store, data_dir, 4, HOUR)
    journal_labels(data_dir, sent.prediction_ids[:2], [1, 0], received_at=T0 + 3 * HOUR)
    journal_labels(data_dir, sent.prediction_ids[2:3], [1], received_at=T0 + 9 * HOUR)
    copy(store, data_dir)
    sample = label_delay_sample(store, 1, T0, sent.last_at)
    assert sample["age_s"].tolist() == [10_800.0, 7_200.0, 3_600.0, 0.0]
    assert sample["delay_s"].tolist()[:2] == [7_200.0, 3_600.0]
    assert sample["true_label"].tolist()[:2] == [1.0, 0.0]
    # The third label was received after the moment asked about.
    assert sample["delay_s"].isna().tolist() == [False, False, True, True]


def test_a_corrected_label_is_not_taken_for_a_late_one(store: Store, data_dir: Path) -> None:
    sent = sent_over(store, data_dir, 3, HOUR)
    journal_labels(data_dir, sent.prediction_ids[:2], [1, 0], received_at=T0 + 3 * HOUR)
    journal_labels(data_dir, sent.prediction_ids[:1], [0], received_at=T0 + 90 * HOUR, is_correction=True)
    copy(store, data_dir)
    sample = label_delay_sample(store, 1, T0, T0 + 100 * HOUR)
    assert sample["delay_s"].tolist()[:2] == [2 * 3_600.0, 3_600.0], "as long as the first labels took"
    assert sample["delay_s"].isna().tolist() == [False, False, True]
    assert sample["is_replaced"].tolist() == [True, False, False]


def test_what_a_sender_calls_its_labels_changes_no_delay(store: Store, data_dir: Path) -> None:
    sent = sent_over(store, data_dir, 6, HOUR)
    for ids, is_correction in ((sent.prediction_ids[:2], False), (sent.prediction_ids[2:4], True)):
        journal_labels(data_dir, ids, [1, 0], received_at=T0 + 5 * HOUR, is_correction=is_correction)
    journal_labels(data_dir, sent.prediction_ids[:4], [1, 0, 1, 0], received_at=T0 + 90 * HOUR, is_correction=True)
    copy(store, data_dir)
    sample = label_delay_sample(store, 1, T0, T0 + 100 * HOUR)
    assert sample["delay_s"].tolist()[:4] == [4 * 3_600.0, 3 * 3_600.0, 2 * 3_600.0, 3_600.0]
    assert not sample["is_replaced"].any()


def test_only_the_version_s_own_predictions_in_the_span_are_sampled(store: Store, data_dir: Path) -> None:
    sent_over(store, data_dir, 20, SECOND, model_version=1)
    sent_over(store, data_dir, 30, SECOND, model_version=2)
    assert len(label_delay_sample(store, 1, T0, T0 + 10 * SECOND)) == 10
    assert len(label_delay_sample(store, 2, T0 + 10 * SECOND, T0 + 30 * SECOND)) == 20
    assert len(label_delay_sample(store, 3, T0, T0 + 30 * SECOND)) == 0


def test_the_sample_is_bounded_and_spread_over_the_span(
    store: Store, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("selfheal.adapters.postgres.label_delays.ROWS_PER_SLICE", 3)
    sent = sent_over(store, data_dir, 1_000, SECOND)
    sample = label_delay_sample(store, 1, T0, sent.last_at)
    assert len(sample) == 3 * N_SLICES
    assert sample["age_s"].max() == 999.0
    assert np.diff(np.sort(sample["age_s"])).max() <= 20.0  # a slice is 20 s long


def test_no_prediction_is_in_two_slices_or_in_none(store: Store, data_dir: Path) -> None:
    sent = sent_over(store, data_dir, 333, timedelta(milliseconds=700))
    sample = label_delay_sample(store, 1, T0, sent.last_at)
    assert len(sample) == 333
    assert sample["age_s"].is_unique


def test_a_version_without_traffic_has_an_empty_sample_and_no_age_of_maturity(store: Store) -> None:
    sample = label_delay_sample(store, 1, T0, T0)
    assert sample.empty
    assert label_delay(sample).matured_after_s is None
