"""The platform's own logs as a deployment: what was known when, and the champion of that time."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta

import numpy as np
import pytest
from sqlalchemy import text

from selfheal.domain.contract import TRUE_LABEL
from selfheal.kit.errors import InvalidDataError
from selfheal.services.platform import Platform, open_platform
from selfheal.settings import Settings
from selfheal.simulate.replay.logs import LOGS, deployment_of_logs
from selfheal.simulate.replay.stream import UNKNOWN
from tests.times import T0
from tests.traffic import ingest_all, journal_labels, serve, toy_rows

pytestmark = pytest.mark.integration

STEP = timedelta(minutes=10)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
END = T0 + 60 * DAY
N_ROWS = 900


def as_microseconds(moment: datetime) -> np.datetime64:
    return np.datetime64(moment.replace(tzinfo=None), "us")


def test_a_label_is_known_when_it_came_and_a_corrected_one_with_its_correction(platform: Platform) -> None:
    sent = serve(platform, toy_rows(N_ROWS), step=STEP, labelled_share=0.5, labels_at=T0 + 10 * DAY)
    truth = sent.rows[TRUE_LABEL].astype(int).tolist()
    journal_labels(
        platform.settings.data_dir,
        sent.prediction_ids[:2],
        [truth[0], 1 - truth[1]],
        received_at=T0 + 20 * DAY,
        is_correction=True,
    )
    ingest_all(platform)
    logged = deployment_of_logs(platform, since=T0, until=END)
    stream = logged.deployment.stream
    first, corrected = as_microseconds(T0 + 10 * DAY), as_microseconds(T0 + 20 * DAY)
    assert stream.label_time[0] == first, "a correction that confirms makes nothing known later"
    assert stream.label_time[1] == corrected, "what counts was not known before"
    assert stream.true_label[:3].tolist() == [truth[0], 1 - truth[1], truth[2]]
    assert (stream.true_label == UNKNOWN).sum() == N_ROWS // 2
    assert np.isnat(stream.label_time[stream.true_label == UNKNOWN]).all()
    assert stream.event_time[0] == as_microseconds(sent.created_at[0])


def test_the_champion_is_the_version_of_that_time_and_answers_what_it_answered(platform: Platform) -> None:
    sent = serve(platform, toy_rows(N_ROWS), step=STEP)
    logged = deployment_of_logs(platform, since=T0, until=END)
    deployment = logged.deployment
    assert logged.champion_from == "version 1, in production then"
    assert deployment.champion.score(deployment.stream.features(0, N_ROWS)).tolist() == sent.probabilities.tolist()
    assert set(deployment.champion.parameters) == set(platform.contract.param_grid)
    assert len(deployment.learned_from) == 3_000
    assert logged.build(LOGS, 7) is deployment
    assert f"{N_ROWS} predictions" in logged.description


def test_logs_from_before_the_first_version_begin_with_it(platform: Platform) -> None:
    serve(platform, toy_rows(N_ROWS), step=STEP)
    assert deployment_of_logs(platform, since=T0 - 90 * DAY, until=END).champion_from.startswith("version 1")


def test_the_same_logs_have_the_same_fingerprint_and_one_label_more_another(platform: Platform) -> None:
    sent = serve(platform, toy_rows(N_ROWS), step=STEP, labelled_share=0.5)
    prints = [deployment_of_logs(platform, since=T0, until=END).fingerprint(LOGS) for _ in range(2)]
    journal_labels(platform.settings.data_dir, sent.prediction_ids[-1:], [1], received_at=sent.last_at + HOUR)
    ingest_all(platform)
    prints.append(deployment_of_logs(platform, since=T0, until=END).fingerprint(LOGS))
    assert prints[0] == prints[1] != prints[2]


def test_a_champion_that_does_not_load_is_replaced_by_one_of_the_labels_known_before(platform: Platform) -> None:
    sent = serve(platform, toy_rows(2 * N_ROWS), step=STEP, labels_at=T0 + 5 * DAY)
    with platform.store.engine.begin() as connection:
        connection.execute(text("UPDATE model_metadata SET contract_hash = repeat('0', 64)"))
    since = sent.created_at[N_ROWS - 1]
    logged = deployment_of_logs(platform, since=since, until=END)
    assert "trained on the 901 labelled rows before" in logged.champion_from, "the row at which it begins ends them"
    assert "version 1, in production then, does not load" in logged.champion_from
    with pytest.raises(InvalidDataError, match=r"no label was known before .*name a later --since"):
        deployment_of_logs(platform, since=T0 + DAY, until=END)


def test_while_postgres_is_away_the_journal_is_replayed(make_settings: Callable[..., Settings]) -> None:
    settings = make_settings()
    platform = open_platform(settings)
    sent = serve(platform, toy_rows(2 * N_ROWS), step=STEP, labels_at=T0 + 5 * DAY)
    since = sent.created_at[N_ROWS - 1]
    there = deployment_of_logs(platform, since=since, until=END)
    platform.close()
    away = open_platform(settings, wait_for_database=False)
    found = deployment_of_logs(away, since=since, until=END)
    away.close()
    assert "the journal, because Postgres does not answer" in found.rows_from
    assert found.champion_from.endswith("since Postgres does not answer")
    assert found.digest == there.digest


@pytest.mark.parametrize(
    ("since", "until", "words"),
    [
        (END, T0, "is not before"),
        (T0 + 30 * DAY, END, "no prediction since 2026-04-01"),
        (T0, END, "only 0 rows have the true label 0; a replay needs 10"),
    ],
)
def test_too_little_is_a_clear_word(platform: Platform, since: datetime, until: datetime, words: str) -> None:
    serve(platform, toy_rows(100), step=STEP, labelled_share=0)
    with pytest.raises(InvalidDataError, match=words):
        deployment_of_logs(platform, since=since, until=until)
