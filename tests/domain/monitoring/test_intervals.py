"""Rules of confidence intervals: published values, what they do with few rows, and that they hold as often as they say."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from selfheal.domain.contract import FloatArray
from selfheal.domain.monitoring.intervals import (
    MIN_DELONG_ROWS,
    _newcombe,
    auc_interval,
    f1_interval,
    mean_interval,
    metric_intervals,
    wilson,
)
from selfheal.domain.monitoring.performance import score_metrics
from selfheal.domain.records import Interval

IntArray = npt.NDArray[np.int64]


def ends(interval: Interval | None) -> tuple[float, float]:
    assert interval is not None
    return interval.low, interval.high


@pytest.mark.parametrize(
    ("n_successes", "n", "expected"),
    [(81, 263, (0.2553, 0.3662)), (15, 148, (0.0624, 0.1605)), (0, 20, (0.0, 0.1611)), (1, 29, (0.0061, 0.1718))],
)
def test_wilson_s_interval_is_that_of_newcombe_s_tables(
    n_successes: int, n: int, expected: tuple[float, float]
) -> None:
    """Newcombe (1998), Statistics in Medicine 17, table I, method 3."""
    assert ends(wilson(n_successes, n)) == pytest.approx(expected, abs=6e-5)


@pytest.mark.parametrize(
    ("n_successes", "n", "low", "high"),
    [
        (15, 148, 0.06238639953073628, 0.160487241723308),
        (0, 10, 0.0, 0.27753279986288915),
        (10, 10, 0.7224672001371109, 1.0),
        (1, 20_000, 8.826282272974871e-06, 0.0002831905702260401),
        (200, 1_000_000, 0.00017413828033419635, 0.0002297016271521231),
    ],
)
def test_wilson_s_interval_is_what_older_decisions_recorded(n_successes: int, n: int, low: float, high: float) -> None:
    """By the formula of release 0.1, written out: a verdict that is computed again must not differ from the recorded one."""
    assert ends(wilson(n_successes, n)) == pytest.approx((low, high), abs=1e-12)


NEWCOMBE = [
    (0.0, 1, 1, 0.0, 0.7934506856227017),
    (0.0, 5, 400, 0.0, 0.19170972475239978),
    (1.0, 1, 1, 0.2065493143772983, 1.0),
    (1.0, 13, 180, 0.9186982349629034, 1.0),
    (1.0, 300, 20000, 0.9967452895070892, 1.0),
    (0.5, 1, 1, 0.0546207555289584, 0.9453792444710416),
    (0.5, 8, 120, 0.31102850888009925, 0.6889714911199007),
    (0.76, 8, 120, 0.5540749442523156, 0.8836026586459049),
    (0.999, 49, 5000, 0.9780646133086213, 0.9999540307598418),
    (1e-05, 30, 10000, 3.1119112372834938e-09, 0.03253337411335598),
    (0.83, 12, 12, 0.5999156274769483, 0.9357872752679577),
]


@pytest.mark.parametrize(("auc", "n_positive", "n_negative", "low", "high"), NEWCOMBE)
def test_newcombe_s_interval_is_what_older_decisions_recorded(
    auc: float, n_positive: int, n_negative: int, low: float, high: float
) -> None:
    """By bisection, as release 0.1 did."""
    assert ends(_newcombe(auc, n_positive, n_negative)) == pytest.approx((low, high), abs=1e-12)


def test_a_proportion_of_nothing_has_no_interval() -> None:
    assert wilson(0, 0) is None
    assert f1_interval(0, 0, 0) is None


@given(st.integers(0, 60), st.integers(0, 60), st.integers(0, 60))
def test_the_interval_of_f1_holds_its_own_value_and_stays_a_share(tp: int, fp: int, fn: int) -> None:
    found = f1_interval(tp, fp, fn)
    if tp + fp + fn == 0:
        assert found is None
        return
    low, high = ends(found)
    assert 0 <= low <= 2 * tp / (2 * tp + fp + fn) <= high <= 1


def bells(n_positive: int, n_negative: int, seed: int, distance: float = 1.0) -> tuple[IntArray, FloatArray]:
    rng = np.random.default_rng(seed)
    labels = np.repeat([1, 0], [n_positive, n_negative]).astype(np.int64)
    return labels, rng.normal(distance * labels)


@pytest.mark.parametrize("n_positive", [MIN_DELONG_ROWS - 1, MIN_DELONG_ROWS])
def test_both_intervals_of_the_auc_agree_where_one_takes_over_from_the_other(n_positive: int) -> None:
    labels, scores = bells(n_positive, 400, seed=3)
    low, high = ends(auc_interval(labels, scores))
    auc = roc_auc_score(labels, scores)
    assert low < auc < high
    assert high - low == pytest.approx(0.155, abs=0.03)


@pytest.mark.parametrize("n_rows", [1, 5, 100])
def test_a_perfect_separation_is_not_certain(n_rows: int) -> None:
    labels = np.repeat([1, 0], n_rows).astype(np.int64)
    low, high = ends(auc_interval(labels, labels.astype(np.float64)))
    assert high == 1.0
    assert low < 1.0 - 0.5 / (n_rows + 1)


def test_a_single_class_has_no_auc() -> None:
    assert auc_interval(np.ones(10, dtype=np.int64), np.linspace(0, 1, 10)) is None


def test_scores_that_are_all_the_same_tell_nothing_apart() -> None:
    labels = np.repeat([1, 0], 60).astype(np.int64)
    assert ends(auc_interval(labels, np.full(120, 0.4))) == (0.5, 0.5)


@pytest.mark.parametrize(("n_positive", "n_negative"), [(8, 120), (80, 400)], ids=["newcombe", "delong"])
def test_the_interval_of_the_auc_holds_as_often_as_it_says(n_positive: int, n_negative: int) -> None:
    truth = 0.7602499389065234  # of bells one standard deviation apart: the normal distribution at 1 / sqrt 2
    found = [ends(auc_interval(*bells(n_positive, n_negative, seed))) for seed in range(400)]
    coverage = np.mean([low <= truth <= high for low, high in found])
    assert 0.91 <= coverage <= 0.985  # 95 % with a standard error of 1.1 points


def test_the_interval_of_a_skewed_mean_holds_where_the_normal_one_does_not() -> None:
    """Squared errors with few events: most rows near 0, one in fifteen near 1."""
    rng = np.random.default_rng(7)
    truth = 0.07 * 0.7 + 0.93 * 0.01
    hits, normal_hits = [], []
    for _ in range(600):
        values = np.where(rng.random(80) < 0.07, 0.7, 0.01)
        low, high = ends(mean_interval(values)) if values.std() else (values[0], values[0])
        hits.append(low <= truth <= high)
        normal_hits.append(abs(values.mean() - truth) <= 1.96 * values.std(ddof=1) / np.sqrt(80))
    assert np.mean(hits) >= 0.92
    assert np.mean(hits) > np.mean(normal_hits)


def test_a_mean_without_spread_or_rows_is_no_accident() -> None:
    assert ends(mean_interval(np.full(10, 0.25))) == (0.25, 0.25)
    assert mean_interval(np.array([0.25])) is None


def test_symmetric_values_have_the_usual_interval() -> None:
    values = np.tile([0.4, 0.6], 200)
    low, high = ends(mean_interval(values))
    assert (low, high) == pytest.approx((0.5 - 0.1 * 1.96 / 20, 0.5 + 0.1 * 1.96 / 20), abs=1e-5)


@given(st.lists(st.tuples(st.integers(0, 1), st.sampled_from([0.0, 0.1, 0.5, 0.9, 1.0])), min_size=2, max_size=60))
def test_each_interval_is_within_the_metric_s_range_and_about_its_value(rows: list[tuple[int, float]]) -> None:
    labels = np.array([label for label, _ in rows], dtype=np.int64)
    scores = np.array([score for _, score in rows])
    metrics = score_metrics(labels, scores, 0.5)
    for name, interval in metric_intervals(labels, scores, 0.5).items():
        value = getattr(metrics, name)
        assert 0 <= interval.low <= value + 1e-9, name
        assert value - 1e-9 <= interval.high <= 1, name


# Rows of one entity


def recurring(seed: int, times: int, n_entities: int) -> tuple[IntArray, FloatArray, IntArray]:
    rng = np.random.default_rng(seed)
    scores = rng.beta(1.0, 3.0, n_entities)
    labels = (rng.random(n_entities) < scores).astype(np.int64)
    who = np.repeat(np.arange(n_entities), times)
    return labels[who], scores[who], who


def test_intervals_of_recurring_rows_cover_as_often_as_they_say() -> None:
    rng = np.random.default_rng(9)
    everyone = rng.beta(1.0, 3.0, 400_000)
    truth = score_metrics((rng.random(400_000) < everyone).astype(np.int64), everyone, 0.4)
    covered: dict[str, list[bool]] = {}
    for seed in range(300):
        labels, scores, who = recurring(seed, 5, 200)
        for name, interval in metric_intervals(labels, scores, 0.4, who).items():
            covered.setdefault(name, []).append(interval.low <= getattr(truth, name) <= interval.high)
    shares = {name: float(np.mean(hits)) for name, hits in covered.items()}
    assert shares.keys() == {"f1", "precision", "recall", "auc_roc", "brier"}
    assert min(shares.values()) > 0.91, shares
    assert max(shares.values()) < 0.985, shares


def test_intervals_of_entities_with_one_row_each_are_nearly_those_of_rows() -> None:
    labels, scores, who = recurring(1, 1, 1_000)
    by_rows, by_entity = metric_intervals(labels, scores, 0.4), metric_intervals(labels, scores, 0.4, who)
    for name, interval in by_rows.items():
        assert ends(by_entity[name]) == pytest.approx(ends(interval), abs=0.01)


def test_a_metric_without_a_trial_has_no_interval_among_entities_either() -> None:
    labels, scores, who = recurring(1, 5, 40)
    found = metric_intervals(np.zeros_like(labels), scores, 2.0, who)
    assert found.keys() == {"brier"}
