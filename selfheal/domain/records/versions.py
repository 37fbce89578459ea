"""Model versions: training sets, shadow models, registered versions, promotions, probations."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Literal

from selfheal.domain.records.monitoring import ScoreMetrics


class Stage(StrEnum):
    """Stage of a registered version. At most one version of a model is in production (a database constraint)."""

    STAGING = "Staging"
    PRODUCTION = "Production"
    ARCHIVED = "Archived"


class ProbationOutcome(StrEnum):
    """How a probation ended. A version without enough labels has not `passed`."""

    PASSED = "passed"
    FAILED = "failed"
    NO_EVIDENCE = "no_evidence"


@dataclass(frozen=True, slots=True)
class ModelVersion:
    """A registered version, as stored in `model_metadata`."""

    model_name: str
    version: int
    stage: Stage
    registered_at: datetime
    promoted_at: datetime | None
    trigger_reason: str
    mlflow_run_id: str
    artifact_uri: str
    artifact_sha256: str
    reference_sha256: str
    contract_hash: str
    threshold: float
    metrics: dict[str, Any]
    n_samples: int
    previous_version: int | None
    decision_id: str | None
    training_window_start: datetime | None = None
    training_window_end: datetime | None = None
    archived_at: datetime | None = None
    probation_until: datetime | None = None


@dataclass(frozen=True, slots=True)
class Promotion:
    """A version going live, by a promotion or a rollback. `position` grows with every one, with gaps."""

    position: int
    model_name: str
    version: int
    replaced_version: int | None
    decision_id: str
    promoted_at: datetime


@dataclass(frozen=True, slots=True)
class TrainingSetInfo:
    """Counts, time span and digest of a training set; the rows are stored separately.

    `decision_id` is the decision to train. `n_original` of the training rows are the champion's own, with `original_weight`
    each; `weight_log_losses` has each candidate weight's log loss (`selfheal.domain.retraining.weighting`).
    `n_both` rows are counted in `n_train` and in `n_evaluation`: they were cross-fitted.
    `n_before_change` of the `n_original` rows are labelled predictions from before the change at `changed_at`.
    `n_copied_inputs` rows were dropped from training because their inputs occur among the evaluation rows,
    `n_repeated_predictions` because the same prediction occurred twice.
    """

    source: str
    sha256: str
    n_train: int
    n_evaluation: int
    n_positive: int
    window_start: datetime | None
    window_end: datetime | None
    label_coverage_pct: float | None
    decision_id: str | None = None
    n_original: int = 0
    original_source: str | None = None
    original_weight: float | None = None
    weight_log_losses: dict[str, float | None] = field(default_factory=dict)
    weight_reason: str = ""
    n_repeated_predictions: int = 0
    n_copied_inputs: int = 0
    changed_at: datetime | None = None
    n_before_change: int = 0
    n_both: int = 0

    @property
    def n_rows(self) -> int:
        """Return the number of rows."""
        return self.n_train + self.n_evaluation - self.n_both


@dataclass(frozen=True, slots=True)
class Calibration:
    """Calibration of probabilities (`selfheal.domain.retraining.calibration`): intercept 0 and slope 1 are perfect."""

    n_rows: int
    intercept: float | None
    slope: float | None
    p_value: float | None
    spiegelhalter_z: float | None


class Repair(StrEnum):
    """What a challenger is made by, the cheapest first."""

    THRESHOLD = "threshold"
    """The champion with another decision threshold."""
    PRIOR_SHIFT = "prior_shift"
    """The champion with a constant added to its log-odds, for another base rate."""
    PLATT = "platt"
    """The champion with a line of its log-odds (Platt scaling)."""
    BETA = "beta"
    """The champion with beta calibration, if its score is not a logistic function."""
    RETURN = "return"
    """An archived version as it was, with a threshold of today."""
    RETRAINING = "retraining"


@dataclass(frozen=True, slots=True)
class Rung:
    """A repair that was compared, on training rows that it had not been fitted to.

    `version` is the registered version that it keeps the fit of; None: a new fit. `f1` is at thresholds of the other folds.
    """

    repair: Repair
    version: int | None
    log_loss: float
    f1: float


@dataclass(frozen=True, slots=True)
class RepairChoice:
    """Which repair a challenger is, why, and what it was chosen from (`selfheal.domain.retraining.repairs`).

    `metric` is the primary metric that it had to improve; the costs count if that is the expected cost.
    """

    repair: Repair
    version: int | None
    reason: str
    rungs: tuple[Rung, ...]
    metric: Literal["f1", "log_loss", "brier", "auc", "expected_cost"] = "f1"
    cost_of_false_alarm: float = 1.0
    cost_of_miss: float = 1.0


@dataclass(frozen=True, slots=True)
class TrainingRecord:
    """What is needed to train the same model again, bit for bit, and the results of its training.

    `out_of_fold` is the calibration before any correction, `recalibration` the correction, `recalibrated` the calibration
    after it (None without a correction), and `evaluation` the calibration on the evaluation rows.
    """

    seed: int
    code_version: str
    libraries: dict[str, str]
    param_grid: dict[str, list[str]]
    out_of_fold: Calibration
    recalibration: str
    recalibrated: Calibration | None
    evaluation: Calibration
    notes: tuple[str, ...] = ()
    repair: RepairChoice | None = None
    """None: nothing but a retraining was considered."""


@dataclass(frozen=True, slots=True)
class ShadowModel:
    """A trained candidate, logged to MLflow and not yet registered."""

    model_name: str
    mlflow_run_id: str
    artifact_uri: str
    artifact_sha256: str
    reference_sha256: str
    contract_hash: str
    threshold: float
    params: dict[str, Any]
    metrics: ScoreMetrics
    training_set: TrainingSetInfo
    trained_at: datetime
    trigger_reason: str
    decision_id: str
    record: TrainingRecord | None = None
    cross_fitted_sha256: str | None = None
    """Of what it was judged by, if its rows were cross-fitted."""


@dataclass(frozen=True, slots=True)
class Reproduction:
    """Result of training a version again.

    `differences`: where the new model differs from the old one, beyond `tolerance`; `changed_since`: what has changed since in
    code, libraries, processor, BLAS and parameter grid, and would explain it. `tolerance` is 0, to the bit, unless
    something of that has changed; `n_rounded` values then differ, but by no more than the tolerance.
    """

    model_name: str
    version: int
    mlflow_run_id: str
    data_sha256: str
    differences: tuple[str, ...]
    changed_since: tuple[str, ...]
    tolerance: float = 0.0
    n_rounded: int = 0

    @property
    def is_identical(self) -> bool:
        """Whether the new model is the old one to the bit."""
        return self.is_reproduced and self.n_rounded == 0

    @property
    def is_reproduced(self) -> bool:
        """Whether the new model is the old one, to the bit or to the tolerance."""
        return not self.differences


@dataclass(frozen=True, slots=True)
class ProbationReport:
    """Comparison of the promoted version with the one it replaced, on the rows it has served since.

    `brier_change` is the served version's Brier score minus the old version's on the same matured, labelled rows: above 0 the
    old one was better. Probation fails only if the one-sided lower bound is above 0 too. Both are None where the thresholds alone
    differ: decisions were judged, and the reason has their loss. `ends_at`: an evaluation at this time or later ends probation; it
    is later than planned if labels are missing. `is_blind`: the old version cannot score these rows.
    """

    model_name: str
    version: int
    previous_version: int | None
    n_labels: int
    brier_change: float | None
    brier_change_low: float | None
    is_on_probation: bool
    reason: str
    outcome: ProbationOutcome | None = None
    ends_at: datetime | None = None
    is_blind: bool = False

    @property
    def is_harmful(self) -> bool:
        """Return whether the promoted version was shown to be worse."""
        return self.outcome is ProbationOutcome.FAILED
