"""The rule of probation: only a loss beyond its noise, on enough labels, ends it badly; without labels it is not passed."""

from __future__ import annotations

from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import f1_score

from selfheal.domain.contract import FloatArray
from selfheal.domain.probation import (
    CANNOT_COMPARE,
    FAILED,
    MAX_ROWS,
    MIN_DECIDED_OTHERWISE,
    MIN_LABELS_PER_CLASS,
    NO_EVIDENCE,
    NOMINAL_LEVEL,
    UNDECIDED,
    OpenAlert,
    PairedScores,
    ProbationLimits,
    alert_of,
    evaluation_number,
    is_settled,
    judge_probation,
    lower_bound,
)
from selfheal.domain.records import ModelVersion, ProbationOutcome, ProbationReport, Severity
from selfheal.domain.retraining.paired_gain import Costs
from tests.builders import model_version
from tests.times import T0

HOUR = timedelta(hours=1)
PROBATION, LONGEST = timedelta(hours=72), timedelta(hours=720)
ON_PROBATION = model_version(probation_until=T0 + PROBATION)
LIMITS = ProbationLimits(min_labels=200, max_duration=LONGEST)


def scores(n_rows: int, seed: int = 1) -> tuple[npt.NDArray[np.int64], FloatArray, FloatArray]:
    """Labels, true probabilities, and probabilities turned upside down."""
    rng = np.random.default_rng(seed)
    true = rng.beta(0.8, 2.0, n_rows)
    return (rng.random(n_rows) < true).astype(np.int64), true, 1 - true


LABELS, TRUE, TURNED = scores(400)


def judged(
    new: FloatArray = TRUE,
    old: FloatArray | None = TURNED,
    *,
    version: ModelVersion = ON_PROBATION,
    n_rows: int = 400,
    after: timedelta = HOUR,
    labels: npt.NDArray[np.int64] = LABELS,
    **lack: Any,
) -> ProbationReport:
    paired = PairedScores(labels[:n_rows], new[:n_rows], None if old is None else old[:n_rows], **lack)
    return judge_probation(version, paired, LIMITS, T0 + after)


# Better or worse


def test_a_version_that_is_worse_than_the_one_before_fails() -> None:
    report = judged(new=TURNED, old=TRUE)
    assert report.outcome is ProbationOutcome.FAILED
    assert (report.is_harmful, report.is_on_probation) == (True, False)
    assert report.brier_change is not None
    assert report.brier_change_low is not None
    assert 0 < report.brier_change_low < report.brier_change
    assert report.brier_change == pytest.approx(np.mean((TURNED - LABELS) ** 2) - np.mean((TRUE - LABELS) ** 2))
    assert "worse than version 1 on 400 rows" in report.reason


def test_a_version_that_is_better_goes_on_with_its_probation() -> None:
    report = judged()
    assert (report.outcome, report.is_on_probation, report.ends_at) == (None, True, T0 + PROBATION)
    assert "better than version 1" in report.reason


def test_a_loss_within_its_noise_is_no_failure() -> None:
    noisy = np.clip(TRUE + np.random.default_rng(2).normal(0.005, 0.1, 400), 0, 1)
    report = judged(new=noisy, old=TRUE)
    assert report.brier_change is not None
    assert report.brier_change_low is not None
    assert report.brier_change_low < 0 < report.brier_change
    assert report.outcome is None


def test_two_versions_that_say_the_same_do_not_differ() -> None:
    report = judged(new=TRUE, old=TRUE)
    assert (report.brier_change, report.brier_change_low) == (0.0, 0.0)
    assert report.outcome is None


# Too little to judge by


def test_too_few_labels_do_not_judge() -> None:
    report = judged(new=TURNED, old=TRUE, n_rows=LIMITS.min_labels - 1)
    assert (report.brier_change, report.outcome, report.is_on_probation) == (None, None, True)
    assert report.reason == "199 labels so far, 200 wanted"
    assert judged(new=TURNED, old=TRUE, n_rows=LIMITS.min_labels).is_harmful


@pytest.mark.parametrize("rare", [0, 1])
def test_too_few_labels_of_one_class_do_not_judge(rare: int) -> None:
    """Early labels may all be of one class, and the spread of the differences is then not known."""
    labels = np.full(400, 1 - rare)
    labels[: MIN_LABELS_PER_CLASS - 1] = rare
    worse, better = np.full(400, float(rare)), np.full(400, float(1 - rare))
    assert judged(new=worse, old=better, labels=labels).outcome is None
    labels[MIN_LABELS_PER_CLASS - 1] = rare
    assert judged(new=worse, old=better, labels=labels).is_harmful


def test_rows_whose_maturity_is_not_known_do_not_judge() -> None:
    report = judged(old=None, n_rows=0, shortcoming="labels are still coming in")
    assert (report.outcome, report.reason) == (None, "labels are still coming in")
    assert alert_of(report) is None


def test_an_earlier_version_that_cannot_score_is_told() -> None:
    report = judged(new=TURNED, old=None, shortcoming="version 1 cannot score these rows: contract", is_blind=True)
    assert (report.outcome, report.reason) == (None, "version 1 cannot score these rows: contract")
    alert = alert_of(report)
    assert alert is not None
    assert (alert.kind, alert.severity) == (CANNOT_COMPARE, Severity.WARNING)


@pytest.mark.parametrize(
    "version", [model_version(probation_until=None), model_version(probation_until=T0, previous_version=None)]
)
def test_a_version_that_nothing_watches_is_not_on_probation(version: ModelVersion) -> None:
    report = judged(new=TURNED, old=TRUE, version=version)
    assert (report.is_on_probation, report.outcome) == (False, None)
    assert report.reason == "version 2 is not on probation"


# The end


def test_a_version_without_a_loss_has_passed_when_its_time_is_up() -> None:
    assert judged(after=PROBATION - timedelta(seconds=1)).outcome is None
    report = judged(after=PROBATION)
    assert (report.outcome, report.is_on_probation) == (ProbationOutcome.PASSED, False)
    assert alert_of(report) is None


def test_a_loss_that_nobody_looked_at_in_time_has_not_passed() -> None:
    assert judged(new=TURNED, old=TRUE, after=PROBATION + HOUR).outcome is ProbationOutcome.FAILED


def test_as_long_as_labels_are_too_few_probation_goes_on_up_to_a_bound_and_then_ends_without_evidence() -> None:
    waiting = judged(n_rows=199, after=LONGEST - timedelta(seconds=1))
    assert (waiting.outcome, waiting.ends_at) == (None, T0 + LONGEST)
    ended = judged(n_rows=199, after=LONGEST)
    assert ended.outcome is ProbationOutcome.NO_EVIDENCE
    alert = alert_of(ended)
    assert alert is not None
    assert (alert.kind, alert.severity) == (NO_EVIDENCE, Severity.INFO)
    assert "199 labels so far" in alert.message


def test_a_probation_that_outlasts_its_time_is_an_alert_with_what_is_missing() -> None:
    waiting = judged(n_rows=199, after=PROBATION + HOUR)
    assert alert_of(waiting) is None
    alert = alert_of(waiting, is_overdue=True)
    assert alert is not None
    assert (alert.kind, alert.severity) == (UNDECIDED, Severity.WARNING)
    assert "199 labels so far, 200 wanted" in alert.message
    assert f"ends undecided on {T0 + LONGEST:%Y-%m-%d}" in alert.message
    assert alert_of(judged(after=PROBATION), is_overdue=True) is None, "it has passed"


def test_a_bound_below_the_planned_time_does_not_cut_it_short() -> None:
    limits = ProbationLimits(min_labels=200, max_duration=HOUR)
    paired = PairedScores(LABELS[:10], TRUE[:10], TURNED[:10])
    assert judge_probation(ON_PROBATION, paired, limits, T0 + 2 * HOUR).ends_at == T0 + PROBATION


def test_more_rows_than_can_matter_are_not_waited_for() -> None:
    labels, true, _ = scores(MAX_ROWS)
    assert judged(new=true, old=true, labels=labels, n_rows=MAX_ROWS - 1).outcome is None
    assert judged(new=true, old=true, labels=labels, n_rows=MAX_ROWS).outcome is ProbationOutcome.PASSED


# The bound


def test_the_bound_is_what_its_formula_says() -> None:
    """Worked by hand for ten differences of 1 and -1, half each but one, at the level 0.05."""
    differences = np.array([1.0] * 6 + [-1.0] * 4)
    log_level = -2 * np.log(0.1)
    r = (log_level + np.log1p(log_level)) / 500
    assert r == pytest.approx(0.0126577, abs=1e-6)
    width = np.sqrt(2 * (10 * r + 1) / (100 * r) * np.log(1 + np.sqrt(10 * r + 1) / 0.1))
    assert lower_bound(differences, 0.05) == pytest.approx(0.2 - np.sqrt(0.96) * width)


@given(st.lists(st.floats(-1, 1), min_size=2, max_size=50), st.integers(0, 2**32 - 1))
def test_the_bound_is_below_the_mean_and_does_not_depend_on_the_order_of_rows(values: list[float], seed: int) -> None:
    differences = np.array(values)
    low = lower_bound(differences)
    assert low <= differences.mean()
    shuffled = np.random.default_rng(seed).permutation(differences)
    assert lower_bound(shuffled) == pytest.approx(low, abs=1e-9)


def test_looks_at_every_size_together_seldom_call_an_equal_version_worse() -> None:
    """The bound of one look alone fails several times as often as it says. `benchmarks.probation` says it exactly."""
    rng = np.random.default_rng(3)
    n_sequences, n_rows = 800, 2_000
    n_false = n_false_alone = 0
    for _ in range(n_sequences):
        differences = rng.normal(0, 0.05, n_rows)
        sizes = np.arange(200, n_rows + 1, 50)
        n_false += any(lower_bound(differences[:n]) > 0 for n in sizes)
        means = np.array([differences[:n].mean() * np.sqrt(n) for n in sizes])
        n_false_alone += (means > 0.05 * 2.807).any()  # the normal quantile of 1 - NOMINAL_LEVEL
    assert n_false <= 2 * NOMINAL_LEVEL * n_sequences
    assert n_false_alone > 2 * NOMINAL_LEVEL * n_sequences


# When to look


def test_a_look_is_due_for_every_tenth_more_labels() -> None:
    looks = [evaluation_number(n, 200) for n in range(150, MAX_ROWS + 1)]
    assert looks[:50] == [None] * 50
    assert looks[50] == 0
    steps = [later - earlier for earlier, later in pairwise(looks[50:])]  # type: ignore[operator]
    assert set(steps) == {0, 1}
    assert looks[-1] == 48


# When an alert is over

ALERT = OpenAlert(FAILED, model_version=2, created_at=T0 + HOUR, is_acknowledged=False, back_to_version=1)
LATER = T0 + 2 * HOUR
BACK, STILL = (
    model_version(version=1, promoted_at=LATER, previous_version=2),
    model_version(version=2, promoted_at=T0),
)


@pytest.mark.parametrize(
    ("champion", "is_over"),
    [
        (BACK, False),  # the rollback itself
        (STILL, False),  # it has not come about
        (model_version(version=3, promoted_at=LATER), True),
        (model_version(version=2, promoted_at=LATER), True),  # put back by a person
        (None, False),
    ],
)
def test_an_alert_is_over_when_yet_another_version_goes_live(champion: ModelVersion | None, is_over: bool) -> None:
    assert is_settled(ALERT, champion) is is_over


@pytest.mark.parametrize(
    ("kind", "champion", "is_over"),
    [(FAILED, BACK, True), (FAILED, STILL, False), (CANNOT_COMPARE, STILL, False), (NO_EVIDENCE, STILL, True)],
)
def test_an_acknowledged_alert_is_over_unless_the_trouble_goes_on(
    kind: str, champion: ModelVersion, is_over: bool
) -> None:
    seen = OpenAlert(kind, 2, T0 + HOUR, is_acknowledged=True, back_to_version=1)
    assert is_settled(seen, champion) is is_over


@pytest.mark.parametrize(("champion", "is_over"), [(BACK, True), (STILL, False)])
def test_that_a_probation_is_undecided_is_over_when_its_version_no_longer_serves(
    champion: ModelVersion, is_over: bool
) -> None:
    unseen = OpenAlert(UNDECIDED, 2, T0 + HOUR, is_acknowledged=False, back_to_version=1)
    assert is_settled(unseen, champion) is is_over


def test_the_times_of_a_probation_are_utc() -> None:
    ends_at = judged().ends_at
    assert isinstance(ends_at, datetime)
    assert ends_at.utcoffset() == timedelta(0)


# Versions that differ by their threshold alone

MANY_LABELS, MANY, _ = scores(2_000)
BEST, TOO_LOW = 0.3, 0.02


def by_threshold(
    new: float,
    old: float,
    *,
    labels: npt.NDArray[np.int64] = MANY_LABELS,
    probabilities: FloatArray = MANY,
    after: timedelta = HOUR,
    clusters: npt.NDArray[np.int64] | None = None,
    **asked: Any,
) -> ProbationReport:
    """Judge a version that gives the same probabilities, but for rounding, and decides at another threshold."""
    paired = PairedScores(labels, probabilities, probabilities + 1e-13, clusters=clusters, thresholds=(new, old))
    return judge_probation(ON_PROBATION, paired, ProbationLimits(200, LONGEST, **asked), T0 + after)


def test_a_version_whose_threshold_alone_differs_fails_by_what_it_decides() -> None:
    report = by_threshold(TOO_LOW, BEST)
    assert report.outcome is ProbationOutcome.FAILED
    assert (report.brier_change, report.brier_change_low) == (None, None), "it was not judged by that"
    said, true = ((threshold <= MANY).astype(int) for threshold in (TOO_LOW, BEST))
    loss = f1_score(MANY_LABELS, true) - f1_score(MANY_LABELS, said)
    assert f"F1 {loss:.4f} worse than version 1 on 2,000 rows" in report.reason
    assert (
        f"decides {(said != true).sum():,} of the rows otherwise, by the threshold 0.02 instead of 0.3" in report.reason
    )


def test_a_better_threshold_passes_when_its_time_is_up() -> None:
    assert by_threshold(BEST, TOO_LOW).outcome is None
    assert by_threshold(BEST, TOO_LOW, after=PROBATION).outcome is ProbationOutcome.PASSED


@pytest.mark.parametrize(("miss", "outcome"), [(1.0, ProbationOutcome.FAILED), (50.0, None)])
def test_the_declared_costs_say_which_threshold_is_worse(miss: float, outcome: ProbationOutcome | None) -> None:
    report = by_threshold(TOO_LOW, BEST, metric="expected_cost", costs=Costs(1.0, miss))
    assert report.outcome is outcome
    assert report.reason.startswith("expected cost per row")


@pytest.mark.parametrize("metric", ["log_loss", "brier", "auc"])
def test_where_the_primary_metric_sees_no_decisions_a_threshold_is_not_passed_but_ends_without_evidence(
    metric: str,
) -> None:
    waiting = by_threshold(TOO_LOW, BEST, metric=metric, after=PROBATION - HOUR)
    assert (waiting.outcome, waiting.is_on_probation) == (None, True)
    ended = by_threshold(TOO_LOW, BEST, metric=metric, after=PROBATION)
    assert ended.outcome is ProbationOutcome.NO_EVIDENCE
    assert "the probabilities of version 1 and decides at the threshold 0.02 instead of 0.3" in ended.reason
    alert = alert_of(ended)
    assert alert is not None
    assert alert.kind == NO_EVIDENCE


def test_a_threshold_that_decides_hardly_any_row_otherwise_is_not_known_to_be_as_good() -> None:
    nearly = float(np.sort(MANY[MANY > BEST])[MIN_DECIDED_OTHERWISE - 2])
    report = by_threshold(nearly + 1e-9, BEST, after=PROBATION)
    assert (report.outcome, report.is_on_probation) == (None, True)
    assert f"decides {MIN_DECIDED_OTHERWISE - 1} rows among 2,000 labels otherwise" in report.reason
    assert by_threshold(nearly + 1e-9, BEST, after=LONGEST).outcome is ProbationOutcome.NO_EVIDENCE


def test_equal_probabilities_at_one_threshold_are_compared_as_ever() -> None:
    report = by_threshold(BEST, BEST, after=PROBATION)
    assert report.outcome is ProbationOutcome.PASSED
    assert report.brier_change == pytest.approx(0.0, abs=1e-9)
    assert "Brier score" in report.reason


def test_other_probabilities_are_compared_as_ever_whatever_the_thresholds() -> None:
    with_thresholds = judged(new=TURNED, old=TRUE, thresholds=(0.9, 0.1))
    assert with_thresholds == judged(new=TURNED, old=TRUE)


def test_rows_decided_otherwise_without_any_event_among_them_are_no_proof_where_a_miss_is_dear() -> None:
    """Where a miss costs ten times a false alarm, every eleventh of them would have to be an event: none of 30 is chance."""
    labels = np.array([1] * 10 + [0] * 990)
    probabilities = np.concatenate([np.full(18, 0.9), np.full(30, 0.5), np.full(952, 0.1)])

    def report(miss: float) -> ProbationReport:
        costs = Costs(1.0, miss)
        return by_threshold(0.4, 0.6, labels=labels, probabilities=probabilities, metric="expected_cost", costs=costs)

    assert "decides 30 of the rows otherwise" in report(10.0).reason
    assert report(10.0).outcome is None
    assert report(1.0).is_harmful, "every other one would have to be"


def test_rows_of_one_entity_decided_otherwise_count_as_one() -> None:
    who = np.repeat(np.arange(len(MANY_LABELS)), 5)
    recurring_rows = {"labels": MANY_LABELS[who], "probabilities": MANY[who], "clusters": who}
    assert by_threshold(TOO_LOW, BEST, **recurring_rows).is_harmful
    nearly = float(np.sort(MANY[MANY > BEST])[MIN_DECIDED_OTHERWISE - 2]) + 1e-9
    report = by_threshold(nearly, BEST, **recurring_rows)
    assert f"decides {MIN_DECIDED_OTHERWISE - 1} entities among 10,000 labels otherwise" in report.reason


# Rows of one entity


def recurring(times: int, n_entities: int = 100, seed: int = 5) -> tuple[PairedScores, PairedScores]:
    """Two versions that differ by noise alone, on labels that recur: without and with the entities."""
    rng = np.random.default_rng(seed)
    true = rng.beta(0.8, 2.0, n_entities)
    labels = (rng.random(n_entities) < true).astype(np.int64)
    new, old = (np.clip(true + 0.15 * rng.normal(size=n_entities), 0.01, 0.99) for _ in range(2))
    who = np.repeat(np.arange(n_entities), times)
    arrays = labels[who], new[who], old[who]
    return PairedScores(*arrays), PairedScores(*arrays, clusters=who)


def test_a_chance_difference_that_recurs_rolls_nothing_back() -> None:
    limits = ProbationLimits(min_labels=200, max_duration=LONGEST)
    found = [recurring(10, n_entities=220, seed=seed) for seed in range(60)]
    by_rows, by_entity = (
        sum(judge_probation(ON_PROBATION, side, limits, T0).is_harmful for side in sides)
        for sides in zip(*found, strict=True)
    )
    assert by_rows > 3
    assert by_entity == 0


def test_a_worse_version_is_found_among_entities_too() -> None:
    who = np.repeat(np.arange(400), 3)
    scores_of_rows = PairedScores(LABELS[who], TURNED[who], TRUE[who], clusters=who)
    report = judge_probation(ON_PROBATION, scores_of_rows, LIMITS, T0)
    assert report.is_harmful
    assert "1,200 rows of 400 entities, worth" in report.reason


def test_labels_of_few_entities_are_too_few() -> None:
    _, by_entity = recurring(10)
    report = judge_probation(ON_PROBATION, by_entity, LIMITS, T0)
    assert report.outcome is None
    assert "1,000 labels so far (1,000 rows of 100 entities, worth" in report.reason
