"""Ticks: each is one row, whatever is repeated, and the queries over them."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

from selfheal.adapters.journal import prediction_journal
from selfheal.adapters.postgres import alerts as alert_queries
from selfheal.adapters.postgres import ticks
from selfheal.adapters.postgres.ingest import ingest
from selfheal.adapters.postgres.store import Store
from selfheal.domain.records import Alert, ProxyMetrics, ScoreMetrics, Severity, Triage, Verdict, Window
from tests import builders
from tests.times import T0
from tests.toy_use_case import contract
from tests.traffic import journal_predictions, toy_rows

MINUTE = timedelta(minutes=1)


def record(store: Store, seen: Window, realised: ScoreMetrics | None = None) -> bool:
    columns = (
        builders.column_drift("load_ratio", effect=0.2, is_drifted=True),
        builders.column_drift("temperature_c", effect=0.6, is_drifted=True),
        builders.column_drift("restarts"),
        builders.column_drift("probability", effect=0.4, is_drifted=True),
    )
    return ticks.record_tick(
        store,
        ProxyMetrics(seen, 0.2, 0.3, 0.1, 0.9),
        builders.drift_report(window=seen, columns=columns, feature_drift_ratio=0.5),
        builders.performance(window=seen, realised=realised, estimated_f1=0.61, estimated_auc_roc=None),
        Triage(seen, Verdict.HARMFUL_SHIFT, ("losing", "drifted"), (), "e1"),
        T0 + 61 * MINUTE,
    )


def test_the_same_traffic_is_recorded_once(store: Store) -> None:
    assert record(store, builders.window())
    assert not record(store, builders.window())
    assert record(store, builders.window(n_predictions=1_001))
    assert len(ticks.recent_ticks(store, 10)) == 2


def test_a_tick_says_what_was_seen(store: Store) -> None:
    record(store, builders.window(), realised=builders.score(f1=0.59))
    row = ticks.latest_tick(store)
    assert row is not None
    assert row.drifted_features == ["temperature_c", "load_ratio"]
    assert row.num_drifted_features == 2
    assert row.verdict == "harmful_shift"
    assert row.reasons == ["losing", "drifted"]
    assert row.realised["f1"] == 0.59
    assert row.estimated == {"f1": 0.61, "auc_roc": None, "brier": 0.12}
    assert (row.window_start, row.window_end) == (T0, T0 + 60 * MINUTE)


def test_realised_quality_that_is_unknown_is_null(store: Store) -> None:
    record(store, builders.window(), realised=None)
    row = ticks.latest_tick(store)
    assert row is not None
    assert row.realised is None


def test_the_latest_tick_is_that_of_the_version_asked_for(store: Store) -> None:
    record(store, builders.window(model_version=1))
    record(store, builders.window(model_version=2))
    found = ticks.latest_tick(store, 1)
    assert found is not None
    assert found.model_version == 1
    assert ticks.latest_tick(store, 3) is None


def test_what_waits_for_a_tick_is_what_came_after_the_newest_tick_of_the_same_version(
    store: Store, data_dir: Path
) -> None:
    assert ticks.unseen_since(store, 1) is None, "nothing was predicted"
    probabilities = toy_rows(60)["load_ratio"].to_numpy() / 2
    sent = [
        journal_predictions(data_dir, contract, toy_rows(60), probabilities, start=T0 + MINUTE, model_version=version)
        for version in (1, 2)
    ]
    ingest(store, prediction_journal(contract), data_dir)
    assert ticks.unseen_since(store, 1) == sent[0].created_at[0], "there was no tick yet"
    record(store, builders.window(end=sent[0].created_at[9]))
    assert ticks.unseen_since(store, 1) == sent[0].created_at[10]
    assert ticks.unseen_since(store, 2) == sent[1].created_at[0], "another version's tick has seen nothing of it"
    record(store, builders.window(end=sent[0].last_at))
    assert ticks.unseen_since(store, 1) is None


def test_the_reports_of_open_episodes_are_the_first_and_the_latest_of_each(store: Store) -> None:
    def look(minute: int, episode_id: str | None, report: str | None) -> None:
        seen = builders.window(end=T0 + minute * MINUTE)
        ticks.record_tick(
            store,
            ProxyMetrics(seen, 0.2, 0.3, 0.1, 0.9),
            builders.drift_report(window=seen, report_ref=report),
            builders.performance(window=seen),
            Triage(seen, Verdict.BENIGN_SHIFT, ("drifted",), (), episode_id),
            T0 + minute * MINUTE,
        )

    for minute, (episode_id, report) in enumerate(
        [
            ("old", "r0"),
            ("e1", "r1"),
            ("e1", None),
            (None, "r2"),
            ("e2", "r3"),
            ("e2", "r4"),
            ("e2", "r5"),
            ("e2", None),
        ]
    ):
        look(minute, episode_id, report)
    assert set(ticks.reports_of_open_episodes(store)) == {"r3", "r5"}
    drifted = Alert("harmful_shift", Severity.CRITICAL, "losing")
    alert_queries.sync_alerts(
        store, Triage(builders.window(), Verdict.HARMFUL_SHIFT, ("losing",), (drifted,), "e1"), T0
    )
    assert set(ticks.reports_of_open_episodes(store)) == {"r1", "r3", "r5"}, "an alert of e1 is open"
