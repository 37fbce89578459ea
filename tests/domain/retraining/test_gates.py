"""Rules of the gates: each one fails alone, what cannot be measured does not pass, whatever the labels and scores."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import hypothesis
import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from selfheal.domain.contract import FloatArray, Segment
from selfheal.domain.monitoring.performance import score_metrics
from selfheal.domain.probation import lower_bound
from selfheal.domain.records import Action, GateResult, GateStatus, Interval, ShadowScoring
from selfheal.domain.retraining.evaluation import Evaluation, Scores, segment_bands
from selfheal.domain.retraining.gate_spec import GateLimits
from selfheal.domain.retraining.gates import GATES
from selfheal.domain.retraining.judging import GateOutcome, evaluate_gates
from selfheal.kit.errors import InvalidDataError
from selfheal.kit.serialization import to_dict
from selfheal.services.retraining import gate_limits
from selfheal.settings import default_settings
from tests.times import T0

LIMITS: GateLimits = {**gate_limits(default_settings()), "seed": 1}
SIX = ("f1_improvement", "brier_degradation", "labelled_samples", "label_coverage", "recall", "auc_roc")
SEGMENTS, SHADOW_SCORING = "segments", "shadow_scoring"
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
    verdict_number: int = 1,
    bands: Mapping[str, npt.NDArray[np.bool_]] | None = None,
) -> GateOutcome:
    old = None if champion is None else Scores(champion, 0.4)
    new = Scores(challenger, challenger_threshold)
    return evaluate_gates(Evaluation(labels, new, old, coverage, 5_000, bands or {}), limits, verdict_number)


def statuses(outcome: GateOutcome) -> dict[str, GateStatus]:
    """Of the six."""
    return {gate.name: gate.status for gate in outcome.gates if gate.name in SIX}


def gate(outcome: GateOutcome, name: str) -> GateResult:
    return next(gate for gate in outcome.gates if gate.name == name)


def not_passed(outcome: GateOutcome) -> dict[str, GateStatus]:
    return {name: status for name, status in statuses(outcome).items() if status is not GateStatus.PASS}


def test_a_better_model_passes_all_six() -> None:
    outcome = judged()
    assert tuple(statuses(outcome)) == SIX
    assert not_passed(outcome) == {}
    assert outcome.action is Action.PROMOTE
    assert outcome.reason == "all applicable gates passed"
    assert outcome.champion == score_metrics(LABELS, WORSE, 0.4)
    assert outcome.challenger == score_metrics(LABELS, GOOD, 0.4)


# One gate alone


def test_too_small_an_improvement_alone_rejects() -> None:
    outcome = judged(limits={**LIMITS, "min_f1_improvement_pct": 60.0})
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
    assert "more labels" in outcome.reason


def test_worse_probabilities_alone_reject() -> None:
    """Every prediction stays on its side of the threshold and every rank is kept: only the Brier score suffers."""
    flattened = 0.4 + (GOOD - 0.4) * 0.02
    outcome = judged(challenger=flattened)
    assert not_passed(outcome) == {"brier_degradation": GateStatus.FAIL}
    assert outcome.action is Action.REJECT


def test_too_few_rows_alone_are_inconclusive_and_say_how_many_more_it_takes() -> None:
    outcome = judged(limits={**LIMITS, "min_samples": N_ROWS + 100})
    assert not_passed(outcome) == {"labelled_samples": GateStatus.INCONCLUSIVE}
    assert outcome.action is Action.INCONCLUSIVE
    assert outcome.reason == "1,500 labelled evaluation rows, 1,600 wanted: 100 more needed, about 334 more labels"


def test_too_low_a_coverage_alone_is_inconclusive() -> None:
    outcome = judged(coverage=29.9)
    assert not_passed(outcome) == {"label_coverage": GateStatus.INCONCLUSIVE}
    assert outcome.action is Action.INCONCLUSIVE


def test_too_low_a_coverage_says_how_many_labels_are_missing() -> None:
    """5,000 labels are 20 % of 25,000 predictions; 30 % would be 7,500."""
    outcome = judged(coverage=20.0)
    assert outcome.reason == "20 % of the predictions are labelled, 30 % wanted: about 2,500 more labels"


def test_too_low_a_recall_alone_rejects() -> None:
    outcome = judged(limits={**LIMITS, "min_recall": 0.99})
    assert not_passed(outcome) == {"recall": GateStatus.FAIL}
    assert outcome.action is Action.REJECT


def test_too_low_an_auc_alone_rejects() -> None:
    outcome = judged(limits={**LIMITS, "min_auc": 0.99})
    assert not_passed(outcome) == {"auc_roc": GateStatus.FAIL}
    assert outcome.action is Action.REJECT


def test_each_limit_itself_passes() -> None:
    outcome = judged()
    values = {name: gate(outcome, name).value for name in SIX}
    exact = {
        **LIMITS,
        "min_f1_improvement_pct": values["f1_improvement"],
        "max_brier_degradation": values["brier_degradation"],
        "min_samples": N_ROWS,
        "min_coverage_pct": 40.0,
        "min_recall": values["recall"],
        "min_auc": values["auc_roc"],
    }
    assert not_passed(judged(limits=exact)) == {}


# The primary metric


OTHERS = ("log_loss", "brier", "auc", "expected_cost")


def with_primary(metric: str, **limits: float) -> GateLimits:
    return {**LIMITS, "primary_metric": metric, "cost_of_miss": 3.0, **limits}


@pytest.mark.parametrize("metric", OTHERS)
def test_a_model_that_is_better_by_the_declared_metric_passes_all_six(metric: str) -> None:
    outcome = judged(limits=with_primary(metric))
    assert tuple(statuses(outcome)) == SIX
    assert not_passed(outcome) == {}
    found = gate(outcome, "f1_improvement")
    assert found.threshold == 0.0
    assert found.value is not None and found.interval_low is not None
    assert 0 < found.interval_low < found.value


def same_decisions(scores: FloatArray) -> FloatArray:
    """Scores that rank nothing within the positives and within the negatives of the threshold 0.4."""
    return np.where(scores >= 0.4, scores[scores >= 0.4].mean(), scores[scores < 0.4].mean())


@pytest.mark.parametrize("metric", ["log_loss", "brier", "auc"])
def test_better_scores_with_the_same_decisions_are_promoted_by_a_declared_metric_and_not_by_f1(metric: str) -> None:
    champion = same_decisions(GOOD)
    assert statuses(judged(champion=champion))["f1_improvement"] is GateStatus.FAIL
    assert judged(champion=champion, limits=with_primary(metric)).action is Action.PROMOTE
    equal_cost = judged(champion=champion, limits=with_primary("expected_cost"))
    assert statuses(equal_cost)["f1_improvement"] is GateStatus.FAIL, "the decisions cost the same"


@pytest.mark.parametrize("metric", OTHERS)
def test_a_model_that_is_no_better_by_the_declared_metric_fails_alone(metric: str) -> None:
    outcome = judged(challenger=WORSE, limits=with_primary(metric))
    assert not_passed(outcome) == {"f1_improvement": GateStatus.FAIL}
    assert "no better" in outcome.reason


def test_a_gain_in_the_declared_metric_that_may_be_chance_is_inconclusive_and_says_how_many_labels_tell() -> None:
    labels, good, worse = LABELS[:250], GOOD[:250], WORSE[:250]
    mixed = np.where(np.arange(250) % 6 == 0, good, worse)
    outcome = judged(labels=labels, challenger=mixed, champion=worse, limits=with_primary("brier"))
    assert not_passed(outcome) == {"f1_improvement": GateStatus.INCONCLUSIVE}
    assert "may be chance" in outcome.reason
    assert "more labels" in outcome.reason


def test_too_much_f1_lost_over_another_metric_rejects() -> None:
    """The better ranking is used at a threshold that nothing reaches."""
    outcome = judged(challenger_threshold=0.99, limits=with_primary("auc", min_recall=0.0))
    assert not_passed(outcome) == {"f1_improvement": GateStatus.FAIL}
    assert "a loss of 10 % allowed" in outcome.reason
    lost = judged(challenger_threshold=0.99, limits=with_primary("auc", min_recall=0.0, max_f1_degradation_pct=100.0))
    assert lost.action is Action.PROMOTE


@pytest.mark.parametrize("metric", OTHERS)
def test_a_later_verdict_asks_the_declared_metric_for_more_evidence(metric: str) -> None:
    lows = [
        gate(judged(limits=with_primary(metric), verdict_number=number), "f1_improvement").interval_low or 0.0
        for number in (1, 2, 10)
    ]
    assert lows[0] > lows[1] > lows[2]


def test_with_too_few_events_the_gain_in_a_declared_metric_is_unknown_and_does_not_pass() -> None:
    labels = (np.arange(300) < 5).astype(np.int64)
    outcome = judged(labels=labels, challenger=labels * 0.9, champion=np.full(300, 0.1), limits=with_primary("auc"))
    found = gate(outcome, "f1_improvement")
    assert (found.status, found.value) == (GateStatus.INCONCLUSIVE, None)


# Brier score, skill and calibration


def times_odds(scores: FloatArray, factor: float | FloatArray) -> FloatArray:
    return scores * factor / (1 - scores + scores * factor)


def rare(n_rows: int, seed: int) -> tuple[npt.NDArray[np.int64], FloatArray]:
    """Labels and a calibrated model's scores where one row in fifteen is an event: its skill is small."""
    rng = np.random.default_rng(seed)
    scores = 1 / (1 + np.exp(-rng.normal(-3.7, 1.4, n_rows)))
    return (rng.random(n_rows) < scores).astype(np.int64), scores


def of_brier(
    labels: npt.NDArray[np.int64], challenger: FloatArray, champion: FloatArray, **limits: float
) -> GateResult:
    return gate(
        judged(labels=labels, challenger=challenger, champion=champion, limits={**LIMITS, **limits}),
        "brier_degradation",
    )


@pytest.mark.parametrize("n_rows", [500, 2_000])
def test_overstated_odds_fail_though_the_brier_score_rises_by_less_than_the_absolute_limit(n_rows: int) -> None:
    labels, scores = rare(n_rows, 3)
    found = of_brier(labels, times_odds(scores, 2.7), scores)
    assert found.value is not None
    assert 0 < found.value < 0.01
    assert found.status is GateStatus.FAIL
    assert "calibration intercept -" in found.sentence
    assert "the rise comes with probabilities that are off" in found.sentence
    before = of_brier(labels, times_odds(scores, 2.7), scores, max_skill_loss_pct=np.inf)
    assert before.status is GateStatus.PASS, "as a verdict of the time before the limit is judged again"
    assert before.sentence.endswith("(+0.01 allowed)")


def test_a_provable_rise_fails_by_the_share_of_skill_that_it_costs() -> None:
    """Calibrated but blurred: the ranks of every other row are lost."""
    labels, scores = rare(4_000, 4)
    blurred = np.where(np.arange(4_000) % 2 == 0, scores.mean(), scores)
    found = of_brier(labels, blurred, scores)
    assert found.status is GateStatus.FAIL
    assert "25 % of the champion's skill" in found.sentence
    assert found.threshold is not None and found.value is not None
    assert found.threshold < found.value < 0.01
    assert of_brier(labels, blurred, scores, max_skill_loss_pct=100.0).status is GateStatus.PASS


def test_probabilities_that_are_off_do_not_fail_a_challenger_that_lowers_the_brier_score() -> None:
    labels, scores = rare(4_000, 5)
    found = of_brier(labels, times_odds(scores, 1.6), times_odds(scores, 4.0))
    assert found.value is not None and found.value < 0
    assert found.status is GateStatus.PASS


@pytest.mark.parametrize("blur", np.linspace(0.05, 1.0, 6))
def test_what_probation_rolls_back_on_the_same_rows_fails_the_brier_gate(blur: float) -> None:
    """Whatever share of skill the rise costs."""
    labels, scores = rare(20_000, 6)
    noise = np.random.default_rng(7).normal(0, blur, len(labels))
    worse = times_odds(scores, np.exp(noise))
    is_rolled_back = lower_bound((worse - labels) ** 2 - (scores - labels) ** 2) > 0
    found = of_brier(labels, worse, scores, max_skill_loss_pct=1_000.0)
    assert is_rolled_back <= (found.status is GateStatus.FAIL)
    assert is_rolled_back or blur < 0.5, "it is what is tested"


def test_a_challenger_without_harm_seldom_fails_by_skill_or_calibration() -> None:
    """Two noisy copies of the true odds, equally good: 100 tries, and 5 % may fail (13 or more with a chance of 0.2 %)."""
    n_failed = 0
    for seed in range(100):
        labels, scores = rare(500, seed)
        noise = np.random.default_rng([seed, 1]).normal(0, 0.3, (2, 500))
        new, old = (times_odds(scores, np.exp(one)) for one in noise)
        n_failed += of_brier(labels, new, old).status is GateStatus.FAIL
    assert n_failed < 13


# What cannot be measured


def test_a_failure_outranks_what_more_labels_could_tell() -> None:
    outcome = judged(coverage=1.0, limits={**LIMITS, "min_recall": 0.99})
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
    outcome = judged(champion=None, coverage=None, limits={**LIMITS, "min_auc": 0.99})
    assert outcome.action is Action.REJECT


def test_a_model_is_no_improvement_on_itself() -> None:
    outcome = judged(challenger=WORSE)
    assert gate(outcome, "f1_improvement").value == 0.0
    assert outcome.action is Action.REJECT
    anyway = judged(challenger=WORSE, limits={**LIMITS, "min_f1_improvement_pct": 0.0})
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


def test_every_gate_tells_what_it_rests_on() -> None:
    for found in judged().gates:
        assert found.n_rows is not None
        assert found.sentence
    samples = {name: gate(judged(), name).n_rows for name in SIX}
    assert samples["recall"] == LABELS.sum(), "recall rests on the true events"
    assert samples["label_coverage"] == 5_000
    assert samples["f1_improvement"] == N_ROWS


@pytest.mark.parametrize("name", ["f1_improvement", "brier_degradation", "recall", "auc_roc"])
def test_an_interval_holds_its_value_in_its_unit(name: str) -> None:
    found = gate(judged(), name)
    assert found.value is not None
    assert found.interval_low is not None
    assert found.interval_high is not None
    assert found.interval_low < found.value < found.interval_high


# The level over looks


def test_a_later_look_asks_for_more_evidence() -> None:
    lows = [
        gate(judged(verdict_number=verdict_number), "f1_improvement").interval_low for verdict_number in (1, 2, 10, 30)
    ]
    assert None not in lows
    assert lows == sorted(lows, key=lambda low: -(low or 0.0))
    assert len(set(lows)) == 4


def test_a_brier_score_that_rose_asks_for_more_evidence() -> None:
    labels, good, worse = world(500)
    blurred = np.clip(good, 0.35, 0.45)  # the same side of both thresholds: F1 is as before
    agreed, opposed = (judged(labels=labels, challenger=new, champion=worse) for new in (good, blurred))
    assert gate(agreed, "f1_improvement").value == gate(opposed, "f1_improvement").value
    assert gate(agreed, "brier_degradation").value < 0 < gate(opposed, "brier_degradation").value
    lows = [gate(outcome, "f1_improvement").interval_low or 0.0 for outcome in (agreed, opposed)]
    assert lows[0] > lows[1]


def test_what_passes_at_the_first_look_may_be_inconclusive_at_the_thirtieth() -> None:
    n_rows = 600
    mixed = np.where(np.arange(n_rows) % 3 == 0, GOOD[:n_rows], WORSE[:n_rows])
    first, thirtieth = (
        statuses(
            judged(labels=LABELS[:n_rows], challenger=mixed, champion=WORSE[:n_rows], verdict_number=verdict_number)
        )["f1_improvement"]
        for verdict_number in (1, 30)
    )
    assert (first, thirtieth) == (GateStatus.PASS, GateStatus.INCONCLUSIVE)


def test_a_challenger_that_is_no_better_is_seldom_promoted_however_often_it_is_tried() -> None:
    """Equally good models with independent errors, three looks at 600 rows each; 10 champions. The level is 5 % for all looks
    together: of 10, four have a chance of 0.1 %; by the point estimate alone nearly all would be replaced."""
    limits = {**LIMITS, "min_auc": 0.5, "max_brier_degradation": 1.0}
    n_replaced = 0
    for seed in range(10):
        rng = np.random.default_rng(seed)
        actions = []
        for verdict_number in range(1, 4):
            labels = (rng.random(600) < 0.3).astype(np.int64)
            new, old = (np.clip(0.35 + 0.2 * (2 * labels - 1) + rng.normal(0, 0.3, 600), 0, 1) for _ in range(2))
            actions.append(
                judged(labels=labels, challenger=new, champion=old, limits=limits, verdict_number=verdict_number).action
            )
        n_replaced += Action.PROMOTE in actions
    assert n_replaced < 4


# A model that does not score


def test_a_challenger_without_a_probability_for_a_row_is_rejected_in_a_sentence() -> None:
    outcome = judged(challenger=np.where(np.arange(N_ROWS) == 7, np.nan, GOOD))
    assert outcome.action is Action.REJECT
    assert outcome.reason == "the challenger cannot be judged: no probability for 1 of 1,500 rows"
    assert outcome.challenger is None
    assert statuses(outcome)["labelled_samples"] is GateStatus.PASS, "what can be told is told"


@pytest.mark.parametrize("value", [np.nan, np.inf, -0.1, 1.5])
def test_what_is_no_probability_is_none(value: float) -> None:
    assert Scores(np.array([0.5, value]), 0.5).problem == "no probability for 1 of 2 rows"
    assert Scores(np.array([0.0, 1.0]), 0.5).problem is None


def test_a_challenger_that_fails_is_rejected_with_its_own_words() -> None:
    failed = Scores(np.full(N_ROWS, np.nan), 0.4, "ValueError: 3 features expected")
    outcome = evaluate_gates(Evaluation(LABELS, failed, Scores(WORSE, 0.4)), LIMITS, 1)
    assert outcome.action is Action.REJECT
    assert "ValueError: 3 features expected" in outcome.reason


def test_a_champion_that_does_not_score_leaves_it_open() -> None:
    """It is not beaten by its failure: nobody knows by how much the challenger would be better."""
    outcome = judged(champion=np.full(N_ROWS, np.nan))
    assert not_passed(outcome) == dict.fromkeys(("f1_improvement", "brier_degradation"), GateStatus.INCONCLUSIVE)
    assert outcome.action is Action.INCONCLUSIVE


def test_without_a_row_there_is_no_verdict() -> None:
    nothing = np.array([])
    with pytest.raises(InvalidDataError, match="no labelled row"):
        judged(labels=nothing.astype(np.int64), challenger=nothing, champion=nothing)


def test_nobody_predicting_a_positive_is_no_improvement() -> None:
    outcome = judged(challenger=np.zeros(N_ROWS), champion=np.zeros(N_ROWS))
    assert gate(outcome, "f1_improvement").value == 0.0
    assert outcome.action is Action.REJECT


def test_all_equal_scores_are_judged() -> None:
    outcome = judged(challenger=np.full(N_ROWS, 0.5))
    assert gate(outcome, "auc_roc").value == 0.5
    assert outcome.action is Action.REJECT


SCORE = st.one_of(st.floats(0, 1), st.sampled_from([0.0, 0.4, 1.0, np.nan, np.inf, -1.0]))
ROWS = st.lists(st.tuples(st.integers(0, 1), SCORE, SCORE), min_size=1, max_size=40)


@hypothesis.settings(max_examples=50)
@given(rows=ROWS, has_champion=st.booleans(), coverage=st.none() | st.floats(0, 100), verdict_number=st.integers(1, 10))
@example(rows=[(1, 0.9, 0.1)], has_champion=True, coverage=100.0, verdict_number=1)
@example(rows=[(0, 0.0, 0.0)] * 40, has_champion=True, coverage=100.0, verdict_number=1)
@example(rows=[(1, 1.0, 0.0), (0, 0.0, 1.0)] * 20, has_champion=True, coverage=100.0, verdict_number=1)
def test_whatever_the_labels_and_scores_there_are_six_gates_and_a_promotion_has_passed_all(
    rows: list[tuple[int, float, float]], has_champion: bool, coverage: float | None, verdict_number: int
) -> None:
    labels, new, old = (np.array(column) for column in zip(*rows, strict=True))
    outcome = judged(
        labels=labels,
        challenger=new.astype(float),
        champion=old.astype(float) if has_champion else None,
        coverage=coverage,
        limits={**LIMITS, "min_samples": 1, "min_f1_improvement_pct": 0.0},
        verdict_number=verdict_number,
    )
    assert tuple(statuses(outcome)) == SIX
    applicable = set(statuses(outcome).values()) - {GateStatus.NOT_APPLICABLE}
    assert (outcome.action is Action.PROMOTE) == (applicable == {GateStatus.PASS})
    if has_champion and np.isfinite(old).all() and outcome.action is Action.PROMOTE:
        assert outcome.champion is not None
        assert outcome.challenger is not None
        assert outcome.challenger.f1 > outcome.champion.f1
    to_dict(outcome.gates[0])
    assert all(value is None or np.isfinite(value) for g in outcome.gates for value in (g.value, g.interval_low))


# Segments


AGES = np.array([20.0] * 40 + [35.0] * 29 + [50.0] * 60)
BY_AGE = (Segment("age", (30.0, 45.0), "age band"),)


def in_segments(challenger: FloatArray, champion: FloatArray, **limits: Any) -> GateOutcome:
    labels = np.tile([0, 1], 65)[:129]
    bands = segment_bands(pd.DataFrame({"age": AGES}), BY_AGE)
    evaluation = Evaluation(labels, Scores(challenger, 0.5), Scores(champion, 0.5), None, 0, bands)
    return evaluate_gates(evaluation, {**LIMITS, **limits}, 1)


PERFECT, USELESS = np.tile([0.0, 1.0], 65)[:129], np.zeros(129)
WORSE_FOR_THE_YOUNG = np.where(AGES < 30, 0.0, PERFECT)


def test_segments_are_compared_band_by_band() -> None:
    found = in_segments(PERFECT, USELESS).segments
    assert [(s.segment, s.n_rows) for s in found] == [("age in [-inf, 30)", 40), ("age in [45, inf)", 60)]
    assert all((s.champion_f1, s.challenger_f1) == (0.0, 1.0) for s in found)
    assert all(s.interval_low is not None and s.interval_low > 0 for s in found)


def test_the_edge_of_a_band_belongs_to_the_upper_one() -> None:
    (name,) = segment_bands(pd.DataFrame({"age": [30.0] * 40}), (Segment("age", (30.0,), "age band"),))
    assert name == "age in [30, inf)"


def test_a_segment_that_gets_worse_is_reported_and_does_not_block() -> None:
    outcome = in_segments(WORSE_FOR_THE_YOUNG, PERFECT)
    found = gate(outcome, SEGMENTS)
    assert found.status is GateStatus.NOT_APPLICABLE
    assert "significant regressions: age in [-inf, 30)" in found.sentence
    assert found.value == -1.0


def test_enforced_a_segment_that_gets_worse_rejects() -> None:
    found = gate(in_segments(WORSE_FOR_THE_YOUNG, PERFECT, segments="enforce"), SEGMENTS)
    assert found.status is GateStatus.FAIL
    assert gate(in_segments(PERFECT, PERFECT, segments="enforce"), SEGMENTS).status is GateStatus.PASS


def test_enforced_segments_alone_reject() -> None:
    """Better overall, far worse for a few."""
    is_few = np.arange(N_ROWS) % 30 == 0
    outcome = judged(
        challenger=np.where(is_few, 1 - GOOD, GOOD),
        champion=WORSE,
        limits={**LIMITS, "segments": "enforce"},
        bands={"few": is_few, "many": ~is_few},
    )
    assert {g.name for g in outcome.gates if g.status is GateStatus.FAIL} == {SEGMENTS}
    assert outcome.action is Action.REJECT


def test_what_may_be_chance_in_a_segment_does_not_reject() -> None:
    slightly = np.where(np.arange(129) == 1, 0.0, PERFECT)
    found = gate(in_segments(slightly, PERFECT, segments="enforce"), SEGMENTS)
    assert found.status is GateStatus.PASS
    assert found.value is not None
    assert found.value < 0


def test_more_segments_widen_each_interval() -> None:
    """So that all hold together."""
    one = judged(bands={"a": np.ones(N_ROWS, dtype=bool)}).segments[0]
    many = judged(bands={name: np.ones(N_ROWS, dtype=bool) for name in "abcdefgh"}).segments[0]
    assert one.interval_low is not None
    assert many.interval_low is not None
    assert many.interval_low < one.interval_low


def test_without_a_champion_or_a_segment_there_is_nothing_to_compare() -> None:
    assert gate(judged(champion=None), SEGMENTS).sentence == "no champion to compare with"
    assert gate(judged(), SEGMENTS).sentence == "no segment to compare in"


# Shadow scoring


SCORED = ShadowScoring(1, 500, T0, T0, 0.1, 0.12, 0.97, Interval(0.95, 0.98), 0.01, 0.2, 0.05, 0.001, 0.3)


def on_live_traffic(scoring: ShadowScoring | None) -> GateResult:
    outcome = evaluate_gates(Evaluation(LABELS, Scores(GOOD, 0.4), Scores(WORSE, 0.4)), LIMITS, 1, live=scoring)
    return gate(outcome, SHADOW_SCORING)


def test_a_challenger_that_scores_live_traffic_passes() -> None:
    found = on_live_traffic(SCORED)
    assert (found.status, found.value, found.n_rows) == (GateStatus.PASS, 0.97, 500)
    assert (found.interval_low, found.interval_high) == (0.95, 0.98)


def test_a_challenger_that_fails_on_live_traffic_fails() -> None:
    found = on_live_traffic(ShadowScoring(1, 500, T0, T0, 0.1, problem="no probability for 3 of 500 rows"))
    assert found.status is GateStatus.FAIL
    assert "no probability for 3 of 500 rows" in found.sentence


def test_without_live_traffic_shadow_scoring_is_not_applicable() -> None:
    assert on_live_traffic(None).status is GateStatus.NOT_APPLICABLE


# All of them


def test_the_gates_are_evaluated_in_their_declared_order() -> None:
    shipped = (*SIX, SEGMENTS, SHADOW_SCORING)
    assert tuple(gate.name for gate in GATES if gate.name in shipped) == shipped
    assert tuple(gate.name for gate in judged().gates) == tuple(gate.name for gate in GATES)


def test_a_gate_says_in_a_sentence_with_its_settings_what_it_asks_for() -> None:
    for spec in GATES:
        assert spec.description.endswith("."), spec.name
        for limit in spec.limits:
            if limit.name != "level":  # it belongs to the bound, which the sentence calls chance
                assert limit.setting_name.upper() in spec.description, spec.name


# Rows of one entity


def recurring(times: int, limits: GateLimits = LIMITS) -> GateOutcome:
    """The first rows of the world, each so often, as of one entity."""
    rows = np.repeat(np.arange(N_ROWS // times), times)
    new, old = Scores(GOOD[rows], 0.4), Scores(WORSE[rows], 0.4)
    return evaluate_gates(Evaluation(LABELS[rows], new, old, 40.0, 5_000, clusters=rows), limits, 1)


def test_rows_that_recur_are_judged_as_what_they_are_worth() -> None:
    outcome = recurring(10)
    assert not_passed(outcome) == {
        "f1_improvement": GateStatus.INCONCLUSIVE,
        "labelled_samples": GateStatus.INCONCLUSIVE,
    }
    samples = gate(outcome, "labelled_samples")
    assert samples.value is not None
    assert 100 <= samples.value <= 150
    assert f"{N_ROWS:,} rows of 150 entities, worth" in samples.sentence
    assert f"{N_ROWS:,} rows of 150 entities, worth" in gate(outcome, "f1_improvement").sentence


def test_intervals_of_rows_that_recur_are_wider() -> None:
    by_entity, by_row = recurring(10), recurring(10, {**LIMITS, "recurring_rows": "independent"})
    for name in ("f1_improvement", "brier_degradation", "recall", "auc_roc"):
        widths = []
        for outcome in (by_entity, by_row):
            low, high = gate(outcome, name).interval_low, gate(outcome, name).interval_high
            assert low is not None
            assert high is not None
            widths.append(high - low)
        assert widths[0] > 1.5 * widths[1], name


def test_entities_with_one_row_each_and_rows_taken_for_independent_are_judged_as_without_entities() -> None:
    assert recurring(10, {**LIMITS, "recurring_rows": "independent"}).action is Action.PROMOTE
    assert recurring(1).action is Action.PROMOTE


def test_another_primary_metric_is_judged_on_one_row_of_each_entity_the_newest() -> None:
    new, old = Scores(np.array([0.1, 0.2, 0.3, 0.4]), 0.5), Scores(np.array([0.5, 0.6, 0.7, 0.8]), 0.5)
    evaluation = Evaluation(np.array([0, 1, 0, 1]), new, old, clusters=np.array([0, 1, 0, 2]))
    one = evaluation.one_row_of_each_entity()
    assert one.labels.tolist() == [1, 0, 1]
    assert one.challenger.probabilities.tolist() == [0.2, 0.3, 0.4]
    assert one.champion is not None
    assert one.champion.probabilities.tolist() == [0.6, 0.7, 0.8]
    assert one.clusters is None
    assert one.one_row_of_each_entity() is one
