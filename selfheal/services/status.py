"""The platform's state as plain values, for `selfheal status` and the dashboard's first screen.

Only `state_of` words the state in a sentence, so that command line and pages agree. Unknown is a tone of its own, never good.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from selfheal.adapters.postgres import (
    alerts as alert_queries,
)
from selfheal.adapters.postgres import (
    decisions,
    model_versions,
    predictions,
    probations,
    ticks,
)
from selfheal.domain.monitoring.silence import overdue_after
from selfheal.domain.records import JUDGED, ModelVersion, ProbationOutcome, Severity, TickRecord, Tone, Verdict
from selfheal.kit.durations import span
from selfheal.kit.serialization import to_dict
from selfheal.services.stalls import find_stalls, stalls_of_alerts

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Row

    from selfheal.adapters.postgres.decisions import ChainedDecision
    from selfheal.services.platform import Platform

SENTENCES = {
    Verdict.STABLE: "The traffic looks as it did in training.",
    Verdict.BENIGN_SHIFT: "The traffic has shifted, without harm so far.",
    Verdict.HARMFUL_SHIFT: "The model is doing harm: its traffic or its world has changed.",
    Verdict.BROKEN_FEED: "The feed is broken: repair it before believing anything below.",
    Verdict.INSUFFICIENT: "There is too little traffic to judge the model.",
}

RATE_WINDOW = timedelta(minutes=1)
"""Time over which the rate of traffic is computed."""

DECISIONS_SHOWN = 5
METRICS_SHOWN = ("f1", "recall", "precision", "auc_roc", "brier")


TONE_WORDS = {Tone.GOOD: "well", Tone.WARNING: "watch", Tone.BAD: "act", Tone.UNKNOWN: "unknown"}
"""The tone in words, where colour is not visible."""

TONES = {
    Verdict.STABLE: Tone.GOOD,
    Verdict.BENIGN_SHIFT: Tone.WARNING,
    Verdict.HARMFUL_SHIFT: Tone.BAD,
    Verdict.BROKEN_FEED: Tone.BAD,
    Verdict.INSUFFICIENT: Tone.UNKNOWN,
}


@dataclass(frozen=True, slots=True)
class State:
    """The platform's state: a sentence and its tone."""

    sentence: str
    tone: Tone


@dataclass(frozen=True, slots=True)
class Facts:
    """What the state is derived from. None: unknown, or there is none.

    `unseen_for`: how long the oldest prediction has waited for a monitoring tick. `silent_for`: time since the newest
    prediction, which arrived at `newest_prediction_at`.
    """

    champion_version: int | None
    verdict: Verdict | None
    monitoring_interval: timedelta
    max_silence: timedelta
    unseen_for: timedelta | None = None
    silent_for: timedelta | None = None
    newest_prediction_at: datetime | None = None
    critical_alerts: int = 0
    """Number of open critical alerts, except those of the monitor's own verdict."""


def state_of(facts: Facts) -> State:
    """Return the state in one sentence. What makes the state unknowable (no model, monitor or traffic) comes first."""
    if facts.champion_version is None:
        return State("No version is in production: run `selfheal bootstrap`.", Tone.UNKNOWN)
    if facts.unseen_for is not None and facts.unseen_for > overdue_after(facts.monitoring_interval):
        return State(
            f"The monitor is late: predictions have waited {span(facts.unseen_for)} for a tick, which is due every "
            f"{span(facts.monitoring_interval)}. How the model does now is unknown.",
            Tone.UNKNOWN,
        )
    if facts.silent_for is not None and facts.silent_for > facts.max_silence:
        return State(
            f"No prediction has come for {span(facts.silent_for)}: how the model does is unknown.", Tone.UNKNOWN
        )
    if facts.verdict is None:
        return State("No monitoring tick has run yet.", Tone.UNKNOWN)
    sentence, tone = SENTENCES[facts.verdict], TONES[facts.verdict]
    if facts.critical_alerts and tone is not Tone.BAD:
        alerts = "a critical alert is" if facts.critical_alerts == 1 else f"{facts.critical_alerts} critical alerts are"
        return State(f"{sentence.removesuffix('.')}, but {alerts} open.", Tone.BAD)
    return State(sentence, tone)


def probation_sentence(champion: ModelVersion, ended: ProbationOutcome | None, now: datetime) -> str:
    """Return the state of a version's probation. `ended` is its outcome, None while it continues."""
    if champion.probation_until is None:
        return "not on probation: it replaced nothing, or came back by a rollback"
    old = f"version {champion.previous_version}"
    if ended is ProbationOutcome.PASSED:
        return f"passed: no worse than {old}"
    if ended is ProbationOutcome.FAILED:
        return f"failed: worse than {old}, which is to come back"
    if ended is ProbationOutcome.NO_EVIDENCE:
        return f"over, unproven: too few labels to compare it with {old}"
    left = champion.probation_until - now
    if left <= timedelta(0):
        return f"on probation against {old}: its time is over, the last evaluation is due"
    return f"on probation against {old}: {span(left)} left"


def labels_sentence(file: TickRecord | None) -> str:
    """Return how long labels take, by the latest tick, and how many are left out there because another replaced them."""
    delay = None if file is None else file.performance.label_delay
    if delay is None:
        return "how long they take is unknown here: no tick has measured it, or its file is on another host"
    left_out = f"; {delay.n_replaced:,} replaced ones are left out" if delay.n_replaced else ""
    return f"{delay.reason}{left_out}"


def overview(platform: Platform, now: datetime | None = None) -> dict[str, Any]:
    """Return model, traffic, latest tick with its quality, alerts, decisions, gates, and what the loop waits for.

    Unknown is None.
    """
    now = now or datetime.now(UTC)
    champion = model_versions.production_version(platform.store)
    tick = None if champion is None else ticks.latest_tick(platform.store, champion.version)
    alerts = alert_queries.list_alerts(platform.store, only_open=True)
    facts = facts_for(platform, champion, tick, alerts, now)
    state = state_of(facts)
    judged = decisions.page(platform.store, 1, actions=JUDGED)
    file = None if tick is None else _file(platform, tick)
    return {
        "at": now,
        "sentence": state.sentence,
        "tone": state.tone.value,
        "stalls": [to_dict(stall) for stall in (*find_stalls(platform, now), *stalls_of_alerts(alerts))],
        "model": None if champion is None else _model(platform, champion, now),
        "traffic": None if champion is None else _traffic(platform, champion, facts, now),
        "latest_tick": None if tick is None else _tick(tick),
        "labels": labels_sentence(file),
        "quality": None if champion is None else _quality(champion, tick, file),
        "open_alerts": [_alert(alert) for alert in alerts],
        "decisions": [_decision(chained) for chained in decisions.page(platform.store, DECISIONS_SHOWN)],
        "latest_verdict": _decision(judged[0]) | {"gates": to_dict(judged[0].decision)["gates"]} if judged else None,
    }


def facts_for(
    platform: Platform, champion: ModelVersion | None, tick: Row[Any] | None, alerts: Sequence[Row[Any]], now: datetime
) -> Facts:
    """Derive the facts from the version in production, its newest tick and the open alerts of any source."""
    settings = platform.settings
    unseen_since = None if champion is None else ticks.unseen_since(platform.store, champion.version)
    critical = [a for a in alerts if a.severity == Severity.CRITICAL and a.source != alert_queries.MONITORING]
    newest, _ = predictions.latest_activity(platform.store, now)
    return Facts(
        champion_version=None if champion is None else champion.version,
        verdict=None if tick is None else Verdict(tick.verdict),
        monitoring_interval=timedelta(seconds=settings.monitoring_interval),
        max_silence=timedelta(hours=settings.traffic_silence_hours),
        unseen_for=None if unseen_since is None else now - unseen_since,
        silent_for=None if newest is None else now - newest,
        newest_prediction_at=newest,
        critical_alerts=len(critical),
    )


def _model(platform: Platform, champion: ModelVersion, now: datetime) -> dict[str, Any]:
    ended = probations.outcome_of(platform.store, champion)
    return {
        "name": champion.model_name,
        "version": champion.version,
        "in_production_since": champion.promoted_at,
        "trigger": champion.trigger_reason,
        "replaced_version": champion.previous_version,
        "probation_until": champion.probation_until,
        "probation": probation_sentence(champion, None if ended is None else ended.outcome, now),
        "f1_in_evaluation": champion.metrics.get("f1"),
        "auc_roc_in_evaluation": champion.metrics.get("auc_roc"),
    }


def _traffic(platform: Platform, champion: ModelVersion, facts: Facts, now: datetime) -> dict[str, Any]:
    """Count the last minute's predictions that have been copied from the journal, and find the newest one's time."""
    window = predictions.window_of(platform.store, champion.version, now - RATE_WINDOW, now)
    n_recent = 0 if window is None else window.n_predictions
    return {
        "predictions_per_second": n_recent / RATE_WINDOW.total_seconds(),
        "newest_prediction_at": facts.newest_prediction_at,
    }


def _tick(tick: Row[Any]) -> dict[str, Any]:
    return {
        "at": tick.created_at,
        "verdict": tick.verdict,
        "reasons": "; ".join(tick.reasons),
        "window_hours": (tick.window_end - tick.window_start) / timedelta(hours=1),
        "predictions": tick.n_predictions,
        "labels": tick.n_labels,
        "label_coverage_pct": tick.label_coverage_pct,
        "feature_drift_ratio": tick.feature_drift_ratio,
        "drifted_features": ", ".join(tick.drifted_features) or "none",
    }


def _file(platform: Platform, tick: Row[Any]) -> TickRecord | None:
    """Read the tick from its file, with intervals; None on a host that does not have the file."""
    from selfheal.services.reports.files import read_tick, results_folder

    return read_tick(results_folder(platform.settings.data_dir), tick.window_end, tick.tick_id)


def _quality(champion: ModelVersion, tick: Row[Any] | None, file: TickRecord | None) -> list[dict[str, Any]]:
    """Return one row per metric: realised and estimated in the latest window, with 95 % intervals, and at the verdict."""
    realised: dict[str, Any] = (tick is not None and tick.realised) or {}
    estimated: dict[str, Any] = (tick is not None and tick.estimated) or {}
    estimate = None if file is None else file.performance.estimate
    if estimate is not None:
        estimated = estimated | estimate.values
    intervals = {} if file is None else to_dict(file.performance)["realised_intervals"]
    estimated_intervals = {} if estimate is None else to_dict(estimate)["intervals"]
    return [
        {
            "metric": metric,
            "realised": realised.get(metric),
            "realised_interval": intervals.get(metric),
            "estimated": estimated.get(metric),
            "estimated_interval": estimated_intervals.get(metric),
            "in_evaluation": champion.metrics.get(metric),
        }
        for metric in METRICS_SHOWN
    ]


def _alert(alert: Row[Any]) -> dict[str, Any]:
    return {
        "alert_id": alert.alert_id,
        "kind": alert.kind,
        "severity": alert.severity,
        "message": alert.message,
        "created_at": alert.created_at,
        "acknowledged_at": alert.acknowledged_at,
        "acknowledged_by": alert.acknowledged_by,
    }


def _decision(chained: ChainedDecision) -> dict[str, Any]:
    decision = chained.decision
    return {
        "decision_id": decision.decision_id,
        "created_at": decision.created_at,
        "trigger_reason": decision.trigger_reason,
        "action": decision.action.value,
        "reason": decision.reason,
        "actor": decision.actor,
        "champion_version": decision.champion_version,
        "challenger_version": chained.challenger_version,
    }
