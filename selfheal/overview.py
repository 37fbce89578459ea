"""The state of the platform at a glance, as plain values: what `selfheal status` prints."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from selfheal.records import Verdict
from selfheal.store import decisions, models, monitoring

if TYPE_CHECKING:
    from selfheal.platform import Platform

SENTENCES = {
    Verdict.STABLE: "The traffic looks as it did in training.",
    Verdict.BENIGN_SHIFT: "The traffic has shifted, without harm so far.",
    Verdict.HARMFUL_SHIFT: "The model is doing harm: its traffic or its world has changed.",
    Verdict.BROKEN_FEED: "The feed is broken: repair it before believing anything below.",
    Verdict.INSUFFICIENT: "There is too little traffic to tell how the model does.",
}


def overview(platform: Platform) -> dict[str, Any]:
    """Model, latest tick, open alerts and latest decisions; unknown is None, not good."""
    champion = models.production_version(platform.store)
    tick = None if champion is None else monitoring.latest_tick(platform.store, champion.version)
    return {
        "sentence": _sentence(champion is not None, None if tick is None else Verdict(tick.verdict)),
        "model": None
        if champion is None
        else {
            "name": champion.model_name,
            "version": champion.version,
            "in_production_since": champion.promoted_at,
            "trigger": champion.trigger_reason,
            "replaced_version": champion.previous_version,
            "probation_until": champion.probation_until,
            "f1_in_evaluation": champion.metrics.get("f1"),
            "auc_roc_in_evaluation": champion.metrics.get("auc_roc"),
        },
        "latest_tick": None
        if tick is None
        else {
            "at": tick.created_at,
            "verdict": tick.verdict,
            "reasons": "; ".join(tick.reasons),
            "predictions": tick.n_predictions,
            "labels": tick.n_labels,
            "feature_drift_ratio": tick.feature_drift_ratio,
            "drifted_features": ", ".join(tick.drifted_features) or "none",
        },
        "open_alerts": [
            {
                "alert_id": alert.alert_id,
                "kind": alert.kind,
                "severity": alert.severity,
                "message": alert.message,
                "created_at": alert.created_at,
            }
            for alert in monitoring.list_alerts(platform.store, only_open=True)
        ],
        "decisions": [
            {
                "decision_id": decision.decision_id,
                "created_at": decision.created_at,
                "trigger_reason": decision.trigger_reason,
                "action": decision.action.value,
                "reason": decision.reason,
            }
            for decision in decisions.recent(platform.store, limit=5)
        ],
    }


def _sentence(has_champion: bool, verdict: Verdict | None) -> str:
    if not has_champion:
        return "No version is in production: run `selfheal bootstrap`."
    return "The traffic has not been looked at yet." if verdict is None else SENTENCES[verdict]
