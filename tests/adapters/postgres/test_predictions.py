"""Queries over predictions and labels: which rows are in a window, and that numbers leave as they came."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import event, text

from selfheal.adapters.journal import LABEL_JOURNAL, prediction_journal
from selfheal.adapters.postgres import predictions
from selfheal.adapters.postgres.ingest import ingest
from selfheal.adapters.postgres.spoiled_periods import (
    accept_spoiled_periods,
    record_spoiled_period,
    spoiled_periods,
)
from selfheal.adapters.postgres.store import Store
from selfheal.domain.contract import TRUE_LABEL
from selfheal.domain.records import SpoiledPeriod, Window
from selfheal.kit.ids import new_id
from tests.times import T0
from tests.toy_use_case import contract
from tests.traffic import SECOND, Sent, journal_labels, journal_predictions, toy_rows


def copy(store: Store, data_dir: Path) -> None:
    for kind in (prediction_journal(contract), LABEL_JOURNAL):
        ingest(store, kind, data_dir)


def sent_each_second(
    store: Store, data_dir: Path, n_rows: int, *, start: datetime = T0 + SECOND, model_version: int = 1
) -> Sent:
    """Predictions at `start`, a second later, and so on."""
    probabilities = np.random.default_rng(n_rows).random(n_rows)
    rows = toy_rows(n_rows)
    sent = journal_predictions(data_dir, contract, rows, probabilities, start=start, model_version=model_version)
    copy(store, data_dir)
    return sent


def window(start: datetime, end: datetime, n_predictions: int = 1) -> Window:
    return Window(contract.name, 1, start, end, n_predictions, 0)


def test_a_window_leaves_out_its_start_and_holds_its_end(store: Store, data_dir: Path) -> None:
    sent = sent_each_second(store, data_dir, 10)
    since, until = sent.created_at[2], sent.created_at[6]
    found = predictions.window_of(store, 1, since, until)
    assert found is not None
    assert (found.start, found.end, found.n_predictions) == (since, until, 4)
    rows = predictions.window_rows(store, found, max_rows=100)
    assert rows["probability"].tolist() == sent.probabilities[3:7].tolist()
    labels = [int(label) for label in sent.rows[TRUE_LABEL]]
    journal_labels(data_dir, sent.prediction_ids, labels)
    copy(store, data_dir)
    labelled = predictions.labelled_rows(store, since=since, until=until, model_version=1, max_rows=100)
    assert labelled["prediction_id"].tolist() == [str(i) for i in sent.prediction_ids[3:7]]
    assert labelled[TRUE_LABEL].tolist() == labels[3:7]


def test_a_window_ends_with_its_newest_prediction_and_counts_labels(store: Store, data_dir: Path) -> None:
    sent = sent_each_second(store, data_dir, 10)
    first, last = T0 + timedelta(hours=1), T0 + timedelta(hours=2)
    journal_labels(data_dir, sent.prediction_ids[:3], [0] * 3, received_at=first)
    journal_labels(data_dir, sent.prediction_ids[3:5], [1] * 2, received_at=last)
    journal_labels(data_dir, [new_id()], [1], received_at=last + SECOND)  # of nobody's prediction
    copy(store, data_dir)
    found = predictions.window_of(store, 1, T0)
    assert found is not None
    assert (found.end, found.n_predictions, found.n_labels) == (sent.last_at, 10, 5)
    assert found.last_label_at == last


def test_a_window_holds_one_version_only(store: Store, data_dir: Path) -> None:
    sent_each_second(store, data_dir, 5)
    sent_each_second(store, data_dir, 7, model_version=2)
    found = predictions.window_of(store, 2, T0)
    assert found is not None
    assert found.n_predictions == 7
    assert len(predictions.window_rows(store, found, max_rows=100)) == 7
    assert predictions.window_of(store, 3, T0) is None


def test_a_version_that_has_served_nothing_since_has_no_window(store: Store, data_dir: Path) -> None:
    sent = sent_each_second(store, data_dir, 5)
    assert predictions.window_of(store, 1, sent.last_at) is None


def test_too_many_rows_leave_the_newest_oldest_first(store: Store, data_dir: Path) -> None:
    sent = sent_each_second(store, data_dir, 10)
    journal_labels(data_dir, sent.prediction_ids, [0] * 10)
    copy(store, data_dir)
    rows = predictions.newest_rows(store, window(T0, sent.last_at), 4)
    assert rows["probability"].tolist() == sent.probabilities[-4:].tolist()
    labelled = predictions.labelled_rows(store, max_rows=4)
    assert labelled["probability"].tolist() == sent.probabilities[-4:].tolist()


def test_rows_of_one_moment_are_taken_in_the_order_of_their_ids(store: Store, data_dir: Path) -> None:
    """Rows that were scored as a group share their time; which of them are cut must not depend on the disk."""
    ids = [new_id() for _ in range(40)]
    order = np.random.default_rng(3).permutation(40)
    shuffled = [ids[i] for i in order]
    sent = journal_predictions(data_dir, contract, toy_rows(40), order / 40, step=timedelta(0), prediction_ids=shuffled)
    journal_labels(data_dir, ids, [0] * 40)
    copy(store, data_dir)
    expected = [i / 40 for i in range(33, 40)]
    assert predictions.newest_rows(store, window(T0, sent.last_at), 7)["probability"].tolist() == expected
    assert predictions.labelled_rows(store, max_rows=7)["probability"].tolist() == expected


def test_proxy_metrics_equal_those_of_numpy(store: Store, data_dir: Path) -> None:
    probabilities = np.concatenate([np.random.default_rng(5).random(500), [0.0, 1.0, 0.5]])
    sent = journal_predictions(data_dir, contract, toy_rows(503), probabilities, threshold=0.7)
    copy(store, data_dir)
    found = predictions.window_of(store, 1, T0)
    assert found is not None
    proxy = predictions.proxy_metrics(store, found)
    inner = probabilities[(probabilities > 0) & (probabilities < 1)]
    entropy = -(inner * np.log2(inner) + (1 - inner) * np.log2(1 - inner)).sum() / len(probabilities)
    assert proxy.positive_rate == pytest.approx(np.mean(sent.predictions), rel=1e-12)
    assert proxy.probability_mean == pytest.approx(probabilities.mean(), rel=1e-12)
    assert proxy.probability_std == pytest.approx(probabilities.std(ddof=1), rel=1e-9)
    assert proxy.entropy == pytest.approx(entropy, rel=1e-12)


def test_what_is_not_known_of_a_window_is_none_and_not_zero(store: Store, data_dir: Path) -> None:
    nothing = predictions.proxy_metrics(store, window(T0, T0 + SECOND, 0))
    assert (nothing.positive_rate, nothing.probability_mean, nothing.entropy) == (None, None, None)
    sent = sent_each_second(store, data_dir, 1)
    assert predictions.proxy_metrics(store, window(T0, sent.last_at)).probability_std is None


finite = st.floats(allow_nan=False, allow_infinity=False)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(finite | st.just(math.nan), finite, st.floats(0, 1)), min_size=1, max_size=40))
def test_floats_come_back_exactly_and_missing_values_as_missing(
    store: Store, tmp_path_factory: Any, values: list[tuple[float, float, float]]
) -> None:
    with store.engine.begin() as connection:
        connection.execute(text("TRUNCATE prediction_logs, journal_positions"))
    temperature, load, probability = (np.array(column) for column in zip(*values, strict=True))
    rows = toy_rows(len(values)).assign(temperature_c=temperature, load_ratio=load)
    folder = tmp_path_factory.mktemp("floats")
    with np.errstate(over="ignore"):
        sent = journal_predictions(folder, contract, rows, probability)
    copy(store, folder)
    found = predictions.window_rows(store, window(T0, sent.last_at), max_rows=100, usable_only=False)
    features = list(contract.feature_names)
    pd.testing.assert_frame_equal(found[features], sent.features, check_exact=True)
    assert found["probability"].tolist() == probability.tolist()
    with store.engine.connect() as connection:
        n_null = connection.execute(text("SELECT count(*) FROM prediction_logs WHERE temperature_c IS NULL")).scalar()
    assert n_null == np.isnan(temperature).sum()


def test_times_come_back_as_times_whether_or_not_they_have_a_fraction(store: Store, data_dir: Path) -> None:
    start, step = T0 + timedelta(seconds=1), timedelta(milliseconds=500)
    sent = journal_predictions(data_dir, contract, toy_rows(4), np.full(4, 0.5), start=start, step=step)
    journal_labels(data_dir, sent.prediction_ids, [0, 1, 0, 1])
    copy(store, data_dir)
    found = predictions.labelled_rows(store, max_rows=10)["created_at"]
    assert [moment.to_pydatetime() for moment in found] == sent.created_at


def test_a_frame_without_rows_has_its_columns(store: Store) -> None:
    rows = predictions.labelled_rows(store, max_rows=10)
    assert rows.empty
    assert {*contract.feature_names, "probability", "created_at", TRUE_LABEL} <= set(rows.columns)
    assert predictions.window_rows(store, window(T0, T0 + SECOND), 10).empty


def test_the_latest_activity_is_the_newest_prediction_and_the_newest_label(store: Store, data_dir: Path) -> None:
    now = T0 + timedelta(days=1)
    assert predictions.latest_activity(store, now) == (None, None)
    sent = sent_each_second(store, data_dir, 3)
    assert predictions.latest_activity(store, now) == (sent.last_at, None)
    received_at = T0 + timedelta(days=1)
    journal_labels(data_dir, sent.prediction_ids[:1], [1], received_at=received_at)
    copy(store, data_dir)
    assert predictions.latest_activity(store, now) == (sent.last_at, received_at)


def test_a_label_from_the_future_hides_none_that_comes_after_the_clock_was_set_back(
    store: Store, data_dir: Path
) -> None:
    sent = sent_each_second(store, data_dir, 2)
    now = T0 + timedelta(hours=1)
    for prediction_id, received_at in zip(sent.prediction_ids, (now + timedelta(days=2), now), strict=True):
        journal_labels(data_dir, [prediction_id], [1], received_at=received_at)
    copy(store, data_dir)
    assert predictions.latest_activity(store, now) == (sent.last_at, now)


def test_labels_are_counted_since_a_moment(store: Store, data_dir: Path) -> None:
    sent = sent_each_second(store, data_dir, 10)
    journal_labels(data_dir, sent.prediction_ids[4:], [0] * 6)
    copy(store, data_dir)
    assert predictions.count_labels(store) == (10, 6)
    assert predictions.count_labels(store, since=sent.created_at[5]) == (4, 4)


def test_what_a_broken_feed_sent_is_not_counted_however_often_ticks_saw_it(store: Store, data_dir: Path) -> None:
    sent = sent_each_second(store, data_dir, 10)
    journal_labels(data_dir, sent.prediction_ids[4:], [0] * 6)
    copy(store, data_dir)
    at = sent.created_at
    for tick_id, first, last in (("a", 2, 4), ("b", 3, 6), ("c", 8, 8)):
        record_spoiled_period(store, tick_id, SpoiledPeriod(1, at[first], at[last], ("broken",)))
    record_spoiled_period(store, "d", SpoiledPeriod(2, at[0], at[9], ("another version's",)))
    assert predictions.count_labels(store, sound_only=True) == (10 - 6, 6 - 4)
    assert predictions.count_labels(store, since=at[5], sound_only=True) == (4 - 2, 4 - 2)
    assert predictions.count_labels(store, since=at[5]) == (4, 4)


def test_what_a_declaration_accepts_counts_again_unless_another_period_covers_it(store: Store, data_dir: Path) -> None:
    sent = sent_each_second(store, data_dir, 10)
    journal_labels(data_dir, sent.prediction_ids, [0] * 10)
    copy(store, data_dir)
    at = sent.created_at
    for tick_id, first, last in (("a", 2, 4), ("b", 3, 6), ("c", 8, 8)):
        record_spoiled_period(store, tick_id, SpoiledPeriod(1, at[first], at[last], ("broken",), ("load_ratio",)))

    def counted() -> tuple[int, int, int]:
        rows = predictions.labelled_rows(store, max_rows=100, sound_only=True)
        return (
            len(rows),
            len(predictions.labelled_keys(store, max_rows=100)),
            predictions.count_labels(store, sound_only=True)[1],
        )

    accept_spoiled_periods(store, {"a": "a decision", "c": "a decision"})
    assert counted() == (6, 6, 6)
    accept_spoiled_periods(store, {"b": "another"})
    assert counted() == (10, 10, 10)
    assert [one.accepted_by for one in spoiled_periods(store, 1).values()] == ["a decision", "another", "a decision"]
    accept_spoiled_periods(store, {"a": None, "b": None})
    assert counted() == (5, 5, 5)


def test_stored_labels_are_those_of_the_ids_asked_for(store: Store, data_dir: Path) -> None:
    sent = sent_each_second(store, data_dir, 3)
    journal_labels(data_dir, sent.prediction_ids[:2], [1, 0])
    copy(store, data_dir)
    first, _, third = sent.prediction_ids
    known, now = predictions.stored_labels(store, {first, third})
    assert [(key, one.value, one.is_correction) for key, one in known.items()] == [(first, 1, False)]
    for ids in ({third}, set[UUID]()):
        known, later = predictions.stored_labels(store, ids)
        assert known == {}
        assert later > now, "Postgres's time comes with any answer"


def test_to_look_up_labels_is_one_round_trip(store: Store) -> None:
    predictions.stored_labels(store, set())  # connects
    statements: list[str] = []
    event.listen(store.engine, "before_cursor_execute", lambda *given: statements.append(given[2]))
    predictions.stored_labels(store, {UUID(int=1), UUID(int=2)})
    assert len(statements) == 1


CLOSE = [T0, T0 + timedelta(microseconds=1), datetime(1, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, tzinfo=UTC)]


def known_label(
    is_correction: bool, received_second: int, ordered_second: int | None = None
) -> predictions.StoredLabel:
    ordered_at = None if ordered_second is None else T0 + timedelta(seconds=ordered_second)
    return predictions.StoredLabel(1, is_correction, T0 + timedelta(seconds=received_second), ordered_at)


@pytest.mark.parametrize(
    ("winner", "loser"),
    [
        (known_label(False, 1), known_label(False, 2)),
        (known_label(True, 2), known_label(True, 1)),
        (known_label(True, 1), known_label(False, 2)),
        (known_label(True, 2), known_label(False, 1)),
        (known_label(True, 1, 4), known_label(True, 2, 3)),
        (known_label(True, 1, 3), known_label(True, 2)),
        (known_label(False, 2, 3), known_label(False, 1, 4)),
        (known_label(True, 2, 3), known_label(True, 1, 3)),
    ],
    ids=[
        "the first",
        "the last correction",
        "an early correction",
        "a late correction",
        "the last correction in order",
        "a correction of one that an earlier release took",
        "the first in order",
        "the one received last where the order is the same",
    ],
)
def test_of_two_labels_the_first_counts_unless_corrected(
    winner: predictions.StoredLabel, loser: predictions.StoredLabel
) -> None:
    assert winner.overrules(loser)
    assert not loser.overrules(winner)


labels_as_received = st.lists(
    st.builds(
        predictions.StoredLabel,
        st.just(1),
        st.booleans(),
        st.datetimes(timezones=st.just(UTC)) | st.sampled_from(CLOSE),
        st.none() | st.sampled_from(CLOSE),
    ),
    min_size=2,
    max_size=12,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(labels=labels_as_received)
def test_python_and_postgres_agree_on_which_label_counts(store: Store, labels: list[predictions.StoredLabel]) -> None:
    query = f"""
        WITH given AS (
            SELECT * FROM unnest(
                CAST(:corrections AS boolean[]), CAST(:times AS timestamptz[]), CAST(:orders AS timestamptz[])
            ) WITH ORDINALITY AS one (is_correction, received_at, ordered_at, place)
        )
        SELECT {predictions.LABEL_OVERRULES.format(new="new", old="old")} FROM given new CROSS JOIN given old
        ORDER BY new.place, old.place
    """
    values = {
        "corrections": [one.is_correction for one in labels],
        "times": [one.received_at for one in labels],
        "orders": [one.ordered_at for one in labels],
    }
    with store.engine.connect() as connection:
        in_sql = connection.execute(text(query), values).scalars().all()
    assert in_sql == [new.overrules(old) for new in labels for old in labels]


def test_a_tables_summary_is_its_count_and_span(store: Store, data_dir: Path) -> None:
    nothing = predictions.TableSummary(0, None, None)
    assert (predictions.summary_of_predictions(store), predictions.summary_of_labels(store)) == (nothing, nothing)
    sent = sent_each_second(store, data_dir, 300)
    received_at = T0 + timedelta(hours=1)
    journal_labels(data_dir, [*sent.prediction_ids[:3], new_id()], [1] * 4, received_at=received_at)
    copy(store, data_dir)
    expected = predictions.TableSummary(300, sent.created_at[0], sent.last_at)
    assert predictions.summary_of_predictions(store) == expected
    assert predictions.summary_of_labels(store) == predictions.TableSummary(4, received_at, received_at)
