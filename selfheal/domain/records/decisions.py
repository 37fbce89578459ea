"""Decisions: conditions, gates, verdicts, and the record that is hash-chained."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any

from pydantic import Field

from selfheal.domain.records.monitoring import Interval, Onset, ScoreMetrics
from selfheal.domain.records.stored_names import STORED_NAMES
from selfheal.domain.records.versions import ShadowModel

MAX_REASON_CHARACTERS = 1_000
"""Largest length of the reason that a person gives for a promotion, rollback or retraining."""


class Action(StrEnum):
    """What a decision record did."""

    SKIP = "skip"
    TRAIN = "train"
    PROMOTE = "promote"
    REJECT = "reject"
    INCONCLUSIVE = "inconclusive"
    ROLLBACK = "rollback"
    FORCE_PROMOTE = "force_promote"
    RELEASE_LABELS = "release_labels"
    DECLARE = "declare"


JUDGED = (Action.PROMOTE, Action.REJECT, Action.INCONCLUSIVE)
"""The possible verdicts on a challenger."""


class Trigger(StrEnum):
    """Why a retraining was requested."""

    BOOTSTRAP = "bootstrap"
    DRIFT = "drift"
    PERFORMANCE = "performance"
    SCHEDULE = "schedule"
    MANUAL = "manual"
    PROBATION = "probation"


class GateStatus(StrEnum):
    """Result of a gate. Only PASS and NOT_APPLICABLE let a model through: an unknown value does not pass."""

    PASS = "PASS"  # noqa: S105  (a gate's status, not a password)
    FAIL = "FAIL"
    INCONCLUSIVE = "INCONCLUSIVE"
    NOT_APPLICABLE = "NOT_APPLICABLE"


@dataclass(frozen=True, slots=True)
class Condition:
    """One thing that must hold before a retraining starts."""

    name: str
    is_met: bool
    reason: str


@dataclass(frozen=True, slots=True)
class Decision:
    """One link of the hash chain of what the loop decided and why. The store sets `hash` and `prev_hash`."""

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
    verdict_number: Annotated[int | None, Field(alias=STORED_NAMES["verdict_number"])] = None
    """The verdict's ordinal number on this champion since it went live, from 1; the gates' level depends on it."""
    gate_config: dict[str, Any] | None = None
    """The gates' limits in force at the verdict."""
    onset: Onset | None = None
    """The change since which rows count, as it was seen at the decision; None: none was shown, or none was looked for."""
    declared: str | None = None
    """What a person has declared (`selfheal.domain.monitoring.declarations`)."""
    cross_fitted_sha256: str | None = None
    """Of what a verdict rests on besides the rows, if its challenger was cross-fitted; None: it was not, or an older release decided."""

    @property
    def failed_gates(self) -> tuple[str, ...]:
        """Return the names of the gates that failed or could not be decided."""
        return tuple(g.name for g in self.gates if g.status in {GateStatus.FAIL, GateStatus.INCONCLUSIVE})


@dataclass(frozen=True, slots=True)
class GateResult:
    """Result of one gate: the measured value, the required threshold, and a sentence for people.

    The interval is the value's, in its unit. Its level is the verdict's share for an F1 improvement, a shared level for
    segments, else 95 %. `n_rows` is the number of rows behind the value.
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
    """Comparison of the challenger with the champion on the champion's newest live predictions.

    Shares are between 0 and 1. `agreement` is the share with the same prediction, each model at its own threshold;
    `ks_distance` the largest distance of the two score distributions; differences are of probabilities, without sign.
    `latency_ms_per_row` is measured on all rows at once, `latency_ms_single` (median) on single rows. `problem` says why the
    challenger cannot score these rows; the comparison is then unknown.
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
    """An unlabelled prediction on which champion and challenger disagree: its label would favour one of them."""

    prediction_id: str
    created_at: datetime
    champion_probability: float
    challenger_probability: float


@dataclass(frozen=True, slots=True)
class GateVerdict:
    """All gates together. Promote only if every applicable gate passes.

    The metrics of a model that does not score every evaluation row are unknown. `worth_labelling` is empty unless more labels
    could decide.
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
        """Return whether the model is to go live."""
        return self.decision.action in {Action.PROMOTE, Action.FORCE_PROMOTE}
