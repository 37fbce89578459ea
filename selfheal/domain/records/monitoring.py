"""Monitoring: windows, drift, performance, verdicts and ticks.

Times are timezone-aware UTC. A probability is that of class 1. An unknown number is None, never 0 or NaN.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum

from selfheal.domain.records.alerts import Alert
from selfheal.kit.serialization import digest_of


class Tone(StrEnum):
    """Tone of a state: its colour on a page, which never replaces the text."""

    GOOD = "good"
    WARNING = "warning"
    BAD = "bad"
    UNKNOWN = "unknown"


class Verdict(StrEnum):
    """What a monitoring tick concludes about its window."""

    STABLE = "stable"
    BENIGN_SHIFT = "benign_shift"
    HARMFUL_SHIFT = "harmful_shift"
    BROKEN_FEED = "broken_feed"
    INSUFFICIENT = "insufficient"

    @property
    def is_shift(self) -> bool:
        """Return whether the traffic has shifted, harmfully or not."""
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
    """The traffic that a tick covers: predictions of `model_version` in (start, end].

    `lookback_start` is where the look-back alone would begin, if the window reaches back further to have enough rows.
    """

    model_name: str
    model_version: int
    start: datetime
    end: datetime
    n_predictions: int
    n_labels: int
    last_label_at: datetime | None = None
    lookback_start: datetime | None = None

    @property
    def length(self) -> timedelta:
        """Return how long the window is."""
        return self.end - self.start

    @property
    def tick_id(self) -> str:
        """Return an id that the same traffic and labels always give, so that evaluating them twice writes one row."""
        return digest_of(
            self.model_name, self.model_version, self.end, self.n_predictions, self.n_labels, self.last_label_at
        )[:16]


@dataclass(frozen=True, slots=True)
class ProxyMetrics:
    """Exact aggregates of the window that need no label. Entropy is the mean over the predictions, in bits."""

    window: Window
    positive_rate: float | None
    probability_mean: float | None
    probability_std: float | None
    entropy: float | None


@dataclass(frozen=True, slots=True)
class LevelShift:
    """A level of a category and its percentage of the known values, in the reference and now."""

    level: str
    reference_pct: float
    current_pct: float

    @property
    def points(self) -> float:
        """Return by how many percentage points it has moved."""
        return self.current_pct - self.reference_pct

    @property
    def sentence(self) -> str:
        """Return how the level has moved."""
        then, now = f"{self.reference_pct:.3g} %", f"{self.current_pct:.3g} %"
        if not self.reference_pct:
            return f"{self.level!r} is new ({now})"
        return f"{self.level!r} {then} -> {now}" if self.current_pct else f"{self.level!r} has vanished ({then} before)"


@dataclass(frozen=True, slots=True)
class ColumnDrift:
    """One column against the reference, in the window with the stronger shift: the whole look-back or its newest rows.

    `effect` is the larger of `ks_distance` and the absolute `rank_shift` (see `selfheal.domain.monitoring.shift`); `n_rows` is
    the number of rows in that window. Of a category, `ks_distance` is the total variation, `rank_shift` is 0, and `levels` are
    those that have moved most.
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
    explained: str = ""
    """Why the column's shift is no drift (`selfheal.domain.monitoring.seasons`); empty if it is, or nothing has shifted."""
    levels: tuple[LevelShift, ...] = ()


@dataclass(frozen=True, slots=True)
class LearnedExcursion:
    """One excursion of which the limits of the next ones were learned."""

    since: datetime
    until: datetime
    effect: float


@dataclass(frozen=True, slots=True)
class Excursions:
    """How one window of a column leaves the reference in one direction and returns: this time, and what is remembered of it.

    `since`, `until` and the largest `effect` are those of the excursion under way, or of the last one if `is_over`. `is_reported`:
    it counted as drift. `is_spoiled`: harm or a broken feed was seen meanwhile. `known_effect` and `known_seconds` are the largest
    of the earlier ones that returned, `n_known` in number. `compared_at` is the end of the last window that was compared.
    `learned` are the latest of those that gave the limits.
    """

    column: str
    window: str
    direction: str
    since: datetime
    until: datetime
    effect: float = 0.0
    is_over: bool = False
    is_reported: bool = False
    is_spoiled: bool = False
    n_known: int = 0
    known_effect: float = 0.0
    known_seconds: float = 0.0
    compared_at: datetime | None = None
    learned: tuple[LearnedExcursion, ...] = ()


@dataclass(frozen=True, slots=True)
class Spread:
    """How one window of a column has varied over `n_ticks` calm ticks: means of its signed rank shift and of the shift's square.

    `sampling_variance` is the mean of the variance that the number of rows alone explains. The ticks were on `n_days` days (UTC)
    from `since` to `until`, ends of windows.
    """

    column: str
    window: str
    n_ticks: int = 0
    mean: float = 0.0
    mean_square: float = 0.0
    sampling_variance: float = 0.0
    n_days: int = 0
    since: datetime | None = None
    until: datetime | None = None


@dataclass(frozen=True, slots=True)
class SeasonMemory:
    """What a version's own traffic has shown to come and go from `since` to `until`, the end of the last compared window.

    `tick_id` is the tick that stored it, whose memory the next one goes on from; None before the first.
    """

    since: datetime
    until: datetime | None = None
    excursions: tuple[Excursions, ...] = ()
    spreads: tuple[Spread, ...] = ()
    tick_id: str | None = None


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
    feed_columns: tuple[str, ...] = ()
    """Inputs, or `_rows`, that the problems are about."""
    feed_checked_since: datetime | None = None
    """Time of the oldest of the newest rows, in which the feed is checked."""
    baseline_drifted_features: tuple[str, ...] = ()
    domain_auc: float | None = None
    """AUC of the classifier between window and reference (`selfheal.domain.monitoring.multivariate`)."""
    domain_p_value: float | None = None
    is_multivariate_drifted: bool = False
    unusable_rows: str = ""
    """What is wrong with rows of the window that were left out (`DerivedValues.summary`); empty if none was."""
    explained: tuple[str, ...] = ()
    """Shifts that are no drift, each with the reason."""
    seasons: SeasonMemory | None = None
    """What is remembered after this tick; None if nothing was before and after."""
    copies: float = 1.0
    """Design effect of rows that recur (`selfheal.domain.clusters.copies_effect`): the window is worth n / `copies` rows."""

    @property
    def drifted_features(self) -> tuple[str, ...]:
        """Return the drifted features, strongest first. The predicted probability is not a feature and not listed."""
        drifted = [c for c in self.columns if (c.is_drifted or c.is_missing_rate_drifted) and c.column != "probability"]
        return tuple(c.column for c in sorted(drifted, key=lambda c: -c.effect))


class ConceptDrift(StrEnum):
    """Whether the relation between score and outcome has changed. Only labels can show this; an estimate cannot."""

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
    """What the labels of a window's rows are expected to show, by CBPE; `values` is empty if that is not identifiable.

    `values` and `intervals` are by metric: f1, precision, recall, auc_roc, brier, positive_rate (the share of true events);
    an undefined metric is omitted. The intervals are predictive: they predict what the labels of these very rows will show.
    `reason` says in a sentence what the estimate rests on, or why there is none. `effective_calibration_rows` is the effective
    number of calibration rows after weighting to the window's mix; `uncovered_pct` is the percentage of the window's rows that
    are too rare among them.
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
class ClassCoverage:
    """The share of each class's predictions that has a label, as the scores count the classes; it may exceed 1 by chance."""

    negative: float
    positive: float


@dataclass(frozen=True, slots=True)
class LabelDelay:
    """How long labels take, from a sample of the version's predictions, and the age from which a row counts as matured.

    `matured_after_s` (seconds) is None if that is not identifiable (`reason` says why): there are few labels, labels are
    still arriving, or those that came are not like those that did not (`selection`). `quantiles_s` are the ages in seconds by which 10, 50 and 90 % of the eventual labels have arrived;
    `expected_coverage_pct` is the percentage of predictions that are eventually labelled. `n_replaced` predictions were left
    out, because their first label was replaced by one of another value.
    """

    n_predictions: int
    n_labels: int
    matured_after_s: float | None
    reason: str
    quantiles_s: dict[str, float] = field(default_factory=dict)
    expected_coverage_pct: float | None = None
    n_replaced: int = 0
    matured_after_by_class_s: dict[str, float] = field(default_factory=dict)
    """Age in seconds by which 95 % of the labels of a class (`0`, `1`) that have come had come."""
    coverage: ClassCoverage | None = None
    """Of the predictions that have reached that age."""
    is_selected: bool = False
    """Whether labels that came are seen not to be like those that did not; `reason` says in what."""

    @property
    def is_identifiable(self) -> bool:
        """Return whether the age of maturity is known."""
        return self.matured_after_s is not None


@dataclass(frozen=True, slots=True)
class LabelQuarantine:
    """Labels that are withheld because they contradict what the same sender sent before: those received in a period.

    `started_at` is when the first of them was received, `ended_at` when the last one was; None: it goes on. `label_source`
    is whose labels they are; None: everybody's. Once it is released, by a person or because the labels have remained the
    same for long, they count again.
    """

    quarantine_id: str
    model_version: int
    started_at: datetime
    reasons: tuple[str, ...]
    ended_at: datetime | None = None
    label_source: str | None = None
    is_exchanged: bool = False
    """Whether inverted labels would be what the scores announce: only a person releases those."""
    released_at: datetime | None = None
    released_by: str | None = None

    @property
    def is_open(self) -> bool:
        """Return whether labels that arrive now are withheld, too."""
        return self.ended_at is None and self.released_at is None


@dataclass(frozen=True, slots=True)
class LabelCheck:
    """What a tick found about the newest labels: quarantines that begin, grow or end with it, and all that are open then."""

    n_labels: int
    changed: tuple[LabelQuarantine, ...] = ()
    open: tuple[LabelQuarantine, ...] = ()


@dataclass(frozen=True, slots=True)
class Shortfall:
    """A realised metric beside the one to expect, and the p-value, one-sided, if nothing but chance has lowered it."""

    realised: float
    expected: float
    p_value: float

    def share_above(self, worthless: float) -> float:
        """Return the shortfall as a share of what is expected beyond the value of a model that knows nothing."""
        worth = self.expected - worthless
        return (self.expected - self.realised) / worth if worth > 0 else 0.0


@dataclass(frozen=True, slots=True)
class ScorePart:
    """Miscalibration or discrimination of a Brier score, its mean in label sets by chance, and the p-value for a worse one."""

    value: float
    by_chance: float
    p_value: float


@dataclass(frozen=True, slots=True)
class ScoreParts:
    """Parts of the Brier score. They are judged relative to `skill`: by how much it is expected to beat that of a constant forecast."""

    skill: float
    miscalibration: ScorePart
    discrimination: ScorePart


@dataclass(frozen=True, slots=True)
class Regret:
    """Realised quality of labelled rows against the one that the reference lets expect of them, both with their variance.

    `relation_p_value` is the one if score and outcome are related as in the reference, with tails that hold at small levels, too;
    `parts` are those of the Brier score; None unless the relation has certainly changed, since nothing else asks for them.
    """

    n_rows: int
    relation_p_value: float
    f1: Shortfall | None
    auc_roc: Shortfall | None
    parts: ScoreParts | None


@dataclass(frozen=True, slots=True)
class PerformanceReport:
    """Realised metrics on labelled rows and CBPE's estimate on all rows; either may be unknown.

    `brier_excess` is the realised Brier score minus the one that the model's own probabilities predict, p(1 - p), on the same
    rows: its expectation is 0 while the probabilities are calibrated, whatever the mix of inputs. `brier_excess_low` is its
    one-sided lower bound.

    `realised` is on matured rows if `is_matured` (`matured_coverage_pct` of them are labelled), else on all labelled rows,
    among which early labels may be biased.
    `realised_intervals` are 95 % confidence intervals for the quality on such rows. `estimated_*` are `estimate.values`, as
    stored in `monitoring_metrics`. `concept_drift` rests on labels alone, with `concept_drift_p_value` on `concept_drift_rows`.
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
    label_check: LabelCheck | None = None
    withheld: tuple[str, ...] = ()
    """Why no realised metric is given, or not on all labels."""
    regret: Regret | None = None
    matured_since: datetime | None = None
    matured_until: datetime | None = None
    """When the predictions were made whose labels are judged; None if none are."""


@dataclass(frozen=True, slots=True)
class Onset:
    """When the relation between score and outcome changed, as labelled rows show it (`selfheal.domain.monitoring.onset`).

    `at` is the time of the last row before the change; with 95 % certainty it is between `low` and `high`. `shown_by` is what shows
    it best: `outcome`, `score` or an input. `n_before` and `n_after` count the labelled rows.
    """

    at: datetime
    low: datetime
    high: datetime
    p_value: float
    shown_by: str
    n_before: int
    n_after: int


@dataclass(frozen=True, slots=True)
class SpoiledPeriod:
    """When a version's feed was broken, as one tick saw it; both ends belong to the period.

    `columns` are those that were found broken; empty where nothing was checked between a broken feed and a sound one, or if it is
    not known. `accepted_by` is the decision by which a person declares them sound, so that the rows count again.
    """

    model_version: int
    started_at: datetime
    ended_at: datetime
    reasons: tuple[str, ...]
    columns: tuple[str, ...] = ()
    accepted_by: str | None = None


@dataclass(frozen=True, slots=True)
class Triage:
    """The tick's verdict, with every reason. `alerts` are those that apply now; the store opens and resolves alerts by them."""

    window: Window
    verdict: Verdict
    reasons: tuple[str, ...]
    alerts: tuple[Alert, ...]
    episode_id: str | None


@dataclass(frozen=True, slots=True)
class TickRecord:
    """Everything that one tick measured and concluded, as stored in its JSON file."""

    triage: Triage
    proxy: ProxyMetrics
    drift: DriftReport
    performance: PerformanceReport
