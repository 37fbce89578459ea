"""Rules of triage: what each single signal does, and which one outranks which."""

from __future__ import annotations

from typing import Any

import pytest

from selfheal.domain.monitoring.regret import REGRET_LEVEL
from selfheal.domain.monitoring.triage import HarmLimits, harmed_period, triage
from selfheal.domain.records import ConceptDrift, ScorePart, ScoreParts, Severity, Shortfall, Triage, Verdict
from tests.builders import column_drift, drift_report, estimate, performance, regret, score, window

LIMITS = HarmLimits(min_brier_excess=0.01, min_auc=0.72)

DRIFTED: dict[str, Any] = {
    "columns": (column_drift("load_ratio", is_drifted=True, effect=0.4), column_drift("restarts")),
    "feature_drift_ratio": 0.1,
}
BROKEN: dict[str, Any] = {"feed_problems": ("load_ratio: 3 values outside 0 to 5",)}
FEW_ROWS: dict[str, Any] = {
    "is_sufficient": False,
    "n_current": 12,
    "columns": (),
    "feature_drift_ratio": None,
}
REALISED_HARM: dict[str, Any] = {"brier_excess": 0.05, "brier_excess_low": 0.02}
ESTIMATED_HARM: dict[str, Any] = {"estimated_auc_roc": 0.65, "estimate": estimate(0.60, 0.70)}
NOTHING_KNOWN: dict[str, Any] = {
    "realised": None,
    "brier_excess": None,
    "brier_excess_low": None,
    "estimated_f1": None,
    "estimated_auc_roc": None,
    "estimate": None,
    "concept_drift": ConceptDrift.NOT_IDENTIFIABLE,
    "regret": None,
    "estimated_brier": None,
    "label_coverage_pct": None,
}


def concluded(
    drift: dict[str, Any] | None = None, seen: dict[str, Any] | None = None, previous: str | None = None
) -> Triage:
    return triage(drift_report(**(drift or {})), performance(**(seen or {})), LIMITS, previous)


def kinds(outcome: Triage) -> set[str]:
    return {alert.kind for alert in outcome.alerts}


# Each signal by itself


def test_without_any_signal_the_window_is_stable() -> None:
    outcome = concluded()
    assert outcome.verdict is Verdict.STABLE
    assert outcome.alerts == ()
    assert outcome.episode_id is None
    assert outcome.reasons == ("no column has drifted in 1,000 predictions",)


def test_a_drifted_column_alone_is_a_benign_shift() -> None:
    outcome = concluded(DRIFTED)
    assert outcome.verdict is Verdict.BENIGN_SHIFT
    assert outcome.reasons[0] == "load_ratio drifted (KS distance 0.40)"


def test_a_changed_missing_rate_alone_is_a_benign_shift() -> None:
    column = column_drift("temperature_c", is_missing_rate_drifted=True, current_missing_pct=20.0)
    outcome = concluded({"columns": (column,)})
    assert outcome.verdict is Verdict.BENIGN_SHIFT
    assert outcome.reasons[0] == "temperature_c missing in 20 % (reference 0 %)"


@pytest.mark.parametrize(("rank_shift", "told"), [(0.5, "higher, rank shift +0.50"), (-0.5, "lower, rank shift -0.50")])
def test_a_column_that_moved_as_a_whole_is_told_with_its_direction(rank_shift: float, told: str) -> None:
    column = column_drift("load_ratio", is_drifted=True, effect=0.5, ks_distance=0.3, rank_shift=rank_shift)
    assert concluded({"columns": (column,)}).reasons[0] == f"load_ratio drifted ({told})"


def changed_relation(p_value: float, **lost: Any) -> dict[str, Any]:
    return {
        "concept_drift": ConceptDrift.SHOWN,
        "concept_drift_p_value": p_value,
        "concept_drift_rows": 1_200,
        "regret": regret(relation_p_value=p_value, **lost),
    }


def test_a_changed_relation_alone_is_a_shift_and_never_stable() -> None:
    outcome = concluded(seen=changed_relation(9e-4))
    assert outcome.verdict is Verdict.BENIGN_SHIFT
    assert outcome.reasons[0] == "the relation between inputs and outcome has changed (p = 0.0009, 1,200 labels)"


def test_a_relation_that_has_certainly_changed_asks_for_a_retraining() -> None:
    """Whether the signed loss has risen or not: the riskiest may have become average."""
    outcome = concluded(seen=changed_relation(1e-6) | {"brier_excess": -0.01, "brier_excess_low": -0.02})
    assert outcome.verdict is Verdict.HARMFUL_SHIFT
    assert outcome.reasons[0] == (
        "score and outcome are no longer related as in the reference: only a repair fits them again"
    )
    assert outcome.reasons[1].startswith("the relation between inputs and outcome has changed (p = 1e-06")


def test_a_changed_relation_says_in_which_part_of_the_score_the_loss_lies() -> None:
    lost = ScoreParts(0.02, ScorePart(0.008, 0.002, 0.005), ScorePart(0.012, 0.022, 0.005))
    outcome = concluded(seen=changed_relation(1e-6, parts=lost))
    assert outcome.reasons[0] == (
        "score and outcome are no longer related as in the reference (30% of the Brier score's skill is lost to miscalibration "
        "and 50% of the Brier score's skill is lost to discrimination): only a repair fits them again"
    )


@pytest.mark.parametrize(
    ("lost", "told"),
    [
        ({"f1": Shortfall(0.3, 0.6, 1e-7)}, "realised F1 is 0.300 where the reference lets expect 0.600"),
        ({"auc_roc": Shortfall(0.7, 0.85, 1e-7)}, "realised AUC-ROC is 0.700 where the reference lets expect 0.850"),
    ],
    ids=["F1", "AUC"],
)
def test_a_realised_loss_of_decisions_or_of_ranking_alone_is_a_harmful_shift(lost: dict[str, Any], told: str) -> None:
    outcome = concluded(seen={"regret": regret(**lost)})
    assert outcome.verdict is Verdict.HARMFUL_SHIFT
    assert outcome.reasons == (f"{told} of these inputs (p = 1e-07, 400 labels)",)


def test_a_stable_window_says_what_it_cannot_know() -> None:
    outcome = concluded(seen={"concept_drift": ConceptDrift.NOT_IDENTIFIABLE})
    assert outcome.verdict is Verdict.STABLE
    assert "too few labels have matured" in outcome.reasons[1]


def test_columns_that_moved_only_together_are_a_benign_shift() -> None:
    outcome = concluded({"is_multivariate_drifted": True, "domain_auc": 0.71})
    assert outcome.verdict is Verdict.BENIGN_SHIFT
    assert "a classifier's AUC is 0.71" in outcome.reasons[0]


def test_a_drifted_probability_alone_is_a_benign_shift() -> None:
    columns = (column_drift("load_ratio"), column_drift("probability", is_drifted=True, effect=0.3))
    assert concluded({"columns": columns}).verdict is Verdict.BENIGN_SHIFT


def test_realised_harm_alone_is_a_harmful_shift() -> None:
    outcome = concluded(seen=REALISED_HARM)
    assert outcome.verdict is Verdict.HARMFUL_SHIFT
    assert outcome.reasons == ("realised Brier score is 0.050 worse than announced (at least 0.020, 400 labels)",)


def test_estimated_harm_alone_is_a_harmful_shift() -> None:
    outcome = concluded(seen=ESTIMATED_HARM)
    assert outcome.verdict is Verdict.HARMFUL_SHIFT
    assert outcome.reasons == ("AUC-ROC is estimated at 0.650 (at most 0.700), below 0.72",)


def test_a_feed_problem_alone_is_a_broken_feed() -> None:
    outcome = concluded(BROKEN)
    assert outcome.verdict is Verdict.BROKEN_FEED
    assert outcome.reasons == BROKEN["feed_problems"]


def test_harm_that_labels_prove_is_named_beside_a_broken_feed() -> None:
    outcome = concluded(BROKEN, {"brier_excess": 0.02, "brier_excess_low": 0.012})
    assert outcome.verdict is Verdict.BROKEN_FEED
    assert outcome.reasons[0] == BROKEN["feed_problems"][0]
    assert outcome.reasons[1].startswith("labels show harm nevertheless: realised Brier score is 0.020 worse")


def test_a_stable_window_says_what_rows_that_recur_are_worth() -> None:
    outcome = concluded({"n_current": 1_000, "copies": 1.6})
    assert "rows recur: the window is worth 625 independent predictions" in outcome.reasons
    assert not [reason for reason in concluded({"n_current": 1_000}).reasons if "recur" in reason]


def test_a_shift_that_is_explained_is_stable_and_says_why() -> None:
    outcome = concluded({"explained": ("load_ratio has moved higher as 3 times before",)})
    assert outcome.verdict is Verdict.STABLE
    assert "load_ratio has moved higher as 3 times before" in outcome.reasons


def test_too_few_rows_are_insufficient() -> None:
    outcome = concluded(FEW_ROWS)
    assert outcome.verdict is Verdict.INSUFFICIENT
    assert outcome.reasons == ("only 12 predictions to compare",)
    assert outcome.alerts == ()


# What is not harm


@pytest.mark.parametrize(
    "seen",
    [
        pytest.param({"brier_excess": 0.05, "brier_excess_low": 0.0}, id="within its noise"),
        pytest.param({"brier_excess": 0.009, "brier_excess_low": 0.005}, id="immaterial"),
        pytest.param({"brier_excess": -0.05, "brier_excess_low": -0.08}, id="better than announced"),
        pytest.param({"brier_excess": 0.05, "brier_excess_low": None}, id="bound unknown"),
        pytest.param({"brier_excess": None, "brier_excess_low": None}, id="no labels"),
        pytest.param({"regret": regret(f1=Shortfall(0.3, 0.6, REGRET_LEVEL))}, id="a loss of F1 that may be chance"),
        pytest.param({"regret": regret(f1=Shortfall(0.55, 0.6, 1e-9))}, id="F1 lower by less than a tenth"),
        pytest.param(
            {"regret": regret(auc_roc=Shortfall(0.82, 0.85, 1e-9))}, id="AUC lower by less than a tenth of its worth"
        ),
        pytest.param({"regret": None}, id="regret unknown"),
        pytest.param({"estimated_auc_roc": 0.70, "estimate": estimate(0.68, 0.72)}, id="AUC may be at the limit"),
        pytest.param({"estimated_auc_roc": None, "estimate": estimate(0.60, 0.70)}, id="not enough rows to estimate"),
        pytest.param({"estimated_auc_roc": 0.65, "estimate": None}, id="no interval"),
        pytest.param(
            {"estimated_auc_roc": 0.70, "estimate": estimate(0.69, 0.71), "reference": score(auc_roc=0.69)},
            id="the model never was better",
        ),
    ],
)
def test_this_is_not_harm(seen: dict[str, Any]) -> None:
    assert concluded(seen=seen).verdict is Verdict.STABLE


def test_an_unknown_auc_at_training_does_not_excuse_a_bad_estimate() -> None:
    assert concluded(seen=ESTIMATED_HARM | {"reference": score(auc_roc=None)}).verdict is Verdict.HARMFUL_SHIFT


# Precedence


@pytest.mark.parametrize("other", [DRIFTED, FEW_ROWS], ids=["drift", "few rows"])
@pytest.mark.parametrize("seen", [{}, REALISED_HARM, ESTIMATED_HARM, NOTHING_KNOWN], ids=["", "real", "est", "unknown"])
def test_a_broken_feed_outranks_all_else(other: dict[str, Any], seen: dict[str, Any]) -> None:
    assert concluded(other | BROKEN, seen).verdict is Verdict.BROKEN_FEED


def test_harm_outranks_drift_and_both_are_told() -> None:
    outcome = concluded(DRIFTED, REALISED_HARM)
    assert outcome.verdict is Verdict.HARMFUL_SHIFT
    assert len(outcome.reasons) == 2
    assert outcome.reasons[1].startswith("load_ratio drifted")


def test_harm_shown_by_labels_outranks_too_few_rows() -> None:
    assert concluded(FEW_ROWS, REALISED_HARM).verdict is Verdict.HARMFUL_SHIFT


def test_harm_estimated_on_too_few_rows_is_no_harm() -> None:
    """A handful of predictions has some estimated AUC or other; it says nothing."""
    outcome = concluded(FEW_ROWS, ESTIMATED_HARM)
    assert outcome.verdict is Verdict.INSUFFICIENT
    assert outcome.alerts == ()


def test_unknown_is_never_stable() -> None:
    assert concluded(FEW_ROWS, NOTHING_KNOWN).verdict is Verdict.INSUFFICIENT


# Alerts


@pytest.mark.parametrize(
    ("drift", "seen", "expected"),
    [
        (BROKEN, {}, {"broken_feed": Severity.CRITICAL}),
        ({}, REALISED_HARM, {"harmful_shift": Severity.CRITICAL}),
        (DRIFTED | {"feature_drift_ratio": 0.2}, {}, {}),
        (DRIFTED | {"feature_drift_ratio": 0.21}, {}, {"feature_drift": Severity.WARNING}),
        (DRIFTED | {"dataset_drift_detected": True}, {}, {"dataset_drift": Severity.CRITICAL}),
        ({"columns": tuple(column_drift(f"f{i}", is_drifted=True) for i in range(5))}, {}, {}),
        (
            {"columns": tuple(column_drift(f"f{i}", is_drifted=True) for i in range(6))},
            {},
            {"many_features_drifted": Severity.WARNING},
        ),
    ],
    ids=["broken", "harm", "ratio at the limit", "ratio", "dataset", "five features", "six features"],
)
def test_each_alert_has_its_own_cause(
    drift: dict[str, Any], seen: dict[str, Any], expected: dict[str, Severity]
) -> None:
    assert {alert.kind: alert.severity for alert in concluded(drift, seen).alerts} == expected


def test_a_broken_feed_does_not_hide_the_drift_it_causes() -> None:
    assert kinds(concluded(BROKEN | DRIFTED | {"feature_drift_ratio": 0.5})) == {"broken_feed", "feature_drift"}


# Episodes


def test_consecutive_shifted_ticks_are_one_episode() -> None:
    first = concluded(DRIFTED)
    assert first.episode_id == window().tick_id
    second = concluded(DRIFTED | {"window": window(n_predictions=2_000)}, previous=first.episode_id)
    assert second.episode_id == first.episode_id
    third = concluded({"window": window(n_predictions=3_000)}, REALISED_HARM, previous=second.episode_id)
    assert third.episode_id == first.episode_id


def test_a_tick_with_too_few_rows_neither_opens_nor_closes_an_episode() -> None:
    assert concluded(FEW_ROWS).episode_id is None
    assert concluded(FEW_ROWS, previous="episode").episode_id == "episode"


@pytest.mark.parametrize("closing", [{}, BROKEN], ids=["stable", "broken feed"])
def test_a_stable_tick_and_a_broken_feed_close_the_episode(closing: dict[str, Any]) -> None:
    assert concluded(closing, previous="episode").episode_id is None


def test_the_next_shift_after_a_stable_tick_is_another_episode() -> None:
    first = concluded(DRIFTED)
    calm = concluded({"window": window(n_predictions=2_000)}, previous=first.episode_id)
    second = concluded(DRIFTED | {"window": window(n_predictions=3_000)}, previous=calm.episode_id)
    assert second.episode_id not in {None, first.episode_id}


JUDGED: dict[str, Any] = {"matured_since": window().start, "matured_until": window().end}


@pytest.mark.parametrize(
    ("seen", "is_proven"),
    [
        (REALISED_HARM, True),
        ({"regret": regret(f1=Shortfall(0.3, 0.6, REGRET_LEVEL / 10))}, True),
        (ESTIMATED_HARM, False),
        ({"concept_drift": ConceptDrift.SHOWN, "concept_drift_p_value": 1e-6}, False),
        (NOTHING_KNOWN, False),
        ({}, False),
    ],
    ids=["realised", "regret", "estimated", "relation alone", "unknown", "calm"],
)
def test_only_labels_prove_over_which_time_there_was_harm(seen: dict[str, Any], is_proven: bool) -> None:
    found = harmed_period(performance(**(seen | JUDGED)), LIMITS)
    assert found == ((window().start, window().end) if is_proven else None)
