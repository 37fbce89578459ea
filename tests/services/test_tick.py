"""What a tick looks at, and what it keeps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import numpy as np
import pytest

from selfheal.domain.monitoring.triage import triage
from selfheal.domain.records import ConceptDrift, Verdict
from selfheal.kit.errors import NoProductionModelError
from selfheal.services.platform import Platform, open_platform
from selfheal.services.promotion.going_live import promote
from selfheal.services.tick import collect, harm_limits, latest_tick, measure
from selfheal.settings import Settings, load_settings
from tests import builders
from tests.candidates import passed, twin_of_champion
from tests.services.steps import tick, whole_tick
from tests.times import T0
from tests.traffic import SECOND, ingest_all, journal_labels, serve, toy_rows

HOUR = timedelta(hours=1)
HARM_BY_LABELS = {"brier_excess": 0.02, "brier_excess_low": 0.012}
HARM_BY_ESTIMATE = {"estimated_auc_roc": 0.68, "estimate": builders.estimate(0.65, 0.71)}


def test_there_is_nothing_to_look_at_before_the_first_prediction(platform: Platform) -> None:
    assert collect(platform, T0) is None
    assert latest_tick(platform) is None


def test_nothing_can_be_looked_at_before_the_bootstrap(empty_platform: Platform) -> None:
    with pytest.raises(NoProductionModelError, match="run `selfheal bootstrap` first"):
        collect(empty_platform, T0)
    assert latest_tick(empty_platform) is None


@pytest.mark.parametrize("seen", [HARM_BY_LABELS, HARM_BY_ESTIMATE], ids=["labels", "estimate"])
def test_loosening_the_gates_leaves_triage_as_it_was(seen: dict[str, Any]) -> None:
    loosened = load_settings(min_auc=0.5, max_brier_degradation=1.0)
    verdicts = [
        triage(builders.drift_report(), builders.performance(**seen), harm_limits(settings), None).verdict
        for settings in (load_settings(), loosened)
    ]
    assert verdicts == [Verdict.HARMFUL_SHIFT, Verdict.HARMFUL_SHIFT]


@pytest.mark.parametrize(
    ("seen", "setting"),
    [(HARM_BY_LABELS, {"harm_min_brier_excess": 0.021}), (HARM_BY_ESTIMATE, {"harm_min_auc": 0.7})],
    ids=["labels", "estimate"],
)
def test_each_limit_of_harm_is_a_setting_of_its_own(seen: dict[str, Any], setting: dict[str, float]) -> None:
    limits = harm_limits(load_settings(**setting))
    assert triage(builders.drift_report(), builders.performance(**seen), limits, None).verdict is Verdict.STABLE


def test_by_default_harm_begins_where_the_gates_do_by_default() -> None:
    settings = load_settings()
    assert (settings.harm_min_auc, settings.harm_min_brier_excess) == (settings.min_auc, settings.max_brier_degradation)


def test_the_window_is_the_lookback_before_the_newest_prediction(make_settings: Callable[..., Settings]) -> None:
    platform = open_platform(make_settings(monitoring_lookback=2, monitoring_max_lookback=2))
    sent = serve(platform, toy_rows(5), step=HOUR, labelled_share=0)
    proxy = collect(platform, sent.last_at)
    assert proxy is not None
    assert (proxy.window.start, proxy.window.end) == (sent.created_at[2], sent.last_at)
    assert proxy.window.n_predictions == 2
    platform.close()


def test_slow_traffic_gets_a_window_that_reaches_back_until_it_has_enough_rows(
    make_settings: Callable[..., Settings],
) -> None:
    """48 predictions a day never had 200 rows in 24 h, so nothing was ever compared."""
    platform = open_platform(make_settings())
    sent = serve(platform, toy_rows(260), step=HOUR / 2, labelled_share=0)
    proxy = collect(platform, sent.last_at)
    assert proxy is not None
    window = proxy.window
    assert window.n_predictions == 200
    assert sent.created_at[59] < window.start < sent.created_at[60]
    assert (window.end, window.lookback_start) == (sent.last_at, sent.last_at - timedelta(hours=24))
    outcome = whole_tick(platform, sent.last_at)
    assert outcome.verdict is Verdict.STABLE
    assert outcome.reasons[-1] == ("the window reaches back 4 d 3 h: the look-back of 1 d has too few predictions")
    promote(platform, passed(platform, twin_of_champion(platform)), sent.last_at)
    assert collect(platform, sent.last_at) is None, "nothing from before the promotion"
    platform.close()


def test_a_window_reaches_back_no_further_than_its_bound(make_settings: Callable[..., Settings]) -> None:
    platform = open_platform(make_settings(monitoring_max_lookback=72))
    sent = serve(platform, toy_rows(260), step=HOUR / 2, labelled_share=0)
    proxy = collect(platform, sent.last_at)
    assert proxy is not None
    assert (proxy.window.length, proxy.window.n_predictions) == (timedelta(hours=72), 144)
    assert whole_tick(platform, sent.last_at).verdict is Verdict.INSUFFICIENT
    platform.close()


def test_realised_quality_is_that_of_the_labelled_rows(platform: Platform) -> None:
    sent = serve(platform, toy_rows(400), labelled_share=0.5)
    proxy = collect(platform, sent.last_at)
    assert proxy is not None
    unknown = measure(platform, proxy.window)
    assert unknown.realised is None
    assert "realised metrics, gates and probation are withheld" in unknown.withheld[0]
    declared = platform.settings.model_copy(update={"label_maturity_hours": 0.0})
    report = measure(replace(platform, settings=declared), proxy.window)
    assert report.realised is not None
    labels = sent.rows["true_label"].to_numpy()[:200]
    assert report.realised.n_rows == 200
    assert report.realised.brier == pytest.approx(np.mean((sent.probabilities[:200] - labels) ** 2), rel=1e-12)
    assert report.label_coverage_pct == 50.0


def test_rows_too_young_to_be_labelled_do_not_bias_the_realised_quality(platform: Platform) -> None:
    """Events are reported at once, their absence after ten minutes: what is labelled of the last ten minutes is all events."""
    sent = serve(platform, toy_rows(3_600), labelled_share=0)
    labels = sent.rows["true_label"].to_numpy(dtype=np.int64)
    reported_at = [at + (SECOND if label else 600 * SECOND) for at, label in zip(sent.created_at, labels, strict=True)]
    for minute in range(61):
        since, until = (T0 + m * 60 * SECOND for m in (minute - 1, minute))
        due = [i for i, at in enumerate(reported_at) if since < at <= until]
        ids, values = [sent.prediction_ids[i] for i in due], [int(labels[i]) for i in due]
        journal_labels(platform.settings.data_dir, ids, values, received_at=until)
    ingest_all(platform)
    proxy = collect(platform, sent.last_at)
    assert proxy is not None
    report = measure(platform, proxy.window)
    assert report.label_delay is not None
    assert report.label_delay.matured_after_s == pytest.approx(600, abs=90)
    assert report.is_matured
    assert report.matured_coverage_pct == 100.0
    assert report.realised is not None
    matured = labels[: report.realised.n_rows]
    assert 2_800 < report.realised.n_rows < 3_100
    assert report.realised.n_positive == matured.sum()
    assert report.concept_drift is ConceptDrift.NONE_SHOWN


def test_shifted_ticks_in_a_row_are_one_episode_and_a_stable_one_ends_it(platform: Platform) -> None:
    shifted = {"columns": (builders.column_drift("load_ratio", effect=0.3, is_drifted=True),)}
    episodes = []
    for hour, drift in enumerate((shifted, shifted, {}, shifted)):
        sent = serve(platform, toy_rows(10, seed=hour), start=T0 + SECOND + hour * HOUR, labelled_share=0)
        episodes.append(tick(platform, sent.last_at + SECOND, **drift).episode_id)
    first, second, none, third = episodes
    assert first == second is not None
    assert none is None
    assert third not in {None, first}


def test_the_latest_tick_is_what_the_sensors_read(platform: Platform) -> None:
    sent = serve(platform, toy_rows(10), labelled_share=0)
    columns = (builders.column_drift("load_ratio", effect=0.3, is_drifted=True),)
    concluded = tick(platform, sent.last_at + SECOND, columns=columns)
    found = latest_tick(platform)
    assert found is not None
    assert (found.tick_id, found.verdict, found.episode_id, found.num_drifted_features) == (
        concluded.window.tick_id,
        Verdict.BENIGN_SHIFT,
        concluded.window.tick_id,
        1,
    )


# Retraining
