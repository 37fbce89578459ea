"""Journaled traffic with known times: rows scored and appended to the journal as the API would, without an API.

Belongs here: building rows, predictions and labels for tests of what lies behind the journal. What the API itself does
is tested through the API.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import UUID

import numpy as np

from selfheal.adapters.journal import LABEL_JOURNAL, Journal, column_values, format_time, prediction_journal
from selfheal.adapters.postgres import model_versions
from selfheal.adapters.postgres.ingest import IngestResult, ingest
from selfheal.adapters.postgres.journal_seals import seal_finished
from selfheal.domain.contract import CALM, TRUE_LABEL, FloatArray, ModelContract
from selfheal.domain.scenarios import scenario_rows
from selfheal.kit.ids import new_id
from selfheal.services.scoring import scoring_of
from tests import toy_use_case
from tests.times import T0

if TYPE_CHECKING:
    import pandas as pd

    from selfheal.domain.records import ModelVersion
    from selfheal.services.platform import Platform

MAX_BYTES = 64_000_000
SECOND = timedelta(seconds=1)


@dataclass(frozen=True)
class Sent:
    """Predictions in the journal: `rows` has the inputs and `true_label`, `features` all features, row by row."""

    rows: pd.DataFrame
    features: pd.DataFrame
    prediction_ids: list[UUID]
    created_at: list[datetime]
    probabilities: FloatArray
    predictions: list[int]

    @property
    def last_at(self) -> datetime:
        return self.created_at[-1]


def toy_rows(n_rows: int, seed: int = 1, scenario: str = CALM) -> pd.DataFrame:
    """Labelled rows of the toy use case as the scenario has them (`calm`: as in training): inputs and `true_label`."""
    contract = toy_use_case.contract
    return scenario_rows(contract.synthesize(n_rows, seed), contract, scenario, seed)


def journal_predictions(
    data_dir: Path,
    contract: ModelContract,
    rows: pd.DataFrame,
    probabilities: FloatArray,
    *,
    threshold: float = 0.5,
    model_version: int = 1,
    start: datetime = T0 + SECOND,
    step: timedelta = SECOND,
    prediction_ids: Sequence[UUID] | None = None,
) -> Sent:
    """Appends a prediction a row to one new journal file, the first at `start`; needs no model and no Postgres."""
    features = contract.feature_frame(rows)
    ids = [new_id() for _ in range(len(rows))] if prediction_ids is None else list(prediction_ids)
    times = [start + i * step for i in range(len(rows))]
    predictions = (probabilities >= threshold).astype(int).tolist()
    kinds = [contract.kinds[name] for name in contract.feature_names]
    journal = Journal(prediction_journal(contract), data_dir, MAX_BYTES)
    values = [column_values(column, kind) for column, kind in zip(features.to_numpy().T, kinds, strict=True)]
    meta = zip(map(str, ids), map(format_time, times), predictions, probabilities.tolist(), strict=True)
    journal.append(
        [
            (prediction_id, created_at, model_version, prediction, probability, threshold, "test", 1.5, *row)
            for (prediction_id, created_at, prediction, probability), *row in zip(meta, *values, strict=True)
        ]
    )
    journal.close()
    return Sent(rows, features, ids, times, probabilities, predictions)


def journal_labels(
    data_dir: Path,
    prediction_ids: Sequence[UUID],
    labels: Sequence[int],
    *,
    received_at: datetime = T0 + timedelta(hours=1),
    is_correction: bool = False,
    source: str = "test",
) -> None:
    """Appends a label for each prediction to one new journal file, all received at the same moment."""
    journal = Journal(LABEL_JOURNAL, data_dir, MAX_BYTES)
    when = format_time(received_at)
    journal.append(
        [
            (str(prediction_id), label, when, when, source, is_correction, None)
            for prediction_id, label in zip(prediction_ids, labels, strict=True)
        ]
    )
    journal.close()


def ingest_all(platform: Platform, *, seals: bool = True) -> tuple[IngestResult, IngestResult]:
    """Copies both journals to Postgres and seals what is finished, as the API's ingest worker does.

    Args:
        seals: False for what a test takes back: a seal stays.
    """
    data_dir = platform.settings.data_dir
    kinds = (prediction_journal(platform.contract), LABEL_JOURNAL)
    predictions, labels = (ingest(platform.store, kind, data_dir) for kind in kinds)
    for kind in kinds if seals else ():
        seal_finished(platform.store, kind, data_dir)
    return predictions, labels


def serve(
    platform: Platform,
    rows: pd.DataFrame,
    *,
    start: datetime = T0 + SECOND,
    step: timedelta = SECOND,
    version: ModelVersion | None = None,
    labelled_share: float = 1.0,
    labels_at: datetime | None = None,
) -> Sent:
    """Scores the rows with a version (default: the champion), journals them and their labels, and ingests both.

    Args:
        labelled_share: the share of the rows, the oldest, that get their `true_label`; 0: none.
        labels_at: when the labels are received; None: a second after the last prediction.
    """
    version = version or model_versions.production_version(platform.store)
    assert version is not None, "nothing is in production"
    features = platform.contract.feature_frame(rows).to_numpy(dtype=np.float64)
    sent = journal_predictions(
        platform.settings.data_dir,
        platform.contract,
        rows,
        scoring_of(platform, version)(features),
        threshold=version.threshold,
        model_version=version.version,
        start=start,
        step=step,
    )
    n_labelled = round(labelled_share * len(rows))
    if n_labelled:
        journal_labels(
            platform.settings.data_dir,
            sent.prediction_ids[:n_labelled],
            rows[TRUE_LABEL].astype(int).tolist()[:n_labelled],
            received_at=labels_at or sent.last_at + SECOND,
        )
    ingest_all(platform)
    return sent
