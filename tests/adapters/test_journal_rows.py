"""The journal gives the rows and labels that Postgres gives, by one rule for several labels of a prediction."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from selfheal.adapters.journal import compress, prediction_journal
from selfheal.adapters.journal_rows import journal_rows
from selfheal.adapters.postgres.logged_rows import logged_rows
from selfheal.credit_risk import contract as another_contract
from selfheal.domain.contract import TRUE_LABEL
from selfheal.kit.errors import InvalidDataError
from selfheal.services.platform import Platform
from tests.times import T0
from tests.toy_use_case import contract
from tests.traffic import ingest_all, journal_labels, journal_predictions, serve, toy_rows

STEP, HOUR, DAY = timedelta(minutes=10), timedelta(hours=1), timedelta(days=1)
END = T0 + 60 * DAY
N_ROWS = 60


def both(
    platform: Platform, *, since: datetime | None = T0, max_rows: int = 10_000
) -> tuple[pd.DataFrame, pd.DataFrame]:
    of_postgres = logged_rows(platform.store, since=since, until=END, max_rows=max_rows)
    return of_postgres, of_journal(platform.settings.data_dir, since=since, max_rows=max_rows)


def of_journal(data_dir: Path, *, since: datetime | None = T0, max_rows: int = 10_000) -> pd.DataFrame:
    return journal_rows(contract, data_dir, since=since, until=END, max_rows=max_rows)


def assert_alike(one: pd.DataFrame, other: pd.DataFrame) -> None:
    pd.testing.assert_frame_equal(one, other[list(one.columns)], check_dtype=False)


@pytest.mark.integration
def test_rows_and_labels_are_those_of_postgres(platform: Platform) -> None:
    """Several labels of one prediction in any order: plain ones, corrections, contradictions."""
    sent = serve(platform, toy_rows(N_ROWS), step=STEP, labelled_share=0)
    rng = np.random.default_rng(4)
    for _ in range(25):
        some = rng.choice(50, size=6, replace=False)
        journal_labels(
            platform.settings.data_dir,
            [sent.prediction_ids[place] for place in some],
            rng.integers(0, 2, 6).tolist(),
            received_at=sent.last_at + int(rng.integers(1, 10)) * HOUR,
            is_correction=bool(rng.integers(2)),
        )
    ingest_all(platform)
    of_postgres, of_files = both(platform)
    assert_alike(of_postgres, of_files)
    assert 0 < of_postgres[TRUE_LABEL].notna().sum() < N_ROWS
    assert_alike(*both(platform, max_rows=7))
    assert_alike(*both(platform, since=None))
    assert_alike(*both(platform, since=sent.created_at[20]))
    assert len(both(platform, since=sent.created_at[20])[0]) == N_ROWS - 21, "since is exclusive"


def test_the_newest_rows_of_many_files_are_read_packed_or_not_and_each_once(tmp_path: Path) -> None:
    sent = [
        journal_predictions(tmp_path, contract, toy_rows(40), np.full(40, 0.5), start=T0 + (place + 1) * DAY, step=STEP)
        for place in (2, 0, 1)
    ]
    again = journal_predictions(
        tmp_path,
        contract,
        toy_rows(40),
        np.full(40, 0.5),
        start=T0 + DAY,
        step=STEP,
        prediction_ids=sent[1].prediction_ids,
    )
    compress(prediction_journal(contract).files(tmp_path)[0])
    rows = of_journal(tmp_path, max_rows=70)
    assert rows["prediction_id"].tolist() == [
        str(one) for one in (*sent[2].prediction_ids[10:], *sent[0].prediction_ids)
    ]
    assert len(of_journal(tmp_path)) == 3 * len(again.prediction_ids)
    assert rows[TRUE_LABEL].isna().all()


def test_a_folder_without_predictions_of_this_contract_is_a_clear_word(tmp_path: Path) -> None:
    for _ in range(2):
        with pytest.raises(InvalidDataError, match="no predictions of contract 'machine_failure'"):
            of_journal(tmp_path)
        rows = another_contract.synthesize(5, 1)  # type: ignore[misc]
        journal_predictions(tmp_path, another_contract, rows, np.full(5, 0.5))
