"""What the endpoints answer that the dashboard is made of. They are for other readers too: everything is in OpenAPI."""

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
    PromotionInfo,
    Question,
    VersionInfo,
    View,
)

DEFAULT_POINTS, MAX_POINTS = 120, 400


class HistoryQuestion(Question):
    hours: Annotated[int, Digits] = Field(
        DEFAULT_HISTORY_HOURS, ge=1, le=MAX_HISTORY_HOURS, description="how far back it goes"
    )
    points: Annotated[int, Digits] = Field(
        DEFAULT_POINTS, ge=10, le=MAX_POINTS, description="into how many steps the period is divided at most"
    )


# Overview


class CallerInfo(View):
    """Whose key this is, and what it is good for."""

    name: str
    scopes: list[Scope]


class Overview(BaseModel):
    """How the model is, in a sentence, and what that rests on."""

    at: datetime = Field(description="the service's clock")
    use_case: str = Field(description="name of the model")
    description: str
    sentence: str
    tone: Tone = Field(description="how to take it; `unknown` is not good")
    reasons: list[str] = Field(description="of the latest tick's verdict, a sentence each")
    model: VersionInfo | None = Field(description="the version in production; null before the first")
    probation: str | None = Field(description="where its probation stands, in words")
    is_on_probation: bool
    stats: MonitoringStats
    newest_prediction_at: datetime | None = Field(description="of any version; null if there is none")
    n_open_alerts: int
    worst_severity: Severity | None = Field(description="of the open alerts; null if there is none")
    monitoring_interval_seconds: int
    caller: CallerInfo
    asks_for_keys: bool


# History


class Known(BaseModel):
    """A value, and its 95 % interval as far as this host has the tick's file."""

    value: float
    low: float | None
    high: float | None


class HistoryStep(BaseModel):
    """The ticks of a stretch of time: the newest one's values, and the gravest verdict of all."""

    start: datetime
    evaluated_at: datetime = Field(description="when the newest tick of the step looked")
    n_ticks: int
    verdict: Verdict = Field(description="the gravest; `insufficient` only if no tick of the step saw enough")
    max_drift_ratio: float | None = Field(description="largest share of drifted features, 0 to 1")
    model_version: int
    n_predictions: int
    n_labels: int
    label_coverage_pct: float | None
    positive_rate: float | None
    probability_mean: float | None
    probability_std: float | None
    entropy: float | None
    estimated: dict[str, Known] = Field(description="by metric; what is not known is left out")
    realised: dict[str, Known] = Field(description="by metric; what is not known is left out")


class DriftRow(BaseModel):
    """One column over time, a value a step."""

    column: str = Field(description="a feature, or `probability` for the predictions themselves")
    drifted_share: list[float | None] = Field(
        description="of the step's ticks that compared, the share in which it was drifted; null if none did"
    )
    effect: list[float | None] = Field(
        description="size of the shift in the newest tick, 0 to 1; null if it did not compare, or this host lacks its file"
    )


class History(BaseModel):
    since: datetime
    until: datetime
    first_evaluation_at: datetime | None = Field(
        description="when the oldest tick of the period looked; null if there is none"
    )
    step_seconds: int
    steps: list[HistoryStep] = Field(description="those in which the monitor looked, the oldest first")
    drift: list[DriftRow] = Field(description="in the order of the model's features, the probability last")
    promotions: list[PromotionInfo] = Field(description="in the period, the newest first")


# One column


class AxisTick(BaseModel):
    place: float
    text: str


class Histogram(BaseModel):
    """Percent of the known values in each bar; each side sums to 100. The bars stand at 0, 1, 2, ..."""

    labels: list[str]
    reference_pct: list[float]
    current_pct: list[float]
    ticks: list[AxisTick]


class ComparedRows(BaseModel):
    """Which rows were compared."""

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
    compared: ComparedRows | None = Field(description="null until the version in production has been looked at")
    bars: Histogram | None = Field(description="null if no value is known on either side")
    drift: ColumnInfo | None = Field(
        description="what the tick made of it; null if it did not compare, or its file is gone"
    )
