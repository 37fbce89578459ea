"""Rules of the estimate: what CBPE expects, what the calibration mends, what its intervals hold, and where it does not know.

How often the intervals hold on real rows is measured by `benchmarks.estimation`.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from selfheal.domain.contract import TRUE_LABEL, FloatArray
from selfheal.domain.monitoring.estimation import (
    N_DRAWS,
    cbpe,
    estimate_performance,
    prediction_interval,
    simulate_metrics,
)
from selfheal.domain.monitoring.outcome_curve import UNCALIBRATED, Calibration
from selfheal.domain.monitoring.performance import score_metrics
from selfheal.domain.monitoring.prepared_rows import PreparedRows
from selfheal.domain.monitoring.relation import relation_p_value
from selfheal.domain.records import Estimate

THRESHOLD = 0.4
INPUTS = ["heat", "load"]
METRICS = ("f1", "precision", "recall", "auc_roc", "brier")


@pytest.fixture(scope="module")
def probabilities() -> FloatArray:
    return np.random.default_rng(1).beta(0.8, 3.0, size=2_000)


def drawn(probabilities: FloatArray, seed: int) -> npt.NDArray[np.int64]:
    """Labels for which the probabilities are true."""
    return (np.random.default_rng(seed).random(len(probabilities)) < probabilities).astype(np.int64)


def rows_of(n_rows: int, seed: int, *, heat: float = 0.0, boast: float = 1.0, hidden: float = 0.0) -> pd.DataFrame:
    """Rows of a world in which `load` and `heat` make failures, scored by a model that knows `load` alone.

    Args:
        heat: mean of the input that the model does not see.
        boast: factor of the model's log-odds; above 1 it is too sure of itself.
        hidden: weight of `heat` in the true log-odds.
    """
    rng = np.random.default_rng(seed)
    load, hot = rng.normal(size=n_rows), rng.normal(heat, size=n_rows)
    log_odds = -1.5 + 1.2 * load
    labels = rng.random(n_rows) < 1 / (1 + np.exp(-(log_odds + hidden * hot)))
    scores = 1 / (1 + np.exp(-boast * log_odds))
    return pd.DataFrame({"heat": hot, "load": load, "probability": scores, TRUE_LABEL: labels.astype(np.int64)})


def estimate_of(current: pd.DataFrame, reference: pd.DataFrame) -> Estimate:
    return estimate_performance(current, reference, INPUTS, THRESHOLD, seed=1)


# CBPE


def test_cbpe_expects_what_calibrated_scores_give_on_average(probabilities: FloatArray) -> None:
    estimate = cbpe(probabilities, THRESHOLD)
    runs = [score_metrics(drawn(probabilities, seed), probabilities, THRESHOLD) for seed in range(100)]
    for name in ("f1", "precision", "recall", "auc_roc", "brier"):
        realised = np.array([getattr(run, name) for run in runs])
        error = realised.std(ddof=1) / np.sqrt(len(runs))
        assert getattr(estimate, name) == pytest.approx(realised.mean(), abs=4 * error + 5e-4), name


def test_cbpe_expects_the_same_in_any_order_of_rows(probabilities: FloatArray) -> None:
    shuffled = np.random.default_rng(2).permutation(probabilities)
    assert cbpe(shuffled, THRESHOLD).auc_roc == pytest.approx(cbpe(probabilities, THRESHOLD).auc_roc)


def test_scores_that_tell_nothing_apart_have_an_expected_auc_of_one_half() -> None:
    assert cbpe(np.full(50, 0.3), THRESHOLD).auc_roc == pytest.approx(0.5)


def test_tied_scores_count_half_as_in_the_realised_auc() -> None:
    tied = np.repeat([0.1, 0.3, 0.8], 400)
    realised = [roc_auc_score(drawn(tied, seed), tied) for seed in range(40)]
    assert cbpe(tied, THRESHOLD).auc_roc == pytest.approx(np.mean(realised), abs=0.005)


@pytest.mark.parametrize("probabilities", [[0.3], [0.0, 0.0], [1.0, 1.0]], ids=["one row", "all 0", "all 1"])
def test_where_no_pair_can_be_compared_the_expected_auc_is_unknown(probabilities: list[float]) -> None:
    assert cbpe(np.array(probabilities), THRESHOLD).auc_roc is None


def test_certain_scores_have_an_expected_auc_of_one() -> None:
    estimate = cbpe(np.array([0.0, 0.0, 1.0]), 0.5)
    assert (estimate.auc_roc, estimate.f1, estimate.brier) == (1.0, 1.0, 0.0)


def test_the_model_s_scores_decide_and_rank_while_the_probabilities_count() -> None:
    estimate = cbpe(np.array([0.0, 1.0]), 0.5, scores=np.array([0.9, 0.1]))
    assert (estimate.f1, estimate.precision, estimate.recall, estimate.auc_roc) == (0.0, 0.0, 0.0, 0.0)
    assert estimate.brier == pytest.approx(0.81)


# Simulated labels


def test_a_draw_shows_what_its_labels_would_show() -> None:
    """Rows that are certain to the simulation give the metrics that sklearn gives their labels, ties and all."""
    scores = np.array([0.95, 0.9, 0.6, 0.6, 0.3, 0.2, 0.2, 0.05])
    steep = Calibration(knots=np.array([]), coefficients=np.array([0.0, 1_000.0]), covariance=np.zeros((2, 2)))
    draws = simulate_metrics(scores, steep, 0.25, seed=1)
    expected = score_metrics((scores > 0.5).astype(np.int64), scores, 0.25)
    for name in METRICS:
        assert np.ptp(draws[name]) == 0, name
        assert draws[name][0] == pytest.approx(getattr(expected, name), abs=1e-6), name


def test_the_draws_have_the_mean_and_spread_of_real_labels(probabilities: FloatArray) -> None:
    scores = probabilities[:300]
    draws = simulate_metrics(scores, UNCALIBRATED, THRESHOLD, seed=1)
    runs = [score_metrics(drawn(scores, seed), scores, THRESHOLD) for seed in range(120)]
    for name in METRICS:
        realised = np.array([getattr(run, name) for run in runs])
        spread = realised.std(ddof=1)
        assert draws[name].mean() == pytest.approx(realised.mean(), abs=4 * spread / np.sqrt(len(runs))), name
        assert draws[name].std() == pytest.approx(spread, rel=0.3), name  # 4.6 standard errors of a spread of 120 runs


def test_the_blocks_of_a_large_window_do_not_change_how_much_is_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    scores = np.random.default_rng(1).random(50)
    monkeypatch.setattr("selfheal.domain.monitoring.estimation.MAX_CELLS_PER_BLOCK", 7_000)
    draws = simulate_metrics(scores, UNCALIBRATED, THRESHOLD, seed=1)
    assert len(draws["brier"]) == N_DRAWS
    assert np.isfinite(draws["brier"]).all()
    assert draws["positive_rate"].mean() == pytest.approx(scores.mean(), abs=0.01)


# Intervals


def test_the_interval_is_the_middle_95_percent_of_smooth_draws() -> None:
    found = prediction_interval(np.arange(1_000.0))
    assert found is not None
    assert (found.low, found.high) == (25.0, 974.0)


@pytest.mark.parametrize(
    ("draws", "ends"),
    [
        pytest.param([0.5] * 10, (0.5, 0.5), id="a certain outcome"),
        pytest.param([0.0] * 970 + [1.0] * 30, (0.0, 0.0), id="a rare outcome is outside"),
        pytest.param([0.0] * 900 + [1.0] * 100, (0.0, 1.0), id="a less rare one is inside"),
    ],
)
def test_lumpy_draws_count_half_on_either_side(draws: list[float], ends: tuple[float, float]) -> None:
    found = prediction_interval(np.array(draws))
    assert found is not None
    assert (found.low, found.high) == ends


def test_draws_that_mostly_define_nothing_have_no_interval() -> None:
    assert prediction_interval(np.array([np.nan] * 6 + [0.3] * 4)) is None


@given(st.lists(st.floats(0, 1), min_size=1, max_size=50))
def test_the_interval_lies_within_the_draws(draws: list[float]) -> None:
    found = prediction_interval(np.array(draws))
    assert found is not None
    assert min(draws) <= found.low <= found.high <= max(draws)


def test_the_intervals_hold_what_labels_show_about_as_often_as_they_say() -> None:
    """60 windows x 5 metrics, correlated: a coverage of 95 % has a standard error of about 2 percentage points."""
    hits = []
    for seed in range(60):
        rows = rows_of(900, seed)
        current = rows.iloc[:300]
        found = estimate_of(current, rows.iloc[300:])
        shown = score_metrics(current[TRUE_LABEL].to_numpy(), current["probability"].to_numpy(), THRESHOLD)
        hits += [found.intervals[m].low - 1e-6 <= getattr(shown, m) <= found.intervals[m].high + 1e-6 for m in METRICS]
    assert 0.88 <= np.mean(hits) <= 0.995


def test_few_calibration_rows_widen_the_intervals() -> None:
    current = rows_of(2_000, seed=5)  # one whose inputs suggest no other base rate, which would widen them, too
    few, many = (estimate_of(current, rows_of(n, seed=2)).intervals["positive_rate"] for n in (300, 10_000))
    assert few.high - few.low > 1.5 * (many.high - many.low)


# Calibration


def test_scores_that_boast_are_calibrated() -> None:
    """A model that is too sure of itself announces a better AUC and Brier score than its labels show."""
    reference, current = rows_of(5_000, seed=1, boast=3.0), rows_of(5_000, seed=2, boast=3.0)
    scores = current["probability"].to_numpy()
    shown = score_metrics(current[TRUE_LABEL].to_numpy(), scores, THRESHOLD)
    believed, found = cbpe(scores, THRESHOLD), estimate_of(current, reference)
    assert believed.auc_roc is not None
    assert shown.auc_roc is not None
    assert abs(believed.auc_roc - shown.auc_roc) > 0.05
    assert found.values["auc_roc"] == pytest.approx(shown.auc_roc, abs=0.02)
    assert abs(believed.brier - shown.brier) > 0.05
    assert found.values["brier"] == pytest.approx(shown.brier, abs=0.01)
    assert found.is_calibrated


def test_the_calibration_moves_with_the_inputs() -> None:
    """The score does not know heat; in a hot window as many fail as in the reference's own hot rows."""
    reference, hot = rows_of(8_000, seed=1, hidden=1.0), rows_of(2_000, seed=2, hidden=1.0, heat=1.0)
    shown = hot[TRUE_LABEL].mean()
    found = estimate_of(hot, reference)
    assert found.values["positive_rate"] == pytest.approx(shown, abs=0.03)
    blind = estimate_performance(hot, reference, ["load"], THRESHOLD, seed=1)
    assert abs(blind.values["positive_rate"] - shown) > 0.1
    assert found.effective_calibration_rows is not None
    assert found.effective_calibration_rows < 0.7 * len(reference)


# Where it does not know


def test_rows_unlike_any_calibration_row_make_the_estimate_not_identifiable() -> None:
    found = estimate_of(rows_of(500, seed=2, heat=8.0), rows_of(2_000, seed=1))
    assert not found.is_identifiable
    assert found.values == {}
    assert found.intervals == {}
    assert found.uncovered_pct is not None
    assert found.uncovered_pct > 50
    assert found.reason.startswith("not identifiable")


def test_a_column_stuck_at_one_value_makes_the_estimate_not_identifiable() -> None:
    """Within the reference's range, so that no single row is odd; no reweighting turns a bell into a spike."""
    found = estimate_of(rows_of(500, seed=2).assign(heat=0.4), rows_of(2_000, seed=1))
    assert not found.is_identifiable
    assert "mix of inputs" in found.reason


def test_a_reference_without_outcomes_is_taken_at_its_word_and_says_so() -> None:
    current, reference = rows_of(500, seed=2), rows_of(2_000, seed=1).drop(columns=TRUE_LABEL)
    found = estimate_of(current, reference)
    assert found.is_identifiable
    assert not found.is_calibrated
    assert "not calibrated" in found.reason
    assert found.values["auc_roc"] == pytest.approx(cbpe(current["probability"].to_numpy(), THRESHOLD).auc_roc)


def test_too_few_events_calibrate_nothing() -> None:
    reference = rows_of(2_000, seed=1).assign(**{TRUE_LABEL: 0})
    reference.loc[:10, TRUE_LABEL] = 1
    assert not estimate_of(rows_of(500, seed=2), reference).is_calibrated


@pytest.mark.parametrize("score", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("n_rows", [1, 2, 50])
def test_windows_of_a_row_or_of_one_score_are_estimated_without_an_invented_number(n_rows: int, score: float) -> None:
    current = rows_of(n_rows, seed=2).assign(probability=score)
    found = estimate_of(current, rows_of(2_000, seed=1))
    for name, value in found.values.items():
        interval = found.intervals[name]
        assert np.isfinite([value, interval.low, interval.high]).all(), name
        assert 0 <= interval.low <= interval.high <= 1, name
    assert n_rows > 1 or "auc_roc" not in found.values


def test_a_model_that_always_says_the_same_is_calibrated_to_the_rate_of_events() -> None:
    reference, current = (rows_of(n, seed).assign(probability=0.9) for n, seed in ((3_000, 1), (1_000, 2)))
    found = estimate_of(current, reference)
    assert found.values["positive_rate"] == pytest.approx(reference[TRUE_LABEL].mean(), abs=0.02)
    assert found.values["auc_roc"] == pytest.approx(0.5)


def test_the_same_window_gives_the_same_estimate() -> None:
    current, reference = rows_of(300, seed=2), rows_of(1_000, seed=1)
    assert estimate_of(current, reference) == estimate_of(current, reference)


# Whether the relation holds


def test_the_p_value_is_uniform_while_the_relation_holds() -> None:
    """With no more rows in the reference than labelled: the calibration's own error is half of the difference."""
    found = np.array([relation_p_value(rows_of(800, seed), rows_of(800, 1_000 + seed), INPUTS) for seed in range(150)])
    assert 0.35 <= found.mean() <= 0.65  # 0.5 with a standard error of 0.03
    assert (found < 0.05).mean() <= 0.14
    assert (found < 0.001).sum() <= 2


def test_another_mix_of_inputs_is_no_change_of_the_relation() -> None:
    reference, hot = rows_of(6_000, seed=1, hidden=1.0), rows_of(1_000, seed=2, hidden=1.0, heat=0.7)
    p_value = relation_p_value(hot, reference, INPUTS)
    assert p_value is not None
    assert p_value > 0.001


def test_a_changed_relation_has_a_small_p_value() -> None:
    reference, rows = rows_of(3_000, seed=1), rows_of(800, seed=2)
    struck = np.random.default_rng(3).random(len(rows)) < 0.15
    p_value = relation_p_value(rows.assign(**{TRUE_LABEL: rows[TRUE_LABEL] | struck}), reference, INPUTS)
    assert p_value is not None
    assert p_value < 1e-6


@pytest.mark.parametrize(
    "labelled",
    [rows_of(0, seed=2), rows_of(8, seed=2), rows_of(500, seed=2, heat=8.0)],
    ids=["none", "few", "elsewhere"],
)
def test_where_the_labels_cannot_tell_there_is_no_p_value(labelled: pd.DataFrame) -> None:
    assert relation_p_value(labelled, rows_of(2_000, seed=1), INPUTS) is None


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 40), st.integers(0, 10_000))
def test_any_window_however_odd_is_estimated_or_refused(n_rows: int, seed: int) -> None:
    """Constant, missing and huge inputs, certain and tied scores: a number within bounds or a stated reason."""
    rng = np.random.default_rng(seed)
    odd = np.array([0.0, 1.0, 0.5, 1e-9, 1e9, np.nan])
    current = pd.DataFrame(
        {
            "heat": rng.choice(odd, n_rows),
            "load": rng.choice(odd, n_rows),
            "probability": rng.choice([0.0, 1.0, 0.5, 1e-9], n_rows),
        }
    )
    found = estimate_of(current, rows_of(400, seed=1))
    assert found.reason
    assert all(np.isfinite(v) for v in found.values.values())


# Rows of one entity


def recurring_window(seed: int) -> tuple[pd.DataFrame, npt.NDArray[np.int64]]:
    who = np.random.default_rng(seed).permutation(np.repeat(np.arange(200), 5))
    return rows_of(200, seed).iloc[who].reset_index(drop=True), who


def test_an_estimate_of_recurring_rows_covers_what_their_labels_show() -> None:
    reference = rows_of(4_000, 1)
    covered = {"entities": 0, "rows": 0}
    for seed in range(100, 220):
        current, who = recurring_window(seed)
        shown = score_metrics(current[TRUE_LABEL].to_numpy(), current["probability"].to_numpy(), THRESHOLD).f1
        for name, clusters in (("entities", who), ("rows", None)):
            interval = estimate_performance(current, reference, INPUTS, THRESHOLD, 3, clusters=clusters).intervals["f1"]
            covered[name] += interval.low <= shown <= interval.high
    assert covered["entities"] / 120 > 0.9
    assert covered["rows"] / 120 < 0.8


def test_no_concept_drift_is_shown_because_rows_recur() -> None:
    reference = rows_of(4_000, 1)
    p_values = {"entities": [], "rows": []}
    for seed in range(100, 220):
        current, who = recurring_window(seed)
        for name, clusters in (("entities", who), ("rows", None)):
            p_values[name].append(relation_p_value(current, reference, INPUTS, clusters))
    assert np.mean(np.array(p_values["entities"]) < 0.05) < 0.11
    assert np.mean(np.array(p_values["rows"]) < 0.001) > 0.05


def test_a_changed_relation_is_shown_among_recurring_rows_too() -> None:
    current, who = recurring_window(3)
    turned = current.assign(**{TRUE_LABEL: 1 - current[TRUE_LABEL]})
    found = relation_p_value(turned, rows_of(4_000, 1), INPUTS, who)
    assert found is not None
    assert found < 1e-6


def test_an_estimate_says_that_its_rows_recur() -> None:
    current, who = recurring_window(3)
    found = estimate_performance(current, rows_of(4_000, 1), INPUTS, THRESHOLD, 3, clusters=who)
    assert "the 1,000 rows are of 200 entities" in found.reason


def test_a_reference_recurs_as_much_if_some_of_its_outcomes_are_unknown() -> None:
    """Copies of a row without outcome must not let the others count as independent."""
    reference, who = recurring_window(1)
    lacking = reference.assign(**{TRUE_LABEL: np.where(who < 2, np.nan, reference[TRUE_LABEL])})
    is_known = who >= 2
    current = rows_of(1_000, 3)
    partly = relation_p_value(current, PreparedRows(lacking, who), INPUTS)
    known = reference[is_known].reset_index(drop=True)
    assert partly == relation_p_value(current, PreparedRows(known, who[is_known]), INPUTS)
    assert partly != relation_p_value(current, known, INPUTS)
