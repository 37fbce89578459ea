"""Records with unremarkable values, of which a test changes what it is about. No rows, no files, no services."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from selfheal.domain.records import (
    Action,
    ColumnDrift,
    ConceptDrift,
    Decision,
    DriftReport,
    Estimate,
    Interval,
    ModelVersion,
    PerformanceReport,
    Regret,
    ScoreMetrics,
    Shortfall,
    Stage,
    Trigger,
    Window,
)
from tests.times import T0


def window(**changes: Any) -> Window:
    values: dict[str, Any] = {
        "model_name": "machine_failure",
        "model_version": 1,
        "start": T0,
        "end": T0 + timedelta(hours=1),
        "n_predictions": 1_000,
        "n_labels": 400,
    }
    return Window(**(values | changes))


def score(**changes: Any) -> ScoreMetrics:
    values: dict[str, Any] = {
        "n_rows": 400,
        "n_positive": 100,
        "f1": 0.6,
        "precision": 0.6,
        "recall": 0.6,
        "auc_roc": 0.85,
        "brier": 0.12,
    }
    return ScoreMetrics(**(values | changes))


def column_drift(column: str, **changes: Any) -> ColumnDrift:
    values: dict[str, Any] = {
        "column": column,
        "method": "ks",
        "p_value": 0.5,
        "threshold": 1e-6,
        "effect": 0.02,
        "is_drifted": False,
        "reference_missing_pct": 0.0,
        "current_missing_pct": 0.0,
        "is_missing_rate_drifted": False,
    }
    values |= changes
    return ColumnDrift(**({"ks_distance": values["effect"]} | values))


def drift_report(**changes: Any) -> DriftReport:
    """Enough rows, nothing drifted."""
    values: dict[str, Any] = {
        "window": window(),
        "reference_version": 1,
        "n_reference": 5_000,
        "n_current": 1_000,
        "columns": (column_drift("load_ratio"), column_drift("restarts")),
        "feature_drift_ratio": 0.0,
        "dataset_drift_detected": False,
        "is_sufficient": True,
    }
    return DriftReport(**(values | changes))


def estimate(auc_low: float, auc_high: float) -> Estimate:
    """An estimate with an interval for AUC-ROC."""
    return Estimate(
        values={"auc_roc": (auc_low + auc_high) / 2},
        intervals={"auc_roc": Interval(auc_low, auc_high)},
        is_identifiable=True,
        is_calibrated=True,
        reason="on calibrated scores",
        n_calibration_rows=5_000,
    )


def regret(**changes: Any) -> Regret:
    """Nothing is lost."""
    values: dict[str, Any] = {
        "n_rows": 400,
        "relation_p_value": 0.4,
        "f1": Shortfall(0.59, 0.6, 0.4),
        "auc_roc": Shortfall(0.84, 0.85, 0.3),
        "parts": None,
    }
    return Regret(**(values | changes))


def performance(**changes: Any) -> PerformanceReport:
    """Labels and estimate agree that all is well."""
    values: dict[str, Any] = {
        "window": window(),
        "reference": score(),
        "realised": score(),
        "brier_excess": 0.001,
        "brier_excess_low": -0.01,
        "estimated_f1": 0.6,
        "estimated_auc_roc": 0.84,
        "estimated_brier": 0.12,
        "label_coverage_pct": 40.0,
        "estimate": estimate(0.80, 0.88),
        "concept_drift": ConceptDrift.NONE_SHOWN,
        "regret": regret(),
    }
    return PerformanceReport(**(values | changes))


def model_version(**changes: Any) -> ModelVersion:
    """A version promoted at `T0` by drift, over version 1."""
    values: dict[str, Any] = {
        "model_name": "machine_failure",
        "version": 2,
        "stage": Stage.PRODUCTION,
        "registered_at": T0,
        "promoted_at": T0,
        "trigger_reason": Trigger.DRIFT.value,
        "mlflow_run_id": "run",
        "artifact_uri": "runs:/run/model",
        "artifact_sha256": "a" * 64,
        "reference_sha256": "b" * 64,
        "contract_hash": "c" * 64,
        "threshold": 0.5,
        "metrics": {"f1": 0.6},
        "n_samples": 1_000,
        "previous_version": 1,
        "decision_id": "decision",
    }
    return ModelVersion(**(values | changes))


def decision(**changes: Any) -> Decision:
    values: dict[str, Any] = {
        "decision_id": "decision",
        "created_at": T0,
        "model_name": "machine_failure",
        "trigger_reason": Trigger.DRIFT.value,
        "action": Action.REJECT,
        "reason": "not better",
        "actor": "test",
    }
    return Decision(**(values | changes))
