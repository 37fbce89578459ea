"""What the reading endpoints answer. Where a number is not known it is null, never 0; times are UTC.

Requests, and the answers of scoring and labels, are in `serving.schemas.requests`; the messages of the WebSocket in `serving.observability.live`.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any, Literal
from uuid import UUID

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from selfheal.domain.records import Action, GateStatus, Severity, Stage, Verdict
from selfheal.domain.records.decisions import MAX_REASON_CHARACTERS
from selfheal.domain.retraining.gates import GATES_BY_NAME
from selfheal.kit.serialization import to_dict

if TYPE_CHECKING:
    from sqlalchemy import Row

    from selfheal.adapters.postgres.decisions import ChainedDecision
    from selfheal.domain.records import ModelVersion

DEFAULT_LIMIT = 50
MAX_LIMIT = 500
MAX_NOTE_CHARACTERS = 1_000
MAX_HISTORY_HOURS = 24 * 90
DEFAULT_HISTORY_HOURS = 24
LAST_VERSION = 2**31 - 1
"""The largest version number that Postgres knows."""

LAST_POSITION = 2**63 - 1
"""The largest position that Postgres knows."""


class View(BaseModel):
    """Read off a record or a row of the same names."""

    model_config = ConfigDict(from_attributes=True)


# Questions


def _digits(value: Any) -> Any:
    """Query parameters are text, and pydantic would read ` 5`, `5.0` and `1_0` as whole numbers too."""
    if isinstance(value, str) and not (value.removeprefix("-").isdecimal() and value.isascii() and len(value) <= 20):
        raise ValueError("Input should be a whole number, in digits")
    return value


def _true_or_false(value: Any) -> Any:
    if isinstance(value, str) and value not in {"true", "false"}:
        raise ValueError("Input should be true or false")
    return value


Digits = BeforeValidator(_digits)


class Question(BaseModel):
    """Query parameters. One that is not known is refused by name: a filter misspelt would be no filter."""

    model_config = ConfigDict(extra="forbid")


class LimitedQuestion(Question):
    limit: Annotated[int, Digits] = Field(DEFAULT_LIMIT, ge=1, le=MAX_LIMIT, description="how many at most")


class VersionsQuestion(LimitedQuestion):
    stage: Stage | None = Field(None, description="only versions of this stage")


class AlertsQuestion(LimitedQuestion):
    only_open: Annotated[bool, BeforeValidator(_true_or_false)] = Field(False, description="leave out resolved alerts")


class DriftQuestion(LimitedQuestion):
    hours: Annotated[int, Digits] = Field(
        DEFAULT_HISTORY_HOURS, ge=1, le=MAX_HISTORY_HOURS, description="how far back the history goes"
    )


class DecisionsQuestion(LimitedQuestion):
    action: list[Action] = Field([], max_length=len(Action), description="only these actions; may be repeated")
    before: Annotated[int, Field(ge=1, le=LAST_POSITION), Digits] | None = Field(
        None, description="`next_before` of the page before: only older decisions"
    )


# What is wanted


def _no_text(value: Any) -> Any:
    if isinstance(value, str | bool):
        raise ValueError("Input should be a whole number")
    return value


VersionNumber = Annotated[int, Field(ge=1, le=LAST_VERSION), BeforeValidator(_no_text)]
Reason = Annotated[
    str,
    Field(
        min_length=1,
        max_length=MAX_REASON_CHARACTERS,
        pattern=r"^[^\x00]*[^\s\x00][^\x00]*$",
        description="why; kept in the decision record",
    ),
]


class ReasonedRequest(BaseModel):
    """What a person wants done, and why."""

    model_config = ConfigDict(extra="forbid")

    reason: Reason


class VersionChangeRequest(ReasonedRequest):
    from_version: VersionNumber | None = Field(
        None, description="what you believe to be in production; if another version is, nothing is done (409)"
    )


class PromotionRequest(VersionChangeRequest):
    """A registered version is to go into production without a verdict of the gates."""

    model_version: VersionNumber = Field(description="`GET /model/versions` lists them")


class RollbackRequest(VersionChangeRequest):
    """An earlier version is to go back into production."""

    model_version: VersionNumber | None = Field(
        None, description="an earlier version; absent: the one that the present one replaced"
    )


class RetrainingRequest(ReasonedRequest):
    """A retraining is to be considered now."""


class RetrainingAccepted(BaseModel):
    """The wish is written down."""

    request_id: UUID


# Service


class Liveness(BaseModel):
    """The process answers. It says nothing about whether it can score."""

    status: Literal["alive"] = "alive"


class Readiness(BaseModel):
    """Whether requests should be sent here."""

    status: Literal["ready", "not_ready"]
    reasons: list[str] = Field(description="why not, a sentence each; empty if ready")


class Health(BaseModel):
    """`status` is `ok` (scores and logs), `degraded` (scores, but see `problems`) or `not_ready` (cannot score)."""

    status: Literal["ok", "degraded", "not_ready"]
    model_version: int | None = Field(description="the version that answers; null if none is loaded")
    problems: list[str] = Field(description="what is wrong, a sentence each")
    journal_lag_bytes: int | None = Field(description="journal not yet copied to Postgres; null if that is unknown")


# Models


class VersionInfo(View):
    """A registered version: where it came from, what it was judged by, and what became of it."""

    model_name: str
    model_version: int
    stage: Stage = Field(description="`Staging`: registered, never live yet; at most one is in `Production`")
    registered_at: datetime
    promoted_at: datetime | None = Field(description="when it last went live; null if it never did")
    archived_at: datetime | None = Field(description="when another version replaced it")
    probation_until: datetime | None = Field(description="until when the version before it watches it; null if not")
    trigger_reason: str = Field(description="why it was trained: drift, performance, schedule, manual, bootstrap, ...")
    previous_version: int | None = Field(description="the version that it replaced")
    decision_id: str | None = Field(description="the decision that let it through: `GET /decisions/{decision_id}`")
    threshold: float = Field(description="predictions are 1 from this probability on")
    metrics: dict[str, Any] = Field(description="quality on held-out rows when it was trained")
    n_samples: int = Field(description="rows it was trained on")
    training_window_start: datetime | None = Field(description="when the oldest training row was scored, if known")
    training_window_end: datetime | None = Field(description="when the newest training row was scored, if known")
    contract_hash: str = Field(description="digest of the inputs' declaration that it was trained for")
    artifact_sha256: str = Field(description="digest of the model file; checked at each load")
    reference_sha256: str = Field(description="digest of the reference data frozen with it")
    mlflow_run_id: str


class ModelInfo(VersionInfo):
    """The version that answers now."""

    features: list[str] = Field(description="what the model sees, in its order")


class PromotionInfo(View):
    """A version going live, by a promotion or a rollback."""

    model_version: int = Field(validation_alias="version")
    replaced_version: int | None = Field(description="what was in production before; null if nothing was")
    decision_id: str = Field(description="what decided it: `GET /decisions/{decision_id}`")
    promoted_at: datetime
    action: Action = Field(description="how it went live: `promote`, `force_promote` or `rollback`")
    reason: str = Field(description="of the decision")
    actor: str = Field(description="who asked for it: a person, a sensor, a schedule")


class Promotions(BaseModel):
    promotions: list[PromotionInfo] = Field(description="the newest first")


class ModelVersionSummary(View):
    """The version that is in production now."""

    model_version: int = Field(validation_alias="version")
    replaced_version: int | None = Field(validation_alias="previous_version")
    decision_id: str = Field(description="what was recorded: `GET /decisions/{decision_id}`")
    promoted_at: datetime
    probation_until: datetime | None = Field(description="until when the replaced version watches it; null if not")


class Versions(BaseModel):
    versions: list[VersionInfo] = Field(description="the newest first")


# Monitoring


class EstimatedMetrics(View):
    """Quality without labels, estimated from the model's own probabilities (CBPE)."""

    f1: float | None = None
    auc_roc: float | None = None
    brier: float | None = None


class RealisedMetrics(View):
    """Quality on the labelled rows of the window."""

    n_rows: int
    n_positive: int
    f1: float
    precision: float
    recall: float
    auc_roc: float | None = Field(description="null if only one class is among the labels")
    brier: float


class TickInfo(View):
    """One look of the monitor at the traffic."""

    tick_id: str
    created_at: datetime = Field(description="when the monitor looked")
    model_version: int = Field(description="whose traffic it looked at")
    verdict: Verdict
    reasons: list[str] = Field(description="all of them, a sentence each")
    episode_id: str | None = Field(description="the drift episode that it belongs to")
    feature_drift_ratio: float | None = Field(description="share of features that drifted, 0 to 1")
    num_drifted_features: int
    drifted_features: list[str] = Field(description="the strongest first")
    dataset_drift_detected: bool
    reference_version: int = Field(description="the version whose frozen reference data it was compared with")


class WindowInfo(TickInfo):
    """One look of the monitor at the traffic, with what the window holds."""

    window_start: datetime
    window_end: datetime
    n_predictions: int
    n_labels: int
    positive_rate: float | None = Field(description="share of predictions that are 1")
    probability_mean: float | None
    probability_std: float | None
    entropy: float | None = Field(description="mean entropy of the predictions, in bits")
    label_coverage_pct: float | None = Field(description="percent of the window's predictions with a label")
    estimated: EstimatedMetrics
    realised: RealisedMetrics | None = Field(description="null while there are too few labels")


class MonitoringStats(BaseModel):
    """What the monitor last saw of the version in production, and whether it is still looking."""

    model_version: int | None = Field(description="the version in production; null before the first")
    tick: WindowInfo | None = Field(description="the latest tick of that version; null if there is none yet")
    tick_age_seconds: float | None = Field(description="since the monitor last looked; it looks only at new traffic")
    unseen_since: datetime | None = Field(
        description="when the oldest prediction was made that no tick has looked at; null if there is none"
    )
    is_overdue: bool = Field(
        description="predictions have waited for a look for more than 3 x MONITORING_INTERVAL, and 2 minutes: "
        "the monitor is dead or late"
    )


class ColumnInfo(View):
    """One column against the reference data."""

    column: str = Field(description="a feature, or `probability` for the predictions themselves")
    is_drifted: bool = Field(description="its values moved: significant and material")
    is_missing_rate_drifted: bool = Field(description="its share of missing values moved")
    effect: float = Field(description="size of the shift: KS distance, 0 to 1")
    p_value: float
    threshold: float = Field(description="the p-value below which it is significant under the false-alarm budget")
    method: str
    reference_missing_pct: float
    current_missing_pct: float


class DriftInfo(TickInfo):
    """The latest comparison with the reference data."""

    columns: list[ColumnInfo] | None = Field(
        description="every column; null if this host does not have the tick's file in DATA_DIR/monitoring/results"
    )
    baseline_drifted_features: list[str] | None = Field(
        description="features that differ from the very first baseline (informs, asks for nothing); null as `columns`"
    )


class Drift(BaseModel):
    model_version: int | None = Field(description="the version in production; null before the first")
    latest: DriftInfo | None = Field(description="of that version; null if there is none yet")
    history: list[TickInfo] = Field(description="of all versions, the newest first")


class AlertInfo(View):
    """Something that a person should know."""

    alert_id: UUID
    source: str = Field(
        description="who raised it, and will say when it is over: `monitoring`, `serving`, `traffic`, `runs`, `promotion`, "
        "`registry` or `probation`"
    )
    kind: str
    model_version: int | None = Field(description="the version it is about; null if it is about none")
    severity: Severity
    message: str
    metrics: dict[str, Any]
    episode_id: str | None
    created_at: datetime
    updated_at: datetime
    acknowledged_at: datetime | None = Field(description="when a person said that they have seen it")
    acknowledged_by: str | None = Field(description="the name of their API key, or who they are on the platform's host")
    acknowledged_note: str | None = Field(description="what they had to say of it")
    notified_at: datetime | None = Field(description="when a channel (NOTIFY_URLS, ...) last took a message of it")
    notify_failures: int = Field(description="tries in a row that left a channel untold; 0 if everybody has been told")
    resolved_at: datetime | None = Field(description="when it was over; null while it is open")
    resolved_by: str | None


class Acknowledgement(BaseModel):
    """What goes with an acknowledgement. Not needed."""

    model_config = ConfigDict(extra="forbid")

    note: Annotated[str, Field(min_length=1, max_length=MAX_NOTE_CHARACTERS, pattern=r"^[^\x00]*$")] | None = Field(
        None, description="what to tell those who look at the alert later"
    )


class ReportInfo(BaseModel):
    """A report for people, as pages."""

    name: str
    written_at: datetime
    overview: str | None = Field(description="path of the overview; null if this report has none")
    evidently: str | None = Field(description="path of Evidently's page; null if it was not rendered")


class Reports(BaseModel):
    reports: list[ReportInfo] = Field(description="the newest first")
    ticket: str | None = Field(
        description="a browser, whose links send no key, may open the pages as `/monitoring/tickets/{ticket}/{file name}` "
        "for some minutes; null where no key is asked for"
    )


class Alerts(BaseModel):
    alerts: list[AlertInfo] = Field(description="open ones first; of each, the newest first")


# Decisions


class DecisionInfo(View):
    """One link of the chain of decisions."""

    decision_id: str
    position: int = Field(description="its place in the chain; grows, with gaps")
    created_at: datetime
    trigger_reason: str
    action: Action
    reason: str
    actor: str = Field(description="who asked: a person, a sensor, a schedule")
    champion_version: int | None = Field(description="the version in production at that time")
    challenger_version: int | None
    mlflow_run_id: str | None
    episode_id: str | None
    attempt: int = Field(description="the how-manieth retraining of its episode")
    n_labels: int = Field(description="labels known at that time")
    failed_gates: list[str]


class ConditionInfo(View):
    """Something that must hold before a retraining starts."""

    name: str
    is_met: bool
    reason: str


class GateInfo(View):
    """What was measured, what was asked, and a sentence for people.

    Nothing is assumed of a gate that the verdict had and this release has not: its direction and unit are null.
    """

    name: str
    status: GateStatus
    value: float | None
    threshold: float | None
    sentence: str
    interval_low: float | None
    interval_high: float | None
    n_rows: int | None = Field(description="rows that the value rests on")
    direction: Literal["at_least", "at_most"] | None = Field(
        description="on which side of the threshold a value passes"
    )
    unit: Literal["percent", "rows"] | None = Field(
        description="of value, threshold and interval; null: a plain number"
    )
    is_counted: bool = Field(description="whether it is counted as in `5 of 6 passed`; else it is shown beside those")


class DecisionDetail(DecisionInfo):
    """One link of the chain of decisions, with all that it rests on."""

    conditions: list[ConditionInfo]
    gates: list[GateInfo]
    data_sha256: str | None = Field(description="digest of the training set")
    model_sha256: str | None = Field(description="digest of the model file")
    gate_config_sha256: str | None = Field(description="digest of the gates' limits")
    code_version: str | None
    prev_hash: str = Field(description="hash of the decision before it")
    hash: str = Field(description="over this decision and `prev_hash`: an edited or deleted one shows")


class Decisions(BaseModel):
    decisions: list[DecisionInfo] = Field(description="the newest first")
    next_before: int | None = Field(description="send it as `before` for the next page; null if this is the last")


# From records


def version_info(version: ModelVersion) -> VersionInfo:
    return VersionInfo(**_version_fields(version))


def model_info(version: ModelVersion, features: tuple[str, ...]) -> ModelInfo:
    return ModelInfo(**_version_fields(version), features=list(features))


def _version_fields(version: ModelVersion) -> dict[str, Any]:
    fields = to_dict(version)
    return fields | {"model_version": fields.pop("version")}


def tick_info(tick: Row[Any]) -> TickInfo:
    return TickInfo.model_validate(tick)


def alert_info(alert: Row[Any]) -> AlertInfo:
    return AlertInfo.model_validate(alert)


def decision_info(chained: ChainedDecision) -> DecisionInfo:
    return DecisionInfo(**_decision_fields(chained))


def decision_detail(chained: ChainedDecision) -> DecisionDetail:
    fields = _decision_fields(chained)
    return DecisionDetail(**fields | {"gates": [gate | _presentation(gate["name"]) for gate in fields["gates"]]})


def _presentation(gate_name: str) -> dict[str, Any]:
    """Return how a gate is shown; of one that this release does not have, nothing is assumed."""
    gate = GATES_BY_NAME.get(gate_name)
    if gate is None:
        return {"direction": None, "unit": None, "is_counted": True}
    return {"direction": gate.direction, "unit": gate.unit, "is_counted": gate.is_counted}


def _decision_fields(chained: ChainedDecision) -> dict[str, Any]:
    decision = chained.decision
    place = {"position": chained.position, "prev_hash": chained.prev_hash, "hash": chained.hash}
    return to_dict(decision) | place | {"failed_gates": decision.failed_gates}
