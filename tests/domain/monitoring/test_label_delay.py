"""Rules of maturity: the curve of labels by age, when it can tell an age of maturity, and which rows are then counted."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest

from selfheal.domain.contract import TRUE_LABEL, FloatArray
from selfheal.domain.monitoring.label_delay import (
    AGE,
    DELAY,
    IS_REPLACED,
    MIN_LABELS_PER_CLASS,
    MIN_OLDEST_ROWS,
    SCORE,
    delay_curve,
    label_delay,
    matured_period,
    observed_until,
)
from selfheal.domain.records import LabelDelay
from tests.builders import window
from tests.times import T0

HOUR_S = 3_600.0


def sample_of(
    ages_s: FloatArray, delays_s: FloatArray, labels: npt.NDArray[np.int64], scores: FloatArray | None = None
) -> pd.DataFrame:
    """Rows as they are seen: a label that takes longer than the row is old has not come."""
    has_come = delays_s <= ages_s
    return pd.DataFrame(
        {
            AGE: ages_s,
            DELAY: np.where(has_come, delays_s, np.nan),
            TRUE_LABEL: np.where(has_come, labels, np.nan),
            IS_REPLACED: False,
            SCORE: labels.mean() if scores is None else scores,
        }
    )


def traffic(
    n_rows: int = 4_000, hours: float = 24.0, delay_h: tuple[float, float] = (2.0, 2.0), labelled_share: float = 1.0
) -> pd.DataFrame:
    """Rows spread over `hours`, a fifth of them of class 1; labels of class 0 and 1 take up to `delay_h` each."""
    rng = np.random.default_rng(1)
    scores = rng.beta(0.6, 2.4, n_rows)
    labels = (rng.random(n_rows) < scores).astype(np.int64)
    delays_s = rng.uniform(0.0, np.where(labels == 1, delay_h[1], delay_h[0])) * HOUR_S
    delays_s[rng.random(n_rows) >= labelled_share] = np.inf
    return sample_of(rng.uniform(0, hours, n_rows) * HOUR_S, delays_s, labels, scores)


# The curve


def test_with_one_class_the_curve_is_one_minus_kaplan_and_meier_s() -> None:
    """Six rows: labels at 1, 2 and 4, the others seen for 2, 3 and 5. By hand: 1/6, then 1/5 of the rest, then 1/2 of it."""
    sample = pd.DataFrame(
        {
            AGE: [9.0, 9.0, 9.0, 2.0, 3.0, 5.0],
            DELAY: [1.0, 2.0, 4.0, np.nan, np.nan, np.nan],
            TRUE_LABEL: [0.0, 0.0, 0.0, np.nan, np.nan, np.nan],
        }
    )
    curve = delay_curve(sample)
    assert curve.ages_s.tolist() == [1.0, 2.0, 3.0, 4.0, 5.0]
    after_two = 1 / 6 + 5 / 6 / 5
    after_four = after_two + (1 - after_two) / 2
    assert curve.shares[:, 0] == pytest.approx([1 / 6, after_two, after_two, after_four, after_four])
    assert curve.shares[:, 1].tolist() == [0.0] * 5


def test_rows_too_young_to_be_labelled_do_not_lower_the_curve() -> None:
    """All labels come within two hours; half of the rows have been seen for less than one."""
    rng = np.random.default_rng(2)
    ages_s = np.concatenate([rng.uniform(0, 1, 2_000), rng.uniform(0, 24, 2_000)]) * HOUR_S
    delays_s = rng.uniform(0, 2, 4_000) * HOUR_S
    curve = delay_curve(sample_of(ages_s, delays_s, np.zeros(4_000, dtype=np.int64)))
    assert np.interp(HOUR_S, curve.ages_s, curve.shares[:, 0]) == pytest.approx(0.5, abs=0.04)
    assert curve.shares[-1, 0] == pytest.approx(1.0)


def test_the_classes_share_what_is_labelled() -> None:
    curve = delay_curve(traffic(labelled_share=0.4))
    assert curve.shares[-1].sum() == pytest.approx(0.4, abs=0.03)
    assert curve.shares[-1, 1] == pytest.approx(0.08, abs=0.02)


def test_a_clock_that_went_backwards_gives_a_label_at_once() -> None:
    sample = pd.DataFrame({AGE: [5.0, 5.0], DELAY: [-3.0, 1.0], TRUE_LABEL: [0.0, 1.0]})
    assert delay_curve(sample).ages_s.tolist() == [0.0, 1.0]


# The age of maturity


def test_a_row_is_matured_when_nearly_all_labels_have_had_the_time_to_come() -> None:
    delay = label_delay(traffic())
    assert delay.matured_after_s == pytest.approx(0.95 * 2 * HOUR_S, rel=0.05)
    assert delay.quantiles_s["0.5"] == pytest.approx(HOUR_S, rel=0.1)
    assert delay.expected_coverage_pct == pytest.approx(100.0, abs=1.0)
    assert delay.is_identifiable


@pytest.mark.parametrize("delay_h", [(2.0, 10.0), (10.0, 2.0)], ids=["class 1 is slow", "class 0 is slow"])
def test_the_slower_class_decides(delay_h: tuple[float, float]) -> None:
    """With all labels thrown together, the common class alone would make rows look matured while the rare one is missing."""
    assert label_delay(traffic(delay_h=delay_h)).matured_after_s == pytest.approx(0.95 * 10 * HOUR_S, rel=0.1)


def test_rows_that_are_never_labelled_do_not_keep_the_others_from_maturing() -> None:
    delay = label_delay(traffic(labelled_share=0.3))
    assert delay.matured_after_s == pytest.approx(0.95 * 2 * HOUR_S, rel=0.1)
    assert delay.expected_coverage_pct == pytest.approx(30.0, abs=3.0)


def test_while_labels_are_still_coming_in_maturity_is_not_identifiable() -> None:
    delay = label_delay(traffic(1_000, delay_h=(72.0, 72.0)))
    assert delay.matured_after_s is None
    assert "still coming in" in delay.reason
    assert delay.expected_coverage_pct is None


def test_labels_that_are_still_coming_in_count_if_they_are_like_a_random_share() -> None:
    same = label_delay(traffic(8_000, delay_h=(72.0, 72.0)))
    assert same.matured_after_s == pytest.approx(12 * HOUR_S, rel=0.05)
    assert "like a random share" in same.reason
    assert label_delay(traffic(8_000, delay_h=(72.0, 20.0))).matured_after_s is None


def test_one_batch_of_labels_for_all_that_is_there_tells_no_age() -> None:
    """Each row is labelled at the age it has: nothing has been watched beyond."""
    ages_s = np.arange(2_000.0)
    labels = np.arange(2_000) % 2
    assert label_delay(sample_of(ages_s, ages_s, labels)).matured_after_s is None


@pytest.mark.parametrize(
    "sample",
    [
        pytest.param(traffic().iloc[:0], id="no row"),
        pytest.param(traffic().iloc[: MIN_OLDEST_ROWS - 1], id="few rows"),
        pytest.param(traffic(labelled_share=0.0), id="no label"),
        pytest.param(traffic().query("not true_label == 1"), id="one class"),
    ],
)
def test_too_few_labels_are_said_to_be_too_few(sample: pd.DataFrame) -> None:
    delay = label_delay(sample)
    assert delay.matured_after_s is None
    assert f"at least {MIN_LABELS_PER_CLASS} of each" in delay.reason
    assert delay.n_predictions == len(sample)


def test_replaced_labels_are_left_out_and_counted() -> None:
    sample = traffic()
    late = traffic(400).assign(**{DELAY: 23 * HOUR_S, IS_REPLACED: True})
    delay = label_delay(pd.concat([sample, late], ignore_index=True))
    assert delay == replace(label_delay(sample), n_replaced=400)
    assert label_delay(late).n_replaced == 400


# Which rows count


def known(matured_after_s: float | None) -> LabelDelay:
    return LabelDelay(1_000, 400, matured_after_s, "for a test")


def test_the_matured_rows_are_a_window_as_long_that_ended_an_age_of_maturity_ago() -> None:
    seen = window(last_label_at=None)
    age = timedelta(minutes=30)
    assert matured_period(seen, known(1_800.0), None) == (seen.start - age, seen.end - age)


def test_nothing_from_before_the_version_went_live_counts() -> None:
    period = matured_period(window(), known(1_800.0), T0)
    assert period is not None
    assert period[0] == T0


def test_without_an_age_of_maturity_there_are_no_matured_rows() -> None:
    assert matured_period(window(), known(None), None) is None


@pytest.mark.parametrize("age_s", [None, 1_800.0])
def test_a_window_that_is_all_labelled_need_not_wait(age_s: float | None) -> None:
    seen = window(n_predictions=100, n_labels=96)
    assert matured_period(seen, known(age_s), None) == (seen.start, seen.end)


def test_a_label_that_came_after_the_last_prediction_is_when_the_window_was_last_seen() -> None:
    seen = window()
    assert observed_until(seen) == seen.end
    later = seen.end + timedelta(hours=2)
    assert observed_until(window(last_label_at=later)) == later
    assert matured_period(window(last_label_at=later), known(1_800.0), None) == (
        seen.start - timedelta(minutes=30),
        seen.end,
    )
