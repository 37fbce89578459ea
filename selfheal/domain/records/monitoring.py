"""Monitoring: windows, drift, performance, verdicts and ticks.

Times are timezone-aware UTC. A probability is that of class 1. Where a number is not known it is None, never 0 or NaN.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from selfheal.domain.records.alerts import Alert
from selfheal.kit.serialization import digest_of


class Tone(StrEnum):
    """How a state is to be taken: what a page paints it in, never the only thing that says it."""

    GOOD = "good"
    WARNING = "warning"
    BAD = "bad"
    UNKNOWN = "unknown"


class Verdict(StrEnum):
    """What a monitoring tick concludes of the traffic it saw."""

    STABLE = "stable"
    BENIGN_SHIFT = "benign_shift"
    HARMFUL_SHIFT = "harmful_shift"
    BROKEN_FEED = "broken_feed"
    INSUFFICIENT = "insufficient"

    @property
    def is_shift(self) -> bool:
        """Whether the traffic has shifted, harmfully or not."""
        return self in {Verdict.BENIGN_SHIFT, Verdict.HARMFUL_SHIFT}


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

    `effect` is the larger of `ks_distance` and the size of `rank_shift` (see `selfheal.domain.monitoring.shift`); `n_rows` are those
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
    """How well a classifier tells the window from the reference (`selfheal.domain.monitoring.multivariate`)."""
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
        """Whether the sample tells when a row has matured."""
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
