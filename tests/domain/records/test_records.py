"""Rules of the records: through JSON and back without loss, and nothing unknown dressed up as a number."""

from __future__ import annotations

import json
import math
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from selfheal.domain.records import (
    Action,
    Alert,
    Condition,
    DriftReport,
    GateResult,
    GateStatus,
    GateVerdict,
    ProxyMetrics,
    SegmentDifference,
    Severity,
    ShadowModel,
    TrainingSetInfo,
    Triage,
    Trigger,
    Verdict,
    monitoring,
    versions,
)
from selfheal.kit.serialization import digest_of, from_dict, to_dict, to_json
from tests.builders import column_drift, decision, drift_report, model_version, performance, score, window
from tests.times import T0


def test_a_critical_alert_is_more_urgent_than_a_warning_and_that_than_information() -> None:
    assert sorted(["warning", "critical", "info"], key=lambda text: Severity(text).rank) == [
        "info",
        "warning",
        "critical",
    ]


SHADOW = ShadowModel(
    model_name="machine_failure",
    mlflow_run_id="run",
    artifact_uri="runs:/run/model",
    artifact_sha256="a",
    reference_sha256="b",
    contract_hash="c",
    threshold=0.4,
    params={"classify__C": 0.1, "folds": 5, "class_weight": None},
    metrics=score(),
    training_set=TrainingSetInfo("source", "d", 700, 300, 90, T0, T0 + timedelta(days=1), None),
    trained_at=T0,
    trigger_reason=Trigger.DRIFT.value,
    decision_id="decision",
)
DECISION = decision(
    action=Action.INCONCLUSIVE,
    conditions=(Condition("champion", True, "version 1 is in production"),),
    gates=(
        GateResult("recall", GateStatus.PASS, 0.5, 0.3, "recall 0.500"),
        GateResult("f1_improvement", GateStatus.INCONCLUSIVE, 3.0, 2.0, "chance", -0.01, 0.05),
        GateResult("auc_roc", GateStatus.FAIL, 0.6, 0.72, "AUC"),
        GateResult("label_coverage", GateStatus.NOT_APPLICABLE, None, 30.0, "no predictions"),
    ),
)
TRIAGE = Triage(
    window(),
    Verdict.HARMFUL_SHIFT,
    ("worse",),
    (Alert("harmful_shift", Severity.CRITICAL, "worse", {"brier_excess": 0.1, "num_drifted_features": 3, "a": None}),),
    "episode",
)


@pytest.mark.parametrize(
    "record",
    [
        window(last_label_at=T0),
        score(auc_roc=None),
        ProxyMetrics(window(), 0.1, 0.2, None, 0.5),
        drift_report(feed_problems=("x",), columns=(column_drift("a", is_drifted=True),), feature_drift_ratio=None),
        performance(realised=None),
        TRIAGE,
        model_version(training_window_start=T0, probation_until=T0),
        DECISION,
        SHADOW,
        GateVerdict(DECISION, SHADOW, None, score(), (SegmentDifference("age in [30, 45)", 40, 0.5, 0.6),)),
        versions.ProbationReport(
            "machine_failure", 2, 1, 3, None, None, False, "too few", versions.ProbationOutcome.NO_EVIDENCE, T0
        ),
    ],
    ids=lambda record: type(record).__name__,
)
def test_a_record_survives_json(record: object) -> None:
    assert from_dict(type(record), json.loads(to_json(record))) == record
    assert from_dict(type(record), to_dict(record)) == record


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_number_survives_json_to_the_last_bit(value: float) -> None:
    again = from_dict(monitoring.ScoreMetrics, json.loads(to_json(score(brier=value))))
    assert again.brier == value


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_not_a_number_is_refused(value: float) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        to_json(score(brier=value))
    with pytest.raises(ValueError, match="not JSON compliant"):
        to_json(Alert("kind", Severity.INFO, "message", {"value": value}))


@pytest.mark.parametrize(
    "values",
    [{}, to_dict(window()) | {"n_labels": "many"}, to_dict(window()) | {"start": "yesterday"}, [1]],
    ids=["empty", "text in a count", "no time", "a list"],
)
def test_values_that_are_no_such_record_are_refused(values: object) -> None:
    with pytest.raises(ValidationError):
        from_dict(monitoring.Window, values)


def test_the_same_traffic_and_labels_have_the_same_tick_id() -> None:
    assert window().tick_id == window().tick_id
    assert window(start=T0 - timedelta(hours=3)).tick_id == window().tick_id


@pytest.mark.parametrize(
    "changes",
    [
        {"model_name": "other"},
        {"model_version": 2},
        {"end": T0 + timedelta(hours=2)},
        {"n_predictions": 1_001},
        {"n_labels": 401},
        {"last_label_at": T0},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_other_traffic_or_labels_have_another_tick_id(changes: dict[str, object]) -> None:
    assert window(**changes).tick_id != window().tick_id


def test_drifted_features_are_listed_strongest_first_without_the_probability() -> None:
    report: DriftReport = drift_report(
        columns=(
            column_drift("weak", is_drifted=True, effect=0.2),
            column_drift("calm", effect=0.9),
            column_drift("strong", is_drifted=True, effect=0.6),
            column_drift("absent", is_missing_rate_drifted=True, effect=0.0),
            column_drift("probability", is_drifted=True, effect=0.7),
        )
    )
    assert report.drifted_features == ("strong", "weak", "absent")


def test_failed_gates_are_those_that_failed_or_could_not_tell() -> None:
    assert DECISION.failed_gates == ("f1_improvement", "auc_roc")


@pytest.mark.parametrize("action", list(Action))
def test_only_a_promotion_promotes(action: Action) -> None:
    verdict = GateVerdict(decision(action=action), SHADOW, None, score())
    assert verdict.is_promotion == (action in {Action.PROMOTE, Action.FORCE_PROMOTE})


@pytest.mark.parametrize("verdict", list(Verdict))
def test_only_shifts_are_shifts(verdict: Verdict) -> None:
    assert verdict.is_shift == verdict.value.endswith("_shift")


def test_a_digest_depends_on_the_values_and_not_on_the_order_of_keys() -> None:
    assert digest_of({"a": 1, "b": 2}) == digest_of({"b": 2, "a": 1})
    assert digest_of(1, 2) != digest_of(2, 1)
    assert digest_of("1") != digest_of(1)
    assert digest_of(T0) != digest_of(T0 + timedelta(microseconds=1))
