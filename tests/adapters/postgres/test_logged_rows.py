"""Logged predictions carry the label that counts, and when that was known."""

from __future__ import annotations

from datetime import timedelta

import pandas as pd
import pytest

from selfheal.adapters.postgres.logged_rows import LABEL_KNOWN_AT, logged_rows
from selfheal.domain.contract import TRUE_LABEL
from selfheal.services.platform import Platform
from tests.times import T0
from tests.traffic import ingest_all, journal_labels, serve, toy_rows

pytestmark = pytest.mark.integration

DAY = timedelta(days=1)


def test_the_first_label_counts_until_a_correction_says_otherwise(platform: Platform) -> None:
    sent = serve(platform, toy_rows(10), labelled_share=0)
    folder, ids = platform.settings.data_dir, sent.prediction_ids
    journal_labels(folder, ids[:4], [1, 1, 1, 1], received_at=T0 + DAY)
    journal_labels(folder, ids[1:2], [0], received_at=T0 + 2 * DAY)
    journal_labels(folder, ids[2:4], [0, 1], received_at=T0 + 3 * DAY, is_correction=True)
    ingest_all(platform)
    rows = logged_rows(platform.store, since=T0, until=T0 + 9 * DAY, max_rows=10)
    assert rows[TRUE_LABEL].tolist()[:4] == [1, 1, 0, 1]
    assert rows[LABEL_KNOWN_AT].tolist()[:4] == [T0 + DAY, T0 + DAY, T0 + 3 * DAY, T0 + DAY]
    assert rows[TRUE_LABEL].isna().sum() == rows[LABEL_KNOWN_AT].isna().sum() == 6


def test_the_newest_rows_come_in_their_order(platform: Platform) -> None:
    sent = serve(platform, toy_rows(10))
    rows = logged_rows(platform.store, since=T0, until=sent.created_at[7], max_rows=3)
    assert rows["prediction_id"].tolist() == [str(one) for one in sent.prediction_ids[5:8]]
    assert rows["created_at"].tolist() == [pd.Timestamp(moment) for moment in sent.created_at[5:8]]
    assert logged_rows(platform.store, since=sent.last_at, until=T0 + DAY, max_rows=3).empty
