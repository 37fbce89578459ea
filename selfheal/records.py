"""What one stage of the loop hands to the next: frozen dataclasses, no behaviour beyond (de)serialisation.

Times are timezone-aware UTC. A probability is that of class 1. Where a number is not known it is None, never 0 or NaN.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from pydantic import TypeAdapter

RecordT = TypeVar("RecordT")


class Verdict(StrEnum):
    """What a monitoring tick concludes of the traffic it saw."""

    STABLE = "stable"
    BENIGN_SHIFT = "benign_shift"
    HARMFUL_SHIFT = "harmful_shift"
    BROKEN_FEED = "broken_feed"
    INSUFFICIENT = "insufficient"

    @property
    def is_shift(self) -> bool:
        return self in {Verdict.BENIGN_SHIFT, Verdict.HARMFUL_SHIFT}


class Severity(StrEnum):
    INFO = "info"
    WARNING = "warning"
    CRITICAL = "critical"


class Action(StrEnum):
    """What a decision record did."""

    SKIP = "skip"
    TRAIN = "train"
    PROMOTE = "promote"
    REJECT = "reject"
    INCONCLUSIVE = "inconclusive"
    ROLLBACK = "rollback"
    FORCE_PROMOTE = "force_promote"


class Trigger(StrEnum):
    """Why a retraining was asked for."""

    BOOTSTRAP = "bootstrap"
    DRIFT = "drift"
    PERFORMANCE = "performance"
    SCHEDULE = "schedule"
    MANUAL = "manual"
    PROBATION = "probation"


class Stage(StrEnum):
    """Where a registered version stands. At most one version of a model is in production (a database constraint)."""

    STAGING = "Staging"
    PRODUCTION = "Production"
    ARCHIVED = "Archived"


class ProbationOutcome(StrEnum):
    """How a probation ended. Without enough labels nothing was shown: that is not `passed`."""

    PASSED = "passed"
    FAILED = "failed"
    NO_EVIDENCE = "no_evidence"


class GateStatus(StrEnum):
    PASS = "PASS"  # noqa: S105  (a gate's status, not a password)
    FAIL = "FAIL"
    INCONCLUSIVE = "INCONCLUSIVE"
    NOT_APPLICABLE = "NOT_APPLICABLE"


@dataclass(frozen=True, slots=True)
class ScoreMetrics:
    """Quality of one model on labelled rows. Precision, recall and F1 are at the model's own threshold."""

    n_rows: int
    n_positive: int
    f1: float
    precision: float
    recall: float
    auc_roc: float | None
    brier: float


@dataclass(frozen=True, slots=True)
class Window:
    """The traffic a tick looks at: predictions of `model_version` in (start, end]."""

    model_name: str
    model_version: int
    start: datetime
    end: datetime
    n_predictions: int
    n_labels: int
    last_label_at: datetime | None = None

    @property
    def tick_id(self) -> str:
        """The same traffic and labels give the same id, so that looking twice writes one row."""
        return digest_of(
            self.model_name, self.model_version, self.end, self.n_predictions, self.n_labels, self.last_label_at
        )[:16]


@dataclass(frozen=True, slots=True)
class ProxyMetrics:
    """Exact aggregates of the window that need no label. Entropy is the predictions' mean, in bits."""

    window: Window
    positive_rate: float | None
    probability_mean: float | None
    probability_std: float | None
    entropy: float | None


@dataclass(frozen=True, slots=True)
class ColumnDrift:
    """One column against the reference, in the window that shows it best: the whole look-back or its newest rows.

    `effect` is the larger of `ks_distance` and the size of `rank_shift` (see `selfheal.monitoring.shift`); `n_rows` are those
    of the window shown.
    """

    column: str
    method: str
    p_value: float
    threshold: float
    effect: float
    is_drifted: bool
    reference_missing_pct: float
    current_missing_pct: float
    is_missing_rate_drifted: bool
    ks_distance: float = 0.0
    rank_shift: float = 0.0
    n_rows: int = 0


@dataclass(frozen=True, slots=True)
class DriftReport:
    """All columns of a window against a frozen reference."""

    window: Window
    reference_version: int
    n_reference: int
    n_current: int
    columns: tuple[ColumnDrift, ...]
    feature_drift_ratio: float | None
    dataset_drift_detected: bool
    is_sufficient: bool
    report_ref: str | None = None
    feed_problems: tuple[str, ...] = ()
    feed_checked_since: datetime | None = None
    """The oldest of the newest rows, which alone say whether the feed is broken now."""
    baseline_drifted_features: tuple[str, ...] = ()
    domain_auc: float | None = None
    """How well a classifier tells the window from the reference (`selfheal.monitoring.multivariate`)."""
    domain_p_value: float | None = None
    is_multivariate_drifted: bool = False

    @property
    def drifted_features(self) -> tuple[str, ...]:
        """Drifted features, the strongest first. The predicted probability is not a feature and not listed."""
        drifted = [c for c in self.columns if (c.is_drifted or c.is_missing_rate_drifted) and c.column != "probability"]
        return tuple(c.column for c in sorted(drifted, key=lambda c: -c.effect))


class ConceptDrift(StrEnum):
    """Whether the relation between score and outcome has changed. Only labels can tell; an estimate never can."""

    NOT_IDENTIFIABLE = "not_identifiable"
    NONE_SHOWN = "none_shown"
    SHOWN = "shown"


@dataclass(frozen=True, slots=True)
class Interval:
    """A 95 % interval, both ends included."""

    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Estimate:
    """What the labels of a window's rows are expected to show, by CBPE; empty `values` where that is not identifiable.

    `values` and `intervals` go by metric: f1, precision, recall, auc_roc, brier, positive_rate (the share of true events);
    one that is not defined is left out. The intervals are predictive: they are for what the labels of these very rows will show.
    `reason` says in a sentence what the estimate rests on, or why there is none. `effective_calibration_rows` is what the
    calibration rows are worth once they are mixed like the window; `uncovered_pct` of the window's rows are of a kind that
    they hardly hold.
    """

    values: dict[str, float]
    intervals: dict[str, Interval]
    is_identifiable: bool
    is_calibrated: bool
    reason: str
    n_calibration_rows: int
    effective_calibration_rows: float | None = None
    uncovered_pct: float | None = None


@dataclass(frozen=True, slots=True)
class LabelDelay:
    """How long labels take, from a sample of the version's predictions: the age from which on a row counts as matured.

    `matured_after_s` is None where that is not identifiable (`reason` says why): few labels, or they are still coming in.
    `quantiles_s` are the ages in seconds by which 10, 50, 90 % of the labels that come have come; `expected_coverage_pct`
    is the share of predictions that are labelled in the end.
    """

    n_predictions: int
    n_labels: int
    matured_after_s: float | None
    reason: str
    quantiles_s: dict[str, float] = field(default_factory=dict)
    expected_coverage_pct: float | None = None

    @property
    def is_identifiable(self) -> bool:
        return self.matured_after_s is not None


@dataclass(frozen=True, slots=True)
class PerformanceReport:
    """Realised metrics on labelled rows and CBPE's estimate on all rows; either may be unknown.

    `brier_excess` is the realised Brier score minus the one the model's own probabilities announce, p(1 - p), on the same
    rows: 0 in expectation while the probabilities hold, whatever the mix of inputs; `brier_excess_low` is its one-sided
    lower bound.

    `realised` is on matured rows where `is_matured` (`matured_coverage_pct` of them are labelled); else on all labelled ones,
    of which the early may be a biased part.
    `realised_intervals` are 95 % confidence intervals for the quality on such rows. `estimated_*` are `estimate.values`, as
    `monitoring_metrics` keeps them. `concept_drift` is by labels alone, with `concept_drift_p_value` on `concept_drift_rows`.
    """

    window: Window
    reference: ScoreMetrics
    realised: ScoreMetrics | None
    brier_excess: float | None
    brier_excess_low: float | None
    estimated_f1: float | None
    estimated_auc_roc: float | None
    estimated_brier: float | None
    label_coverage_pct: float | None
    realised_intervals: dict[str, Interval] = field(default_factory=dict)
    is_matured: bool = False
    matured_coverage_pct: float | None = None
    label_delay: LabelDelay | None = None
    estimate: Estimate | None = None
    concept_drift: ConceptDrift = ConceptDrift.NOT_IDENTIFIABLE
    concept_drift_p_value: float | None = None
    concept_drift_rows: int = 0


@dataclass(frozen=True, slots=True)
class SpoiledPeriod:
    """When a version's feed was broken, as one tick saw it; both ends belong to the period."""

    model_version: int
    started_at: datetime
    ended_at: datetime
    reasons: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Alert:
    """One thing a person should know. While open, at most one per kind and model version (a database constraint)."""

    kind: str
    severity: Severity
    message: str
    metrics: dict[str, float | int | str | None] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Triage:
    """The tick's conclusion, with every reason. `alerts` are those that hold now; the store keeps them open or closes."""

    window: Window
    verdict: Verdict
    reasons: tuple[str, ...]
    alerts: tuple[Alert, ...]
    episode_id: str | None


@dataclass(frozen=True, slots=True)
class TickRecord:
    """All that one tick saw and concluded, as its JSON file keeps it."""

    triage: Triage
    proxy: ProxyMetrics
    drift: DriftReport
    performance: PerformanceReport


@dataclass(frozen=True, slots=True)
class Condition:
    """One thing that must hold before a retraining starts."""

    name: str
    is_met: bool
    reason: str


@dataclass(frozen=True, slots=True)
class ModelVersion:
    """A registered version, as `model_metadata` has it."""

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
class Decision:
    """One link of the hash-chained record of what the loop decided and why. `hash` and `prev_hash` are the store's."""

    decision_id: str
    created_at: datetime
    model_name: str
    trigger_reason: str
    action: Action
    reason: str
    actor: str
    champion_version: int | None = None
    challenger_version: int | None = None
    mlflow_run_id: str | None = None
    episode_id: str | None = None
    attempt: int = 0
    n_labels: int = 0
    conditions: tuple[Condition, ...] = ()
    gates: tuple[GateResult, ...] = ()
    data_sha256: str | None = None
    model_sha256: str | None = None
    gate_config_sha256: str | None = None
    code_version: str | None = None
    look: int | None = None
    """Of a verdict: the how-manieth on this champion since it went live, from 1 on; the level of the gates depends on it."""
    gate_config: dict[str, Any] | None = None
    """Of a verdict: the gates' limits in force."""

    @property
    def failed_gates(self) -> tuple[str, ...]:
        return tuple(g.name for g in self.gates if g.status in {GateStatus.FAIL, GateStatus.INCONCLUSIVE})


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
class GateResult:
    """One gate: what was measured, what was asked, and a sentence for people.

    The interval is the value's, in its unit: of an F1 improvement at the level of the look, of segments at a level that they
    share, else of 95 %. `n_rows` are those that the value rests on.
    """

    name: str
    status: GateStatus
    value: float | None
    threshold: float | None
    sentence: str
    interval_low: float | None = None
    interval_high: float | None = None
    n_rows: int | None = None


@dataclass(frozen=True, slots=True)
class TrainingSetInfo:
    """What a training set holds: counts, time span and digest. The rows travel beside it.

    `decision_id` is the decision to train that it was gathered for. `n_original` of the training rows are the champion's own,
    with `original_weight` each; `weight_log_losses` are what each candidate weight came to (`selfheal.retraining.weighting`).
    `n_copied_inputs` rows were dropped from training because their inputs occur among the evaluation rows,
    `n_repeated_predictions` because the same prediction was there twice.
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


@dataclass(frozen=True, slots=True)
class Calibration:
    """How far probabilities mean what they say (`selfheal.retraining.calibration`): intercept 0 and slope 1 are right."""

    n_rows: int
    intercept: float | None
    slope: float | None
    p_value: float | None
    spiegelhalter_z: float | None


@dataclass(frozen=True, slots=True)
class TrainingRecord:
    """What it takes to train the same model again, to the bit, and what its training showed.

    `out_of_fold` is the calibration before anything was done about it, `recalibration` what was done, `recalibrated` the
    calibration after it (None if nothing was), `evaluation` that on the evaluation rows.
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


@dataclass(frozen=True, slots=True)
class Reproduction:
    """What came of training a version again. `differences`: in what the new model is not the old one; `changed_since`: what
    code, libraries, machine and parameter grid are not as they were, and would explain it."""

    model_name: str
    version: int
    mlflow_run_id: str
    data_sha256: str
    differences: tuple[str, ...]
    changed_since: tuple[str, ...]

    @property
    def is_identical(self) -> bool:
        return not self.differences


@dataclass(frozen=True, slots=True)
class SegmentDifference:
    """F1 of both models within one slice of the evaluation rows, and the interval of challenger minus champion.

    The intervals of all slices hold together with a chance of 95 %.
    """

    segment: str
    n_rows: int
    champion_f1: float
    challenger_f1: float
    interval_low: float | None = None
    interval_high: float | None = None


@dataclass(frozen=True, slots=True)
class ShadowScoring:
    """What the challenger says of the champion's newest live predictions, beside what the champion said.

    Shares are between 0 and 1. `agreement` is the share with the same prediction, each model at its own threshold;
    `ks_distance` the largest distance of the two score distributions; differences are of probabilities, without sign.
    `latency_ms_per_row` is measured on all rows at once, `latency_ms_single` (median) on rows one by one. `problem` says why
    the challenger does not score these rows; all that would be compared is then unknown.
    """

    model_version: int
    n_rows: int
    first_at: datetime
    last_at: datetime
    champion_positive_rate: float
    challenger_positive_rate: float | None = None
    agreement: float | None = None
    agreement_interval: Interval | None = None
    mean_score_difference: float | None = None
    largest_score_difference: float | None = None
    ks_distance: float | None = None
    latency_ms_per_row: float | None = None
    latency_ms_single: float | None = None
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class WorthLabelling:
    """An unlabelled prediction on which champion and challenger disagree: its label would tell them apart."""

    prediction_id: str
    created_at: datetime
    champion_probability: float
    challenger_probability: float


@dataclass(frozen=True, slots=True)
class GateVerdict:
    """All gates together. Promote only if every applicable gate passes.

    The metrics of a model that does not score every evaluation row are not known. `worth_labelling` is empty unless more
    labels could tell.
    """

    decision: Decision
    shadow: ShadowModel
    champion_metrics: ScoreMetrics | None
    challenger_metrics: ScoreMetrics | None
    segments: tuple[SegmentDifference, ...] = ()
    shadow_scoring: ShadowScoring | None = None
    worth_labelling: tuple[WorthLabelling, ...] = ()

    @property
    def is_promotion(self) -> bool:
        return self.decision.action in {Action.PROMOTE, Action.FORCE_PROMOTE}


@dataclass(frozen=True, slots=True)
class ProbationReport:
    """How the promoted version does against the one it replaced, on the rows it has served since.

    `brier_change` is the served version's Brier score minus the old version's on the same matured, labelled rows: above 0 the
    old one was better. It failed only if the one-sided lower bound is above 0 too. `ends_at`: from then on a look ends it;
    later than planned while labels are waited for. `is_blind`: the old version cannot score these rows.
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
        return self.outcome is ProbationOutcome.FAILED


def digest_of(*parts: object) -> str:
    """sha256 of the parts' canonical JSON."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()


def to_json(record: object) -> bytes:
    """A record as JSON; NaN and infinities are refused (unknown is None)."""
    return json.dumps(to_dict(record), allow_nan=False, indent=1).encode()


def to_dict(record: object) -> dict[str, Any]:
    """A record as plain JSON types."""
    dumped: dict[str, Any] = _adapter(record.__class__).dump_python(record, mode="json")
    return dumped


def from_dict(kind: type[RecordT], values: object) -> RecordT:
    """The record of `kind` that `to_dict` gave.

    Raises:
        pydantic.ValidationError: if the values are not such a record.
    """
    record: RecordT = _adapter(kind).validate_python(values)
    return record


_adapters: dict[object, TypeAdapter[Any]] = {}
"""One for each kind of record: building one takes milliseconds."""


def _adapter(kind: Any) -> TypeAdapter[Any]:
    from pydantic import TypeAdapter

    if kind not in _adapters:
        _adapters[kind] = TypeAdapter(kind)
    return _adapters[kind]
