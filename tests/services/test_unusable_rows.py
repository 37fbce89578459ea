"""Logged rows with unusable derived values stop no tick and no training: they are left out, counted and told."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta

import pandas as pd
import pytest
from sqlalchemy import text

from selfheal.domain.contract import TRUE_LABEL
from selfheal.domain.monitoring.unusable_values import UNUSABLE_VALUES
from selfheal.domain.records import Trigger
from selfheal.services.platform import Platform, open_platform
from selfheal.services.retraining import gather_training_set, train_shadow
from selfheal.services.verification.journaled import check_journals
from selfheal.settings import Settings
from serving.ingest.worker import IngestWorker
from tests import toy_use_case
from tests.adapters.postgres.test_unusable_lines import TOO_LARGE, journaled
from tests.services.steps import decide, tick, whole_tick
from tests.touchy_use_case import INFINITE, MISSING
from tests.traffic import serve, toy_rows

N_ROWS = 1_500
HOUR = timedelta(hours=1)


@pytest.fixture
def platform(make_settings: Callable[..., Settings]) -> Iterator[Platform]:
    opened = open_platform(make_settings(use_case="tests.touchy_use_case:contract"))
    yield opened
    opened.close()


def with_unusable(rows: pd.DataFrame) -> pd.DataFrame:
    rows = rows.copy()
    rows.loc[[200, 900], "load_ratio"] = INFINITE
    rows.loc[[500], "load_ratio"] = MISSING
    return rows


def open_alerts(platform: Platform) -> list[str]:
    query = "SELECT message FROM monitoring_alerts WHERE kind = :kind AND resolved_at IS NULL"
    with platform.store.engine.connect() as connection:
        return list(connection.execute(text(query), {"kind": UNUSABLE_VALUES}).scalars())


def test_they_stop_neither_a_tick_nor_a_training_nor_a_verification(platform: Platform) -> None:
    sent = serve(platform, with_unusable(toy_rows(N_ROWS)))
    now = sent.last_at + HOUR
    outcome = whole_tick(platform, now)
    assert outcome.window.n_predictions == N_ROWS
    (message,) = open_alerts(platform)
    assert "left out: strain is infinite in 2, strain is missing in 1" in message
    assert "The disk is sound" in message

    decision = decide(platform, Trigger.MANUAL, now)
    rows = gather_training_set(platform, decision, None, decision.created_at)
    assert rows.info.source == "1,497 labelled predictions; left out: strain is infinite in 2, strain is missing in 1"
    assert train_shadow(platform, rows, now).mlflow_run_id
    assert [one.findings for one in check_journals(platform, {}, lambda _: None) if one.n_findings] == []

    tick(platform, now + HOUR)
    assert open_alerts(platform) == [], "resolved once the window has no such row"


def test_rows_of_a_file_are_left_out_of_a_bootstrap_and_counted(empty_platform: Platform) -> None:
    from selfheal.adapters.datasets import Dataset
    from tests.touchy_use_case import contract

    platform = Platform(empty_platform.settings, contract, empty_platform.store, empty_platform.registry)
    frame = with_unusable(toy_use_case.contract.synthesize(N_ROWS, 1).astype({TRUE_LABEL: "int64"}))
    decision = decide(platform, Trigger.BOOTSTRAP, pd.Timestamp("2026-03-02", tz="UTC").to_pydatetime())
    rows = gather_training_set(platform, decision, Dataset(frame, "real", "machines.csv", "0"), decision.created_at)
    assert rows.info.n_train + rows.info.n_evaluation + rows.info.n_copied_inputs == N_ROWS - 3
    assert rows.info.source.endswith("left out: strain is infinite in 2, strain is missing in 1")


def test_the_copy_of_an_old_journal_raises_an_alert_that_says_what_it_is(
    make_settings: Callable[..., Settings],
) -> None:
    platform = open_platform(make_settings(use_case="tests.touchy_use_case:whole"))
    try:
        journaled(platform.settings.data_dir, 7, TOO_LARGE)
        worker = IngestWorker(platform)
        worker.copy_new_lines()
        assert worker.problem is None
        assert (worker.n_copied, worker.n_damaged, worker.n_unusable) == (2, 0, 1)
        (message,) = open_alerts(platform)
        assert "1 predictions are in Postgres without a derived value" in message
        assert "wear = 2,700,000,000" in message
        worker.copy_new_lines()
        assert len(open_alerts(platform)) == 1
        IngestWorker(platform).copy_new_lines()
        assert open_alerts(platform) == [], "resolved by a start that finds none"
    finally:
        platform.close()
