"""Rules of label selection: what a plateau of labels shows, and when it shows nothing but who was chosen."""

from __future__ import annotations

from datetime import timedelta

import numpy as np
import pandas as pd
import pytest

from selfheal.domain.contract import TRUE_LABEL, FloatArray
from selfheal.domain.label import LabelPolicy
from selfheal.domain.monitoring.label_delay import AGE, DELAY, IS_REPLACED, SCORE, label_delay
from selfheal.domain.monitoring.label_selection import coverage_by_class, selection

N_ROWS = 5_000
DAY_S = 86_400.0


def scores_of(n_rows: int, seed: int) -> FloatArray:
    return np.random.default_rng(seed).beta(0.4, 5.3, n_rows)


def judged(
    coverage: tuple[float, float] = (1.0, 1.0),
    *,
    odds: float = 1.0,
    of_scores: tuple[float, float] = (0.0, 1.0),
    n_rows: int = N_ROWS,
    seed: int = 1,
    changed_share: float = 1.0,
) -> str:
    """Judge labels that come for shares of the classes 0 and 1, for scores within limits; the odds of newer rows may differ."""
    rng = np.random.default_rng(seed)
    scores = scores_of(n_rows, seed)
    ages = np.linspace(100.0, 1.0, n_rows)
    now = np.where(np.arange(n_rows) >= (1 - changed_share) * n_rows, odds, 1.0)
    outcomes = rng.random(n_rows) < now * scores / (1 - scores + now * scores)
    is_known = rng.random(n_rows) < np.where(outcomes, coverage[1], coverage[0])
    is_known &= (scores >= of_scores[0]) & (scores <= of_scores[1])
    return selection(scores, np.where(is_known, outcomes, np.nan), ages)


@pytest.mark.parametrize("share", [0.3, 0.8])
def test_a_random_share_of_labels_stands_for_all(share: float) -> None:
    assert sum(judged((share, share), seed=seed) != "" for seed in range(40)) <= 2


@pytest.mark.parametrize("n_rows", [400, 1_000, 5_000])
@pytest.mark.parametrize("coverage", [(0.4, 1.0), (0.3, 1.0), (1.0, 0.3)], ids=["W6", "W5", "good loans first"])
def test_labels_of_one_class_more_often_show_nothing(coverage: tuple[float, float], n_rows: int) -> None:
    found = judged(coverage, n_rows=n_rows)
    assert found.startswith("not identifiable")
    assert "of class 1 and" in found
    if n_rows == N_ROWS:
        assert "labels are not random" in found


@pytest.mark.parametrize("limits", [(0.0, 0.15), (0.15, 1.0)], ids=["approved only", "flagged only"])
def test_labels_on_one_side_of_a_threshold_show_nothing(limits: tuple[float, float]) -> None:
    assert "they come for" in judged(of_scores=limits)


def test_a_changed_world_is_seen_through_a_random_share_of_labels() -> None:
    assert judged((0.3, 0.3), odds=5.0) == "", "the slope that a choice of classes would need is excluded"
    assert judged((0.3, 0.3), odds=5.0, changed_share=0.1) == "", "labels agreed with the scores before"
    assert judged((0.3, 0.3), odds=1.5, changed_share=0.5) == ""


def test_what_could_be_either_from_the_first_label_on_is_withheld() -> None:
    assert "could be the reason" in judged((0.3, 0.3), odds=2.0, n_rows=600)


def test_coverage_is_counted_by_class() -> None:
    scores = scores_of(20_000, 3)
    outcomes = np.random.default_rng(3).random(20_000) < scores
    is_known = np.random.default_rng(4).random(20_000) < np.where(outcomes, 0.9, 0.4)
    found = coverage_by_class(scores, np.where(is_known, outcomes, np.nan))
    assert found.positive == pytest.approx(0.9, abs=0.05)
    assert found.negative == pytest.approx(0.4, abs=0.02)


# Over time


def late_good_loans(horizon_days: float, n_rows: int = 6_000) -> pd.DataFrame:
    """Defaults and 30 % of the good loans are known after 10 days, the others after 90."""
    rng = np.random.default_rng(5)
    scores, ages = scores_of(n_rows, 5), rng.uniform(0, horizon_days, n_rows) * DAY_S
    outcomes = rng.random(n_rows) < scores
    delay = np.where(outcomes | (rng.random(n_rows) < 0.3), 10.0, 90.0) * DAY_S
    has_come = delay <= ages
    return pd.DataFrame(
        {
            AGE: ages,
            DELAY: np.where(has_come, delay, np.nan),
            TRUE_LABEL: np.where(has_come, outcomes, np.nan),
            IS_REPLACED: False,
            SCORE: scores,
        }
    )


@pytest.mark.parametrize("days", [12, 21, 40, 85])
def test_a_plateau_of_early_labels_is_no_maturity(days: float) -> None:
    found = label_delay(late_good_loans(days))
    assert found.matured_after_s is None
    assert found.reason.startswith("not identifiable")


def test_once_nearly_all_have_a_label_the_age_is_known() -> None:
    found = label_delay(late_good_loans(100))
    assert found.matured_after_s == pytest.approx(90 * DAY_S)
    assert found.coverage is not None
    assert found.coverage.negative == pytest.approx(1.0, abs=0.05)
    assert set(found.matured_after_by_class_s) == {"0", "1"}


def test_a_declared_age_counts_once_predictions_have_reached_it() -> None:
    declared = timedelta(days=90)
    early = label_delay(late_good_loans(40), declared)
    assert early.matured_after_s is None
    assert "LABEL_MATURITY_HOURS" in early.reason
    assert label_delay(late_good_loans(120), declared).matured_after_s == 90 * DAY_S
    too_soon = label_delay(late_good_loans(40), timedelta(days=12))
    assert "labels are not random" in too_soon.reason, "what labels show outranks what somebody says of their age"


def test_a_policy_says_what_labels_cannot() -> None:
    random = late_good_loans(40).assign(**{DELAY: np.nan, TRUE_LABEL: np.nan})
    rng = np.random.default_rng(6)
    is_known = (rng.random(len(random)) < 0.5) & (random[AGE] > DAY_S)
    outcomes = rng.random(len(random)) < random[SCORE]
    half = random.assign(**{DELAY: np.where(is_known, DAY_S, np.nan), TRUE_LABEL: np.where(is_known, outcomes, np.nan)})
    assert label_delay(half).is_identifiable
    assert label_delay(half, policy=LabelPolicy("random")).is_identifiable
    for kind, words in (
        ("all", "most of an age"),
        ("approved_only", "below the threshold"),
        ("flagged_only", "at or above"),
    ):
        found = label_delay(half, policy=LabelPolicy(kind))  # type: ignore[arg-type]
        assert not found.is_identifiable
        assert words in found.reason
