"""Rules of the gates: each one fails alone, what cannot be measured does not pass, and the pairing is honest."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest

from selfheal.contract import FloatArray, Segment
from selfheal.monitoring.performance import score_metrics
from selfheal.records import Action, GateResult, GateStatus
from selfheal.retraining.gates import (
    GATE_NAMES,
    GateLimits,
    GateOutcome,
    Scores,
    evaluate_gates,
    f1_difference_bounds,
    more_rows_for_certainty,
    segment_differences,
)

LIMITS = GateLimits(
    min_f1_improvement_pct=2.0,
    max_brier_degradation=0.01,
    min_samples=200,
    min_coverage_pct=30.0,
    min_recall=0.3,
    min_auc=0.72,
    level=0.05,
    max_attempts=10,
)
N_ROWS = 1_500


def world(n_rows: int = N_ROWS, seed: int = 1) -> tuple[npt.NDArray[np.int64], FloatArray, FloatArray]:
    """Labels, a good model's probabilities and a worse one's, both calibrated enough."""
    rng = np.random.default_rng(seed)
    signal, hidden = rng.normal(size=n_rows), rng.normal(size=n_rows)
    labels = (rng.random(n_rows) < 1 / (1 + np.exp(1.5 - 2.0 * signal - 1.5 * hidden))).astype(np.int64)
    good = 1 / (1 + np.exp(1.5 - 2.0 * signal - 1.5 * hidden))
    worse = 1 / (1 + np.exp(1.1 - 1.5 * signal))
    return labels, good, worse


LABELS, GOOD, WORSE = world()


def judged(
    *,
    labels: npt.NDArray[np.int64] = LABELS,
    challenger: FloatArray = GOOD,
    champion: FloatArray | None = WORSE,
    coverage: float | None = 40.0,
    limits: GateLimits = LIMITS,
    challenger_threshold: float = 0.4,
) -> GateOutcome:
    return evaluate_gates(
        labels,
        Scores(challenger, challenger_threshold),
        None if champion is None else Scores(champion, 0.4),
        coverage,
        limits,
        seed=1,
    )


def statuses(outcome: GateOutcome) -> dict[str, GateStatus]:
    return {gate.name: gate.status for gate in outcome.gates}


def gate(outcome: GateOutcome, name: str) -> GateResult:
    return next(gate for gate in outcome.gates if gate.name == name)


def not_passed(outcome: GateOutcome) -> dict[str, GateStatus]:
    return {name: status for name, status in statuses(outcome).items() if status is not GateStatus.PASS}


def test_a_better_model_passes_all_six() -> None:
    outcome = judged()
    assert tuple(statuses(outcome)) == GATE_NAMES
    assert not_passed(outcome) == {}
    assert outcome.action is Action.PROMOTE
    assert outcome.reason == "all applicable gates passed"
    assert outcome.champion == score_metrics(LABELS, WORSE, 0.4)
    assert outcome.challenger == score_metrics(LABELS, GOOD, 0.4)


# One gate alone


def test_too_small_an_improvement_alone_rejects() -> None:
    outcome = judged(limits=replace(LIMITS, min_f1_improvement_pct=60.0))
    assert not_passed(outcome) == {"f1_improvement": GateStatus.FAIL}
    assert outcome.action is Action.REJECT
    assert outcome.reason == gate(outcome, "f1_improvement").sentence
    assert "60 % wanted" in outcome.reason


def test_an_improvement_that_may_be_chance_alone_is_inconclusive() -> None:
    labels, good, worse = LABELS[:250], GOOD[:250], WORSE[:250]
    mixed = np.where(np.arange(250) % 6 == 0, good, worse)
    outcome = judged(labels=labels, challenger=mixed, champion=worse)
    assert not_passed(outcome) == {"f1_improvement": GateStatus.INCONCLUSIVE}
    found = gate(outcome, "f1_improvement")
    assert found.value is not None
    assert found.value >= 2.0
    assert found.interval_low is not None
    assert found.interval_low <= 0
    assert outcome.action is Action.INCONCLUSIVE
    assert "may be chance" in outcome.reason
    assert "more evaluation rows would tell" in outcome.reason


def test_worse_probabilities_alone_reject() -> None:
    """Every prediction stays on its side of the threshold and every rank is kept: only the Brier score suffers."""
    flattened = 0.4 + (GOOD - 0.4) * 0.02
    outcome = judged(challenger=flattened)
    assert not_passed(outcome) == {"brier_degradation": GateStatus.FAIL}
    assert outcome.action is Action.REJECT


def test_too_few_rows_alone_are_inconclusive_and_say_how_many_more_it_takes() -> None:
    outcome = judged(limits=replace(LIMITS, min_samples=N_ROWS + 100))
    assert not_passed(outcome) == {"labelled_samples": GateStatus.INCONCLUSIVE}
    assert outcome.action is Action.INCONCLUSIVE
    assert outcome.reason == "1,500 labelled evaluation rows, 1,600 wanted: 100 more needed"


def test_too_low_a_coverage_alone_is_inconclusive() -> None:
    outcome = judged(coverage=29.9)
    assert not_passed(outcome) == {"label_coverage": GateStatus.INCONCLUSIVE}
    assert outcome.action is Action.INCONCLUSIVE


def test_too_low_a_recall_alone_rejects() -> None:
    outcome = judged(limits=replace(LIMITS, min_recall=0.99))
    assert not_passed(outcome) == {"recall": GateStatus.FAIL}
    assert outcome.action is Action.REJECT


def test_too_low_an_auc_alone_rejects() -> None:
    outcome = judged(limits=replace(LIMITS, min_auc=0.99))
    assert not_passed(outcome) == {"auc_roc": GateStatus.FAIL}
    assert outcome.action is Action.REJECT


def test_each_limit_itself_passes() -> None:
    outcome = judged()
    values = {name: gate(outcome, name).value for name in GATE_NAMES}
    exact = replace(
        LIMITS,
        min_f1_improvement_pct=values["f1_improvement"],
        max_brier_degradation=values["brier_degradation"],
        min_samples=N_ROWS,
        min_coverage_pct=40.0,
        min_recall=values["recall"],
        min_auc=values["auc_roc"],
    )
    assert not_passed(judged(limits=exact)) == {}


# What cannot be measured


def test_a_failure_outranks_what_more_labels_could_tell() -> None:
    outcome = judged(coverage=1.0, limits=replace(LIMITS, min_recall=0.99))
    assert outcome.action is Action.REJECT
    assert outcome.reason.count(";") == 1


@pytest.mark.parametrize(("label", "unknown"), [(0, {"recall", "auc_roc"}), (1, {"auc_roc"})])
def test_labels_of_a_single_class_leave_recall_and_auc_inconclusive(label: int, unknown: set[str]) -> None:
    outcome = judged(labels=np.full(N_ROWS, label), champion=None)
    found = {name for name, status in statuses(outcome).items() if status is GateStatus.INCONCLUSIVE}
    assert found == unknown
    assert outcome.action is not Action.PROMOTE
    for name in unknown:
        assert gate(outcome, name).value is None


def test_at_bootstrap_the_gates_that_compare_are_not_applicable() -> None:
    outcome = judged(champion=None, coverage=None)
    assert not_passed(outcome) == dict.fromkeys(
        ("f1_improvement", "brier_degradation", "label_coverage"), GateStatus.NOT_APPLICABLE
    )
    assert outcome.action is Action.PROMOTE
    assert outcome.champion is None


def test_the_other_gates_hold_at_bootstrap_too() -> None:
    outcome = judged(champion=None, coverage=None, limits=replace(LIMITS, min_auc=0.99))
    assert outcome.action is Action.REJECT


def test_a_model_is_no_improvement_on_itself() -> None:
    outcome = judged(challenger=WORSE)
    assert gate(outcome, "f1_improvement").value == 0.0
    assert outcome.action is Action.REJECT
    anyway = judged(challenger=WORSE, limits=replace(LIMITS, min_f1_improvement_pct=0.0))
    assert statuses(anyway)["f1_improvement"] is GateStatus.INCONCLUSIVE
    assert "would tell" not in gate(anyway, "f1_improvement").sentence  # no number of rows would


def test_a_champion_that_finds_nothing_is_beaten_by_one_that_finds_something() -> None:
    outcome = judged(champion=np.zeros(N_ROWS))
    assert gate(outcome, "f1_improvement").value == 100.0
    assert statuses(outcome)["f1_improvement"] is GateStatus.PASS


def test_each_model_is_judged_at_its_own_threshold() -> None:
    outcome = judged(challenger=WORSE, challenger_threshold=0.9)
    assert outcome.champion is not None
    assert outcome.challenger.recall < outcome.champion.recall
    assert outcome.challenger.auc_roc == outcome.champion.auc_roc


# The paired bootstrap


def direct_bounds(
    labels: npt.NDArray[np.int64], new: npt.NDArray[np.int64], old: npt.NDArray[np.int64], level: float
) -> tuple[float, float]:
    """The same by resampling rows, one resample after the other."""
    rng = np.random.default_rng(99)
    differences = []
    for _ in range(4_000):
        rows = rng.integers(0, len(labels), len(labels))
        f1 = [
            2 * (labels[rows] & predicted[rows]).sum() / max(1, labels[rows].sum() + predicted[rows].sum())
            for predicted in (new, old)
        ]
        differences.append(f1[0] - f1[1])
    low, high = np.quantile(differences, [level, 1 - level])
    return float(low), float(high)


@pytest.mark.parametrize("n_rows", [200, 1_500])
def test_the_bounds_are_those_of_resampling_rows_in_pairs(n_rows: int) -> None:
    labels, good, worse = LABELS[:n_rows], GOOD[:n_rows], WORSE[:n_rows]
    found = f1_difference_bounds(labels, Scores(good, 0.4), Scores(worse, 0.3), 0.05, seed=1)
    direct = direct_bounds(labels, (good >= 0.4).astype(np.int64), (worse >= 0.3).astype(np.int64), 0.05)
    assert found == pytest.approx(direct, abs=0.15 * (direct[1] - direct[0]))


def test_the_bounds_hold_the_difference_and_widen_with_the_confidence() -> None:
    f1 = [score_metrics(LABELS, scores, 0.4).f1 for scores in (GOOD, WORSE)]
    wide = f1_difference_bounds(LABELS, Scores(GOOD, 0.4), Scores(WORSE, 0.4), 0.005, seed=1)
    narrow = f1_difference_bounds(LABELS, Scores(GOOD, 0.4), Scores(WORSE, 0.4), 0.05, seed=1)
    assert wide[0] < narrow[0] < f1[0] - f1[1] < narrow[1] < wide[1]


def test_about_as_many_rows_as_an_inconclusive_gate_asks_for_suffice() -> None:
    n_rows = 300
    mixed = np.where(np.arange(N_ROWS) % 6 == 0, GOOD, WORSE)

    def at(n: int) -> tuple[float, float]:
        labels, new, old = (np.tile(values[:n_rows], n // n_rows + 1)[:n] for values in (LABELS, mixed, WORSE))
        low, _ = f1_difference_bounds(labels, Scores(new, 0.4), Scores(old, 0.4), 0.005, seed=1)
        return low, score_metrics(labels, new, 0.4).f1 - score_metrics(labels, old, 0.4).f1

    low, difference = at(n_rows)
    assert low < 0 < difference
    more = more_rows_for_certainty(n_rows, difference, low)
    assert more is not None
    assert at(round(1.5 * (n_rows + more)))[0] > 0
    assert at(round(0.6 * (n_rows + more)))[0] < 0
    assert more_rows_for_certainty(n_rows, difference, 0.0) == 1
    assert more_rows_for_certainty(n_rows, 0.0, low) is None


def test_the_same_seed_gives_the_same_bounds() -> None:
    bounds = [f1_difference_bounds(LABELS, Scores(GOOD, 0.4), Scores(WORSE, 0.4), 0.05, seed=s) for s in (1, 1, 2)]
    assert bounds[0] == bounds[1] != bounds[2]


def test_the_level_is_shared_by_the_attempts_of_an_episode() -> None:
    assert LIMITS.level_per_attempt == pytest.approx(0.005)
    generous, strict = replace(LIMITS, max_attempts=1), replace(LIMITS, max_attempts=10)
    lows = [gate(judged(limits=limits), "f1_improvement").interval_low for limits in (generous, strict)]
    assert lows[0] is not None
    assert lows[1] is not None
    assert lows[1] < lows[0]


def test_a_challenger_that_is_no_better_is_seldom_promoted() -> None:
    """Two equally good models with independent errors, 200 rows each time. The level is 0.05: of 80 tries, 12 have a
    chance of 0.1 %; by the point estimate alone it would be some 35."""
    limits = replace(LIMITS, min_auc=0.5, max_brier_degradation=1.0, max_attempts=1)
    n_promoted = 0
    for seed in range(80):
        rng = np.random.default_rng(seed)
        labels = (rng.random(200) < 0.3).astype(np.int64)
        new, old = (np.clip(0.35 + 0.2 * (2 * labels - 1) + rng.normal(0, 0.3, 200), 0, 1) for _ in range(2))
        n_promoted += judged(labels=labels, challenger=new, champion=old, limits=limits).action is Action.PROMOTE
    assert n_promoted <= 11


# Segments


def test_segments_are_compared_band_by_band() -> None:
    ages = np.array([20.0] * 40 + [35.0] * 29 + [50.0] * 60)
    labels = np.tile([0, 1], 65)[:129]
    perfect, useless = labels.astype(np.float64), np.zeros(129)
    segments = (Segment("age", (30.0, 45.0), "age band"),)
    found = segment_differences(
        pd.DataFrame({"age": ages}), labels, Scores(perfect, 0.5), Scores(useless, 0.5), segments
    )
    assert [(s.segment, s.n_rows) for s in found] == [("age in [-inf, 30)", 40), ("age in [45, inf)", 60)]
    assert all((s.champion_f1, s.challenger_f1) == (0.0, 1.0) for s in found)


def test_the_edge_of_a_band_belongs_to_the_upper_one() -> None:
    segments = (Segment("age", (30.0,), "age band"),)
    scores = Scores(np.full(40, 0.5), 0.5)
    (band,) = segment_differences(pd.DataFrame({"age": [30.0] * 40}), np.tile([0, 1], 20), scores, scores, segments)
    assert band.segment == "age in [30, inf)"
