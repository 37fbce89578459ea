"""Responses of the endpoints behind the dashboard. Other clients may use them too: everything is in OpenAPI."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from pydantic import BaseModel, Field

from selfheal.domain.records import Severity, Tone, Verdict
from selfheal.kit.api_keys import Scope
from serving.schemas.responses import (
    DEFAULT_HISTORY_HOURS,
    MAX_HISTORY_HOURS,
    ColumnInfo,
    Digits,
    MonitoringStats,
    OnsetInfo,
    PromotionInfo,
    QueryParameters,
    VersionInfo,
    View,
)

DEFAULT_POINTS, MAX_POINTS = 120, 400


class HistoryParameters(QueryParameters):
    """How long and how finely divided the period is."""

    hours: Annotated[int, Digits] = Field(
        DEFAULT_HISTORY_HOURS, ge=1, le=MAX_HISTORY_HOURS, description="length of the period"
    )
    points: Annotated[int, Digits] = Field(
        DEFAULT_POINTS, ge=10, le=MAX_POINTS, description="maximum number of steps that the period is divided into"
    )


# Overview


class CallerInfo(View):
    """The name of the caller's key, and its scopes."""

    name: str
    scopes: list[Scope]


class Overview(BaseModel):
    """The state of the model in one sentence, with the figures behind it."""

    at: datetime = Field(description="the service's clock")
    use_case: str = Field(description="name of the model")
    description: str
    sentence: str
    tone: Tone = Field(description="the sentence's tone; `unknown` does not mean good")
    reasons: list[str] = Field(description="reasons for the latest tick's verdict, one sentence each")
    model: VersionInfo | None = Field(description="the version in production; null before the first")
    probation: str | None = Field(description="the state of its probation, in words")
    is_on_probation: bool
    stats: MonitoringStats
    newest_prediction_at: datetime | None = Field(
        description="time of the newest prediction of any version; null if there is none"
    )
    n_open_alerts: int
    worst_severity: Severity | None = Field(description="highest severity of the open alerts; null if there is none")
    monitoring_interval_seconds: int
    caller: CallerInfo
    asks_for_keys: bool


# History


class MetricWithInterval(BaseModel):
    """A value with its 95 % interval; the interval is null if this host does not have the tick's file."""

    value: float
    low: float | None
    high: float | None


class HistoryStep(BaseModel):
    """The ticks within one step of the period: the values of the newest one, and the most severe verdict of all."""

    start: datetime
    evaluated_at: datetime = Field(description="when the newest tick of the step was made")
    n_ticks: int
    verdict: Verdict = Field(
        description="the most severe one; `insufficient` only if no tick of the step had enough data"
    )
    max_drift_ratio: float | None = Field(description="largest share of drifted features, 0 to 1")
    model_version: int
    n_predictions: int
    n_labels: int
    label_coverage_pct: float | None
    positive_rate: float | None
    probability_mean: float | None
    probability_std: float | None
    entropy: float | None
    estimated: dict[str, MetricWithInterval] = Field(description="by metric; unknown ones are left out")
    realised: dict[str, MetricWithInterval] = Field(description="by metric; unknown ones are left out")


class DriftRow(BaseModel):
    """One column over time, one value per step."""

    column: str = Field(description="a feature, or `probability` for the predictions themselves")
    drifted_share: list[float | None] = Field(
        description="share of the step's comparing ticks in which it had drifted; null if none compared"
    )
    effect: list[float | None] = Field(
        description="size of the shift in the newest tick, 0 to 1; null if it did not compare or this host lacks its file"
    )


class LabelsOfClass(BaseModel):
    """How the labels of one class come."""

    label: int
    mostly_after_seconds: float | None = Field(
        description="age by which 95 % of this class's labels that have come had come; null if unknown"
    )
    labelled_pct: float | None = Field(
        description="percent of this class's matured predictions that have a label, as the scores count the classes; by chance it "
        "may exceed 100; null if unknown"
    )


class LabelState(BaseModel):
    """How complete the labels are, and what is withheld because of them, by the newest tick."""

    sentence: str = Field(description="from which age on labels are complete, or why that is unknown")
    matured_after_seconds: float | None = Field(description="that age; null if unknown")
    classes: list[LabelsOfClass]
    withheld: list[str] = Field(description="what is not shown or not decided, and why, one sentence each")


class History(BaseModel):
    """The monitor's results over a period."""

    since: datetime
    until: datetime
    first_evaluation_at: datetime | None = Field(
        description="when the oldest tick of the period was made; null if there is none"
    )
    step_seconds: int
    steps: list[HistoryStep] = Field(description="steps with a tick, the oldest first")
    drift: list[DriftRow] = Field(description="in the order of the model's features, the probability last")
    promotions: list[PromotionInfo] = Field(description="in the period, the newest first")
    changes: list[OnsetInfo] = Field(
        description="changes of the relation between score and outcome that decisions of the period saw, the newest first"
    )
    labels: LabelState | None = Field(
        description="of the period's newest tick; null if there is none, or this host does not have its file"
    )


# One column


class AxisTick(BaseModel):
    """A label of the axis, and where it stands among the bars."""

    place: float
    text: str


class Histogram(BaseModel):
    """Percent of the known values in each bar; each side sums to 100. The bars are at 0, 1, 2, ..."""

    labels: list[str]
    reference_pct: list[float]
    current_pct: list[float]
    ticks: list[AxisTick]


class ComparedRows(BaseModel):
    """The rows that were compared."""

    model_version: int
    window_start: datetime
    window_end: datetime
    n_current: int = Field(description="at most MONITORING_MAX_ROWS, a random sample of the window")
    n_reference: int
    current_missing_pct: float
    reference_missing_pct: float


class ColumnDistribution(BaseModel):
    """A column's values in the latest tick's window, and in the reference of the version in production."""

    column: str
    description: str
    unit: str
    compared: ComparedRows | None = Field(description="null until the version in production has a tick")
    bars: Histogram | None = Field(description="null if no value is known on either side")
    drift: ColumnInfo | None = Field(
        description="the tick's result; null if it did not compare, or this host does not have its file"
    )
