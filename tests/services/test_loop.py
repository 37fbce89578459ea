"""The stages in the order of the loop: what one hands to the next."""

from __future__ import annotations

from datetime import timedelta

from selfheal.adapters.decision_log import verify_decisions
from selfheal.adapters.mlflow_registry import PRODUCTION_ALIAS
from selfheal.adapters.postgres import alerts, model_versions, ticks
from selfheal.domain.records import Action, GateStatus, Trigger, Verdict
from selfheal.domain.retraining.gates import GATES
from selfheal.services.platform import Platform
from selfheal.services.probation import watch_probation
from selfheal.services.promotion.going_live import promote
from selfheal.services.tick import collect
from tests.services.steps import decide, retrain, rows_of, whole_tick
from tests.traffic import SECOND, serve, toy_rows

HOUR = timedelta(hours=1)
N_ROWS = 1_500
MONITORING_TABLES = ("monitoring_metrics", "monitoring_alerts")


def test_a_hot_summer_is_seen_as_harm_and_healed_by_a_new_version(platform: Platform) -> None:
    sent = serve(platform, toy_rows(N_ROWS, scenario="overheating"))
    now = sent.last_at + HOUR

    seen = whole_tick(platform, now)
    assert seen.verdict is Verdict.HARMFUL_SHIFT
    assert seen.episode_id == seen.window.tick_id
    assert (seen.window.n_predictions, seen.window.n_labels) == (N_ROWS, N_ROWS)
    recorded = ticks.latest_tick(platform.store, 1)
    assert recorded is not None
    assert "temperature_c" in recorded.drifted_features
    assert "restarts" not in recorded.drifted_features
    assert "harmful_shift" in {alert.kind for alert in alerts.list_alerts(platform.store, only_open=True)}
    assert recorded.realised["brier"] > model_versions.champion(platform.store).metrics["brier"]

    before = rows_of(platform, *MONITORING_TABLES)
    assert whole_tick(platform, now + HOUR) == seen
    assert rows_of(platform, *MONITORING_TABLES) == before, "the same traffic looked at again changes no row"

    decision = decide(platform, Trigger.DRIFT, now, seen.episode_id)
    assert decision.action is Action.TRAIN
    verdict = retrain(platform, decision, now)
    assert verdict.decision.action is Action.PROMOTE
    passed = {gate.name for gate in verdict.decision.gates if gate.status is GateStatus.PASS}
    assert passed == {gate.name for gate in GATES} - {"segments"}
    assert (verdict.decision.episode_id, verdict.decision.attempt) == (seen.episode_id, 1)
    assert verdict.segments

    promoted = promote(platform, verdict, now)
    assert (promoted.version, promoted.previous_version, promoted.trigger_reason) == (2, 1, "drift")
    assert (promoted.training_window_start, promoted.training_window_end) == (sent.created_at[0], sent.last_at)
    assert platform.registry.alias_version(PRODUCTION_ALIAS) == 2

    assert collect(platform, now + SECOND) is None, "the new version has served nothing yet"
    serve(platform, toy_rows(N_ROWS, seed=2, scenario="overheating"), start=now + SECOND)
    healed = whole_tick(platform, now + 2 * HOUR)
    assert healed.window.model_version == 2
    assert healed.verdict is Verdict.STABLE, healed.reasons
    assert alerts.list_alerts(platform.store, only_open=True) == []
    assert not watch_probation(platform, now + 2 * HOUR).is_harmful
    assert model_versions.champion(platform.store).version == 2
    assert verify_decisions(platform.store, platform.settings.data_dir) == []


# Monitoring
