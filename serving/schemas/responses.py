"""Responses and parameters of the endpoints that read or command. An unknown number is null, never 0; times are UTC.

Requests and responses of scoring and labels are in `serving.schemas.requests`, messages of the WebSocket in
`serving.observability.live`.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any, Literal
from uuid import UUID

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from selfheal.domain.monitoring.declarations import Declared
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
"""The largest version number that Postgres can store."""

LAST_POSITION = 2**63 - 1
"""The largest position that Postgres can store."""


class View(BaseModel):
    """Made from a record or a row whose attributes have the same names."""

    model_config = ConfigDict(from_attributes=True)


# Parameters


def _digits(value: Any) -> Any:
    """Refuse text that pydantic would also read as a whole number: ` 5`, `5.0`, `1_0`. Query parameters are text."""
    if isinstance(value, str) and not (value.removeprefix("-").isdecimal() and value.isascii() and len(value) <= 20):
        raise ValueError("Input should be a whole number, in digits")
    return value


def _true_or_false(value: Any) -> Any:
    if isinstance(value, str) and value not in {"true", "false"}:
        raise ValueError("Input should be true or false")
    return value


Digits = BeforeValidator(_digits)


class QueryParameters(BaseModel):
    """Query parameters. An unknown one is refused by name: a misspelt filter would filter nothing."""

    model_config = ConfigDict(extra="forbid")


class LimitParameters(QueryParameters):
    """How long the list may be."""

    limit: Annotated[int, Digits] = Field(DEFAULT_LIMIT, ge=1, le=MAX_LIMIT, description="maximum number of entries")


class VersionsParameters(LimitParameters):
    """Which versions to list."""

    stage: Stage | None = Field(None, description="only versions of this stage")


class AlertsParameters(LimitParameters):
    """Which alerts to list."""

    only_open: Annotated[bool, BeforeValidator(_true_or_false)] = Field(False, description="leave out resolved alerts")


class DriftParameters(LimitParameters):
    """Which verdicts to list."""

    hours: Annotated[int, Digits] = Field(
        DEFAULT_HISTORY_HOURS, ge=1, le=MAX_HISTORY_HOURS, description="how far back the history goes"
    )


class DecisionsParameters(LimitParameters):
    """Which decisions to list."""

    action: list[Action] = Field([], max_length=len(Action), description="only these actions; may be repeated")
    before: Annotated[int, Field(ge=1, le=LAST_POSITION), Digits] | None = Field(
        None, description="`next_before` of the previous page: only older decisions"
    )


# Commands


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
        description="why; recorded in the decision",
    ),
]


class ReasonedRequest(BaseModel):
    """A command of a person, with its reason."""

    model_config = ConfigDict(extra="forbid")

    reason: Reason


class VersionChangeRequest(ReasonedRequest):
    """A command that puts another version into production."""

    from_version: VersionNumber | None = Field(
        None, description="the version that you expect to be in production; if it is another one, nothing is done (409)"
    )


class PromotionRequest(VersionChangeRequest):
    """Put a registered version into production without a verdict of the gates."""

    model_version: VersionNumber = Field(description="`GET /model/versions` lists them")


class RollbackRequest(VersionChangeRequest):
    """Put an earlier version back into production."""

    model_version: VersionNumber | None = Field(
        None, description="an earlier version; absent: the one that the present version replaced"
    )


class DeclarationRequest(ReasonedRequest):
    """Declare that a column is seasonal, or that what the feed check finds in it is no fault; or withdraw that."""

    declared: Declared = Field(description="`not_seasonal` and `not_sound` withdraw an earlier declaration")
    column: str = Field(
        min_length=1,
        max_length=200,
        pattern=r"^[^\x00]+$",
        description="a feature; for `sound` an input, or `_rows` for repeated rows",
    )


class DeclarationRecorded(BaseModel):
    """The declaration is in the chain of decisions and counts from the next tick on."""

    decision_id: str
    declared: str = Field(description="what was declared, and the column, such as `seasonal:age`")


class DeclarationInfo(View):
    """What was declared last of a kind about a column, or its withdrawal."""

    subject: Declared = Field(description="`seasonal` or `sound`")
    column: str = Field(description="a feature; `_rows` where whole rows are declared sound")
    is_in_force: bool = Field(description="false: this is the withdrawal")
    actor: str = Field(description="who said so")
    declared_at: datetime
    reason: str
    decision_id: str


class Declarations(BaseModel):
    """What people have declared about columns."""

    declarations: list[DeclarationInfo] = Field(description="the newest first")


class RetrainingRequest(ReasonedRequest):
    """Consider a retraining now."""


class RetrainingAccepted(BaseModel):
    """The request is recorded."""

    request_id: UUID


# Service


class Liveness(BaseModel):
    """The process responds. Whether it can score is in `GET /health/ready`."""

    status: Literal["alive"] = "alive"


class Readiness(BaseModel):
    """Whether requests should be sent to this worker."""

    status: Literal["ready", "not_ready"]
    reasons: list[str] = Field(description="why not, one sentence each; empty if ready")


class Health(BaseModel):
    """`status` is `ok` (scores and logs), `degraded` (scores, but see `problems`) or `not_ready` (cannot score)."""

    status: Literal["ok", "degraded", "not_ready"]
    model_version: int | None = Field(description="the version that scores; null if none is loaded")
    problems: list[str] = Field(description="what is wrong, one sentence each")
    journal_lag_bytes: int | None = Field(description="journal bytes not yet copied to Postgres; null if unknown")


# Models


class VersionInfo(View):
    """A registered version: its origin, its metrics, and when it was in production."""

    model_name: str
    model_version: int
    stage: Stage = Field(description="`Staging`: registered, not yet live; at most one version is in `Production`")
    registered_at: datetime
    promoted_at: datetime | None = Field(description="when it last went live; null if never")
    archived_at: datetime | None = Field(description="when another version replaced it")
    probation_until: datetime | None = Field(
        description="end of its probation, during which it can be rolled back automatically; null if there is none"
    )
    trigger_reason: str = Field(description="why it was trained: drift, performance, schedule, manual, bootstrap, ...")
    previous_version: int | None = Field(description="the version that it replaced")
    decision_id: str | None = Field(description="the decision that promoted it: `GET /decisions/{decision_id}`")
    threshold: float = Field(description="the prediction is 1 if the probability is at least this")
    metrics: dict[str, Any] = Field(description="quality on held-out rows at its training")
    n_samples: int = Field(description="rows it was trained on")
    training_window_start: datetime | None = Field(
        description="when the oldest training row was scored; null if unknown"
    )
    training_window_end: datetime | None = Field(description="when the newest training row was scored; null if unknown")
    contract_hash: str = Field(description="digest of the model contract that it was trained for")
    artifact_sha256: str = Field(description="digest of the model file, checked at each load")
    reference_sha256: str = Field(description="digest of the reference data frozen with it")
    mlflow_run_id: str


class ModelInfo(VersionInfo):
    """The version that scores now."""

    features: list[str] = Field(description="the model's features, in its order")


class PromotionInfo(View):
    """A promotion or rollback: the version that went live and the decision behind it."""

    model_version: int = Field(validation_alias="version")
    replaced_version: int | None = Field(
        description="the version that was in production before; null if there was none"
    )
    decision_id: str = Field(description="the decision behind it: `GET /decisions/{decision_id}`")
    promoted_at: datetime
    action: Action = Field(description="how it went live: `promote`, `force_promote` or `rollback`")
    reason: str = Field(description="the decision's reason")
    actor: str = Field(description="who requested it: a person, a sensor, a schedule")


class Promotions(BaseModel):
    """Promotions and rollbacks."""

    promotions: list[PromotionInfo] = Field(description="the newest first")


class ModelVersionSummary(View):
    """The version that is in production now."""

    model_version: int = Field(validation_alias="version")
    replaced_version: int | None = Field(validation_alias="previous_version")
    decision_id: str = Field(description="the decision recorded for it: `GET /decisions/{decision_id}`")
    promoted_at: datetime
    probation_until: datetime | None = Field(
        description="end of its probation, during which it can be rolled back automatically; null if there is none"
    )


class Versions(BaseModel):
    """Registered versions."""

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
    """One monitoring tick: the monitor's evaluation of a window of traffic."""

    tick_id: str
    created_at: datetime = Field(description="when the tick was made")
    model_version: int = Field(description="the version whose traffic was evaluated")
    verdict: Verdict
    reasons: list[str] = Field(description="all reasons for the verdict, one sentence each")
    episode_id: str | None = Field(description="the drift episode that it belongs to")
    feature_drift_ratio: float | None = Field(description="share of features that drifted, 0 to 1")
    num_drifted_features: int
    drifted_features: list[str] = Field(description="the strongest first")
    dataset_drift_detected: bool
    reference_version: int = Field(description="the version whose frozen reference data it was compared with")


class WindowInfo(TickInfo):
    """One monitoring tick, with the figures of its window."""

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
    """The latest monitoring tick of the version in production, and whether the monitor is still running."""

    model_version: int | None = Field(description="the version in production; null before the first")
    tick: WindowInfo | None = Field(description="the latest tick of that version; null if there is none yet")
    tick_age_seconds: float | None = Field(
        description="since the latest tick; there is a tick only if there is new traffic"
    )
    unseen_since: datetime | None = Field(
        description="time of the oldest prediction that no tick has evaluated; null if there is none"
    )
    is_overdue: bool = Field(
        description="whether predictions have waited for a tick for more than 3 x MONITORING_INTERVAL and 2 minutes: "
        "the monitor has stopped or is late"
    )


class LevelInfo(View):
    """A level of a category: its percentage of the known values."""

    level: str
    reference_pct: float = Field(description="0: the level is new")
    current_pct: float = Field(description="0: the level has vanished")


class ColumnInfo(View):
    """One column compared with the reference data."""

    column: str = Field(description="a feature, or `probability` for the predictions themselves")
    is_drifted: bool = Field(description="whether its values shifted by a significant and material amount")
    is_missing_rate_drifted: bool = Field(description="whether its share of missing values shifted")
    effect: float = Field(description="size of the shift, 0 to 1: KS distance; of a category, total variation")
    p_value: float
    threshold: float = Field(description="the p-value below which it is significant under the false-alarm budget")
    method: str
    reference_missing_pct: float
    current_missing_pct: float
    levels: list[LevelInfo] = Field([], description="of a category, the levels that have moved most")


class DriftInfo(TickInfo):
    """The latest comparison with the reference data."""

    columns: list[ColumnInfo] | None = Field(
        description="every column; null if this host does not have the tick's file in DATA_DIR/monitoring/results"
    )
    baseline_drifted_features: list[str] | None = Field(
        description="features that differ from the first version's reference data, for information; null as `columns`"
    )


class Drift(BaseModel):
    """Drift now and before."""

    model_version: int | None = Field(description="the version in production; null before the first")
    latest: DriftInfo | None = Field(description="of that version; null if there is none yet")
    history: list[TickInfo] = Field(description="of all versions, the newest first")


class AlertInfo(View):
    """An alert: something that a person should know."""

    alert_id: UUID
    source: str = Field(
        description="what raised it and will resolve it: `monitoring`, `serving`, `traffic`, `runs`, `promotion`, `registry` or "
        "`probation`"
    )
    kind: str
    model_version: int | None = Field(description="the version it is about; null if it is about none")
    severity: Severity
    message: str
    metrics: dict[str, Any]
    episode_id: str | None
    created_at: datetime
    updated_at: datetime
    acknowledged_at: datetime | None = Field(description="when a person acknowledged it")
    acknowledged_by: str | None = Field(
        description="the name of that person's API key, or of their user on the platform's host"
    )
    acknowledged_note: str | None = Field(description="that person's note")
    notified_at: datetime | None = Field(
        description="when a channel (NOTIFY_URLS, ...) last accepted a message about it"
    )
    notify_failures: int = Field(description="failed deliveries in a row; 0 if all channels have been notified")
    resolved_at: datetime | None = Field(description="when its cause was gone; null while it is open")
    resolved_by: str | None


class Acknowledgement(BaseModel):
    """The optional body of an acknowledgement."""

    model_config = ConfigDict(extra="forbid")

    note: Annotated[str, Field(min_length=1, max_length=MAX_NOTE_CHARACTERS, pattern=r"^[^\x00]*$")] | None = Field(
        None, description="a note for those who read the alert later"
    )


class ReportInfo(BaseModel):
    """A report, as pages for people."""

    name: str
    written_at: datetime
    overview: str | None = Field(description="path of the overview; null if this report has none")
    evidently: str | None = Field(description="path of Evidently's page; null if it was not rendered")


class Reports(BaseModel):
    """The reports on this host."""

    reports: list[ReportInfo] = Field(description="the newest first")
    ticket: str | None = Field(
        description="with it a browser, whose links send no key, can open the pages as `/monitoring/tickets/{ticket}/{file name}` "
        "for ten minutes; null if the service asks for no keys"
    )


class Alerts(BaseModel):
    """Alerts."""

    alerts: list[AlertInfo] = Field(description="open ones first, the newest first among each")


# Decisions


class DecisionInfo(View):
    """One decision of the loop, a link of the chain of decisions."""

    decision_id: str
    position: int = Field(description="its position in the chain; increases, with gaps")
    created_at: datetime
    trigger_reason: str
    action: Action
    reason: str
    actor: str = Field(description="who requested it: a person, a sensor, a schedule")
    champion_version: int | None = Field(description="the version in production at that time")
    challenger_version: int | None = Field(
        description="the version that was judged or put into production; null until it is registered"
    )
    mlflow_run_id: str | None
    episode_id: str | None
    attempt: int = Field(description="ordinal number of the retraining within its episode, from 1")
    n_labels: int = Field(description="labels known at that time")
    failed_gates: list[str]


class ConditionInfo(View):
    """A condition for a retraining."""

    name: str
    is_met: bool
    reason: str


class GateInfo(View):
    """The result of one gate: the measured value, its limit, and a sentence for people.

    A gate that is in the verdict but not in this release has neither direction nor unit (null).
    """

    name: str
    status: GateStatus
    value: float | None
    threshold: float | None
    sentence: str
    interval_low: float | None
    interval_high: float | None
    n_rows: int | None = Field(description="rows behind the value")
    direction: Literal["at_least", "at_most"] | None = Field(
        description="on which side of the threshold a value passes"
    )
    unit: Literal["percent", "rows"] | None = Field(
        description="of value, threshold and interval; null: a plain number"
    )
    is_counted: bool = Field(
        description="whether it is counted, as in `5 of 6 passed`; if not, it is shown beside those"
    )


class OnsetInfo(View):
    """When the relation between score and outcome changed, as labelled rows show it: rows before it do not count."""

    at: datetime = Field(description="time of the last row before the change")
    low: datetime = Field(description="with 95 % certainty the change was not before")
    high: datetime = Field(description="with 95 % certainty the change was not after")
    p_value: float
    shown_by: str = Field(description="what shows it best: `outcome`, `score` or an input")
    n_before: int = Field(description="labelled rows before it, of those looked at")
    n_after: int = Field(description="labelled rows after it")


class DecisionDetail(DecisionInfo):
    """One decision of the loop, with everything it is based on."""

    onset: OnsetInfo | None = Field(description="the change since which labels count; null if none was shown")
    declared: str | None = Field(
        description="what a person declared of a column, such as `seasonal:age`; null if it is no declaration"
    )
    conditions: list[ConditionInfo]
    gates: list[GateInfo]
    data_sha256: str | None = Field(description="digest of the training set")
    model_sha256: str | None = Field(description="digest of the model file")
    cross_fitted_sha256: str | None = Field(
        description="digest of what a cross-fitted challenger was judged by; null if it was not cross-fitted"
    )
    gate_config_sha256: str | None = Field(description="digest of the gates' limits")
    code_version: str | None
    prev_hash: str = Field(description="hash of the record before it in the chain")
    hash: str = Field(
        description="hash of this decision and `prev_hash`: an edited or deleted decision can be detected"
    )


class Decisions(BaseModel):
    """One page of decisions."""

    decisions: list[DecisionInfo] = Field(description="the newest first")
    next_before: int | None = Field(description="value of `before` for the next page; null if this is the last one")


# From records and rows


def version_info(version: ModelVersion) -> VersionInfo:
    """Return a version as the API shows it."""
    return VersionInfo(**_version_fields(version))


def model_info(version: ModelVersion, features: tuple[str, ...]) -> ModelInfo:
    """Return the version that scores as the API shows it."""
    return ModelInfo(**_version_fields(version), features=list(features))


def _version_fields(version: ModelVersion) -> dict[str, Any]:
    fields = to_dict(version)
    return fields | {"model_version": fields.pop("version")}


def tick_info(tick: Row[Any]) -> TickInfo:
    """Return a row of ticks as the API shows it."""
    return TickInfo.model_validate(tick)


def alert_info(alert: Row[Any]) -> AlertInfo:
    """Return a row of alerts as the API shows it."""
    return AlertInfo.model_validate(alert)


def decision_info(chained: ChainedDecision) -> DecisionInfo:
    """Return a decision as the API lists it."""
    return DecisionInfo(**_decision_fields(chained))


def decision_detail(chained: ChainedDecision) -> DecisionDetail:
    """Return a decision as the API shows it in full."""
    fields = _decision_fields(chained)
    return DecisionDetail(**fields | {"gates": [gate | _presentation(gate["name"]) for gate in fields["gates"]]})


def _presentation(gate_name: str) -> dict[str, Any]:
    """Return how a gate is shown; empty values for a gate that this release does not have."""
    gate = GATES_BY_NAME.get(gate_name)
    if gate is None:
        return {"direction": None, "unit": None, "is_counted": True}
    return {"direction": gate.direction, "unit": gate.unit, "is_counted": gate.is_counted}


def _decision_fields(chained: ChainedDecision) -> dict[str, Any]:
    decision = chained.decision
    place = {"position": chained.position, "prev_hash": chained.prev_hash, "hash": chained.hash}
    known = {"failed_gates": decision.failed_gates, "challenger_version": chained.challenger_version}
    return to_dict(decision) | place | known
