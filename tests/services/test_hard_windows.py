"""Windows that are hardly windows: each gives a clear verdict or none, one row a tick, and never a false `stable`."""

from __future__ import annotations

import multiprocessing
import os
import signal
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import pytest

from selfheal.adapters.postgres import alerts, model_versions, ticks
from selfheal.adapters.postgres import predictions as store_predictions
from selfheal.adapters.postgres import spoiled_periods as spoiled
from selfheal.adapters.postgres.spoiled_periods import spoiled_periods
from selfheal.domain.monitoring.feed import MIN_ROWS
from selfheal.domain.records import Trigger, Verdict
from selfheal.services.platform import Platform
from selfheal.services.retraining_signals import retraining_signals
from selfheal.services.tick import collect, compare, conclude, last_feed_check, latest_tick, measure
from tests.services.steps import tick, whole_tick
from tests.times import T0
from tests.traffic import serve, toy_rows

HOUR = timedelta(hours=1)
N_ROWS = 600
LONGEST_WINDOW = timedelta(days=30)
"""MONITORING_MAX_LOOKBACK as shipped: what is older is in no window."""


def verdicts(platform: Platform) -> list[str]:
    """Of the ticks that are kept, the newest first."""
    return [row.verdict for row in ticks.recent_ticks(platform.store, 100)]


def reference_with(platform: Platform, monkeypatch: pytest.MonkeyPatch, **columns: object) -> None:
    """The champion's reference, but these columns hold the same in each row; None: the column is not there."""
    changed = platform.registry.reference(model_versions.champion(platform.store))
    for name, value in columns.items():
        changed = changed.drop(columns=name) if value is None else changed.assign(**{name: value})
    monkeypatch.setattr(type(platform.registry), "reference", lambda _self, _model: changed)


def test_a_window_whose_rows_are_gone_is_insufficient(platform: Platform) -> None:
    sent = serve(platform, toy_rows(N_ROWS))
    proxy = collect(platform, sent.last_at)
    assert proxy is not None
    emptied = replace(proxy.window, start=T0 - 9 * HOUR, end=T0 - 8 * HOUR, n_predictions=0, n_labels=0)
    outcome, _ = conclude(
        platform,
        store_predictions.proxy_metrics(platform.store, emptied),
        compare(platform, emptied),
        measure(platform, emptied),
        sent.last_at,
    )
    assert outcome.verdict is Verdict.INSUFFICIENT
    assert verdicts(platform) == ["insufficient"]


def test_one_row_is_insufficient(platform: Platform) -> None:
    sent = serve(platform, toy_rows(1))
    outcome = whole_tick(platform, sent.last_at)
    assert outcome.verdict is Verdict.INSUFFICIENT
    assert outcome.reasons == ("only 1 predictions to compare",)
    assert whole_tick(platform, sent.last_at + HOUR).verdict is Verdict.INSUFFICIENT
    assert verdicts(platform) == ["insufficient"], "looked at twice, kept once"


def test_a_column_that_is_always_missing_is_a_broken_feed(platform: Platform) -> None:
    sent = serve(platform, toy_rows(N_ROWS).assign(temperature_c=np.nan))
    outcome = whole_tick(platform, sent.last_at)
    assert outcome.verdict is Verdict.BROKEN_FEED
    assert any("temperature_c: 100 % missing" in reason for reason in outcome.reasons)
    assert verdicts(platform) == ["broken_feed"]


@pytest.mark.parametrize(
    ("value", "seen", "expected"),
    [(1.0, 1.0, {"stable"}), (1.0, None, {"benign_shift"}), (np.nan, None, {"benign_shift"})],
    ids=["constant still", "constant then", "never known then"],
)
def test_a_reference_column_without_spread_is_compared_all_the_same(
    platform: Platform, monkeypatch: pytest.MonkeyPatch, value: float, seen: float | None, expected: set[str]
) -> None:
    reference_with(platform, monkeypatch, restarts=value)
    rows = toy_rows(N_ROWS) if seen is None else toy_rows(N_ROWS).assign(restarts=seen)
    sent = serve(platform, rows, labelled_share=0)
    outcome = whole_tick(platform, sent.last_at)
    assert outcome.verdict.value in expected, outcome.reasons
    assert (outcome.verdict is Verdict.STABLE) == (seen is not None)
    assert len(verdicts(platform)) == 1


def test_a_feature_that_the_champion_s_reference_lacks_is_told_and_never_stable(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    reference_with(platform, monkeypatch, restarts=None)
    sent = serve(platform, toy_rows(N_ROWS), labelled_share=0)
    outcome = whole_tick(platform, sent.last_at)
    assert outcome.verdict is Verdict.BENIGN_SHIFT
    assert any("restarts missing in 0 % (reference 100 %)" in reason for reason in outcome.reasons), outcome.reasons
    assert verdicts(platform) == ["benign_shift"]


def test_rows_from_before_the_clock_was_set_back_do_not_hide_the_new_ones(platform: Platform) -> None:
    serve(platform, toy_rows(N_ROWS), start=T0 + 50 * HOUR)
    broken = serve(platform, toy_rows(N_ROWS, 2).assign(temperature_c=np.nan), start=T0 + 10 * HOUR)
    proxy = collect(platform, broken.last_at)
    assert proxy is not None
    assert (proxy.window.end, proxy.window.n_predictions) == (broken.last_at, N_ROWS)
    assert whole_tick(platform, broken.last_at).verdict is Verdict.BROKEN_FEED


def test_a_tick_after_the_clock_was_set_back_is_the_latest(platform: Platform) -> None:
    sound = serve(platform, toy_rows(N_ROWS))
    tick(platform, sound.last_at + 9 * HOUR)
    broken = serve(platform, toy_rows(N_ROWS, 2), start=sound.last_at + HOUR)
    tick(platform, broken.last_at, feed_problems=("load_ratio: always 1",), feed_checked_since=sound.last_at)
    newest = latest_tick(platform)
    assert newest is not None
    assert newest.verdict is Verdict.BROKEN_FEED
    assert verdicts(platform) == ["broken_feed", "stable"]


def test_before_the_champion_went_live_by_a_clock_set_back_there_is_nothing_to_look_at(platform: Platform) -> None:
    sent = serve(platform, toy_rows(N_ROWS), start=T0 - 9 * HOUR)
    assert collect(platform, sent.last_at) is None
    assert latest_tick(platform) is None


@pytest.mark.parametrize("step", ["record_spoiled_period", "record_tick", "sync_alerts"])
def test_a_tick_that_is_killed_half_way_is_taken_again_and_kept_once(platform: Platform, step: str) -> None:
    sent = serve(platform, toy_rows(N_ROWS))
    problem = {"feed_problems": ("load_ratio: always 1",), "feed_checked_since": sent.created_at[100]}
    killed = multiprocessing.get_context("fork").Process(
        target=tick_and_die_after, args=(platform, step, sent.last_at, problem)
    )
    killed.start()
    killed.join(30)
    assert killed.exitcode == -signal.SIGKILL
    assert verdicts(platform) == ([] if step == "record_spoiled_period" else ["broken_feed"])
    assert tick(platform, sent.last_at, **problem).verdict is Verdict.BROKEN_FEED
    assert verdicts(platform) == ["broken_feed"]
    assert [alert.kind for alert in alerts.list_alerts(platform.store)] == ["broken_feed"]
    assert [period.ended_at for period in spoiled_periods(platform.store, 1).values()] == [sent.last_at]


def tick_and_die_after(platform: Platform, step: str, now: datetime, drift: dict[str, Any]) -> None:
    """In a process of its own: the tick is killed as soon as this step of `conclude` is done."""
    platform.store.engine.dispose(close=False)  # the connections are the parent's
    module = {"record_spoiled_period": spoiled, "record_tick": ticks, "sync_alerts": alerts}[step]
    real = getattr(module, step)

    def last(*args: Any, **kwargs: Any) -> None:
        real(*args, **kwargs)
        os.kill(os.getpid(), signal.SIGKILL)

    setattr(module, step, last)
    tick(platform, now, **drift)


def test_what_came_before_a_first_look_that_finds_the_feed_broken_is_not_learned_from(platform: Platform) -> None:
    few = serve(platform, toy_rows(MIN_ROWS - 1))
    assert tick(platform, few.last_at, is_sufficient=False).verdict is Verdict.INSUFFICIENT
    broken = serve(platform, toy_rows(N_ROWS, 2), start=few.last_at + HOUR)
    tick(platform, broken.last_at, feed_problems=("load_ratio: always 1",), feed_checked_since=broken.created_at[100])
    assert store_predictions.labelled_rows(platform.store, max_rows=10_000, sound_only=True).empty


def test_a_tick_with_too_few_rows_to_tell_does_not_end_a_broken_feed(platform: Platform) -> None:
    broken = serve(platform, toy_rows(N_ROWS))
    problem = {"feed_problems": ("load_ratio: always 1",)}
    tick(platform, broken.last_at, feed_checked_since=broken.created_at[100], **problem)
    few = serve(platform, toy_rows(MIN_ROWS - 1, 2), start=broken.last_at + LONGEST_WINDOW + HOUR)
    tick(platform, few.last_at, is_sufficient=False)
    look_before = last_feed_check(platform, 1)
    assert look_before is not None
    assert (look_before.is_broken, look_before.until) == (True, broken.last_at)
    assert retraining_signals(platform, Trigger.MANUAL, None).is_feed_broken
    sound = serve(platform, toy_rows(N_ROWS, 3), start=few.last_at + 30 * HOUR)
    tick(platform, sound.last_at, feed_checked_since=sound.created_at[0])
    learned = store_predictions.labelled_rows(platform.store, max_rows=10_000, sound_only=True)
    assert learned["created_at"].min() > sound.created_at[0], "the few rows in between nobody has seen to be sound"
