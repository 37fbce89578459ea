"""The loop's stages in one process, on the toy use case with its own traffic: from a hot summer to a healed model.

Drift reports are built by hand except in the tests of the whole loop, since Evidently takes seconds to import.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import pytest
from sqlalchemy import text

from selfheal.decision_log import verify_decisions
from selfheal.errors import IntegrityError, InvalidDataError, NoProductionModelError
from selfheal.platform import Platform, open_platform
from selfheal.promotion import force_promote, promote, stage
from selfheal.records import (
    Action,
    ConceptDrift,
    Decision,
    GateStatus,
    GateVerdict,
    ShadowModel,
    Stage,
    Triage,
    Trigger,
    Verdict,
)
from selfheal.registry import PRODUCTION_ALIAS
from selfheal.settings import Settings
from selfheal.stages import (
    compare,
    conclude,
    decide_retraining,
    gather_training_set,
    judge,
    latest_tick,
    look,
    measure,
    train_shadow,
    watch_probation,
)
from selfheal.store import decisions, models, monitoring
from selfheal.store.predictions import labelled_rows
from selfheal.store.spoiled import spoiled_periods
from tests import builders
from tests.candidates import log_worse_model, passed, twin_of_champion
from tests.times import T0
from tests.traffic import SECOND, ingest_all, journal_labels, serve, toy_rows

HOUR = timedelta(hours=1)
N_ROWS = 1_500
MONITORING_TABLES = ("monitoring_metrics", "monitoring_alerts")


def tick(platform: Platform, now: datetime, **drift: Any) -> Triage:
    """A look at the traffic whose drift report says what the test wants (default: nothing drifted)."""
    proxy = look(platform)
    assert proxy is not None, "there is no traffic to look at"
    report = builders.drift_report(window=proxy.window, **drift)
    return conclude(platform, proxy, report, measure(platform, proxy.window), now)[0]


def tick_with_evidently(platform: Platform, now: datetime) -> Triage:
    proxy = look(platform)
    assert proxy is not None, "there is no traffic to look at"
    drift = compare(platform, proxy.window).report
    return conclude(platform, proxy, drift, measure(platform, proxy.window), now)[0]


def decide(platform: Platform, trigger: Trigger, now: datetime, episode_id: str | None = None) -> Decision:
    return decide_retraining(platform, trigger, episode_id=episode_id, actor="test", reason="asked", now=now)


def retrain(platform: Platform, decision: Decision, now: datetime) -> GateVerdict:
    rows = gather_training_set(platform, decision, None)
    return judge(platform, train_shadow(platform, rows, now), rows, now)


def unmet(decision: Decision) -> set[str]:
    return {condition.name for condition in decision.conditions if not condition.is_met}


def rows_of(platform: Platform, *tables: str) -> dict[str, list[tuple[Any, ...]]]:
    with platform.store.engine.connect() as connection:
        return {table: [tuple(row) for row in connection.execute(text(f"SELECT * FROM {table}"))] for table in tables}


# The whole loop


def test_a_hot_summer_is_seen_as_harm_and_healed_by_a_new_version(platform: Platform) -> None:
    sent = serve(platform, toy_rows(N_ROWS, scenario="overheating"))
    now = sent.last_at + HOUR

    seen = tick_with_evidently(platform, now)
    assert seen.verdict is Verdict.HARMFUL_SHIFT
    assert seen.episode_id == seen.window.tick_id
    assert (seen.window.n_predictions, seen.window.n_labels) == (N_ROWS, N_ROWS)
    recorded = monitoring.latest_tick(platform.store, 1)
    assert recorded is not None
    assert "temperature_c" in recorded.drifted_features
    assert "restarts" not in recorded.drifted_features
    assert "harmful_shift" in {alert.kind for alert in monitoring.list_alerts(platform.store, only_open=True)}
    assert recorded.realised["brier"] > models.champion(platform.store).metrics["brier"]

    before = rows_of(platform, *MONITORING_TABLES)
    assert tick_with_evidently(platform, now + HOUR) == seen
    assert rows_of(platform, *MONITORING_TABLES) == before, "the same traffic looked at again changes no row"

    decision = decide(platform, Trigger.DRIFT, now, seen.episode_id)
    assert decision.action is Action.TRAIN
    verdict = retrain(platform, decision, now)
    assert verdict.decision.action is Action.PROMOTE
    assert all(gate.status is GateStatus.PASS for gate in verdict.decision.gates)
    assert len(verdict.decision.gates) == 6
    assert (verdict.decision.episode_id, verdict.decision.attempt) == (seen.episode_id, 1)
    assert verdict.segments

    promoted = promote(platform, verdict, now)
    assert (promoted.version, promoted.previous_version, promoted.trigger_reason) == (2, 1, "drift")
    assert (promoted.training_window_start, promoted.training_window_end) == (sent.created_at[0], sent.last_at)
    assert platform.registry.alias_version(PRODUCTION_ALIAS) == 2

    assert look(platform) is None, "the new version has served nothing yet"
    serve(platform, toy_rows(N_ROWS, seed=2, scenario="overheating"), start=now + SECOND)
    healed = tick_with_evidently(platform, now + 2 * HOUR)
    assert healed.window.model_version == 2
    assert healed.verdict is Verdict.STABLE, healed.reasons
    assert monitoring.list_alerts(platform.store, only_open=True) == []
    assert not watch_probation(platform, now + 2 * HOUR).is_harmful
    assert models.champion(platform.store).version == 2
    assert verify_decisions(platform.store, platform.settings.data_dir) == []


# Monitoring


def test_there_is_nothing_to_look_at_before_the_first_prediction(platform: Platform) -> None:
    assert look(platform) is None
    assert latest_tick(platform) is None


def test_nothing_can_be_looked_at_before_the_bootstrap(empty_platform: Platform) -> None:
    with pytest.raises(NoProductionModelError, match="run `selfheal bootstrap` first"):
        look(empty_platform)
    assert latest_tick(empty_platform) is None


def test_the_window_is_the_lookback_before_the_newest_prediction(make_settings: Callable[..., Settings]) -> None:
    platform = open_platform(make_settings(monitoring_lookback=2))
    sent = serve(platform, toy_rows(5), step=HOUR, labelled_share=0)
    proxy = look(platform)
    assert proxy is not None
    assert (proxy.window.start, proxy.window.end) == (sent.created_at[2], sent.last_at)
    assert proxy.window.n_predictions == 2
    platform.close()


def test_realised_quality_is_that_of_the_labelled_rows(platform: Platform) -> None:
    sent = serve(platform, toy_rows(400), labelled_share=0.5)
    proxy = look(platform)
    assert proxy is not None
    report = measure(platform, proxy.window)
    assert report.realised is not None
    labels = sent.rows["true_label"].to_numpy()[:200]
    assert report.realised.n_rows == 200
    assert report.realised.brier == pytest.approx(np.mean((sent.probabilities[:200] - labels) ** 2), rel=1e-12)
    assert report.label_coverage_pct == 50.0


def test_rows_too_young_to_be_labelled_do_not_bias_the_realised_quality(platform: Platform) -> None:
    """Events are reported at once, their absence after ten minutes: what is labelled of the last ten minutes is all events."""
    sent = serve(platform, toy_rows(3_600), labelled_share=0)
    labels = sent.rows["true_label"].to_numpy(dtype=np.int64)
    reported_at = [at + (SECOND if label else 600 * SECOND) for at, label in zip(sent.created_at, labels, strict=True)]
    for minute in range(61):
        since, until = (T0 + m * 60 * SECOND for m in (minute - 1, minute))
        due = [i for i, at in enumerate(reported_at) if since < at <= until]
        ids, values = [sent.prediction_ids[i] for i in due], [int(labels[i]) for i in due]
        journal_labels(platform.settings.data_dir, ids, values, received_at=until)
    ingest_all(platform)
    proxy = look(platform)
    assert proxy is not None
    report = measure(platform, proxy.window)
    assert report.label_delay is not None
    assert report.label_delay.matured_after_s == pytest.approx(600, abs=90)
    assert report.is_matured
    assert report.matured_coverage_pct == 100.0
    assert report.realised is not None
    matured = labels[: report.realised.n_rows]
    assert 2_800 < report.realised.n_rows < 3_100
    assert report.realised.n_positive == matured.sum()
    assert report.concept_drift is ConceptDrift.NONE_SHOWN


def test_shifted_ticks_in_a_row_are_one_episode_and_a_stable_one_ends_it(platform: Platform) -> None:
    shifted = {"columns": (builders.column_drift("load_ratio", effect=0.3, is_drifted=True),)}
    episodes = []
    for hour, drift in enumerate((shifted, shifted, {}, shifted)):
        sent = serve(platform, toy_rows(10, seed=hour), start=T0 + SECOND + hour * HOUR, labelled_share=0)
        episodes.append(tick(platform, sent.last_at + SECOND, **drift).episode_id)
    first, second, none, third = episodes
    assert first == second is not None
    assert none is None
    assert third not in {None, first}


def test_the_latest_tick_is_what_the_sensors_read(platform: Platform) -> None:
    sent = serve(platform, toy_rows(10), labelled_share=0)
    columns = (builders.column_drift("load_ratio", effect=0.3, is_drifted=True),)
    concluded = tick(platform, sent.last_at + SECOND, columns=columns)
    found = latest_tick(platform)
    assert found is not None
    assert (found.tick_id, found.verdict, found.episode_id, found.num_drifted_features) == (
        concluded.window.tick_id,
        Verdict.BENIGN_SHIFT,
        concluded.window.tick_id,
        1,
    )


# Retraining


def test_a_retraining_that_may_not_start_is_recorded_with_every_reason(make_settings: Callable[..., Settings]) -> None:
    platform = open_platform(make_settings(promotion_cooldown_days=7.0))
    promote(platform, passed(platform, twin_of_champion(platform)), T0 + SECOND)
    serve(platform, toy_rows(100), start=T0 + HOUR, labelled_share=0.1)
    decision = decide(platform, Trigger.DRIFT, T0 + 2 * HOUR, "e1")
    assert decision.action is Action.SKIP
    assert unmet(decision) == {"cooldown", "labelled_samples", "label_coverage", "sound_feed"}
    assert "cooling down from the last promotion until 2026-03-09" in decision.reason
    assert "10 labelled predictions, 667 wanted" in decision.reason
    assert decisions.recent(platform.store, limit=1) == [decision]
    assert decide(platform, Trigger.DRIFT, T0 + 3 * HOUR, "e1") == decision, "the same state is recorded once"
    assert len(decisions.recent(platform.store, actions=[Action.SKIP])) == 1
    platform.close()


def test_a_broken_feed_is_not_trained_on(platform: Platform) -> None:
    sent = serve(platform, toy_rows(N_ROWS))
    tick(platform, sent.last_at + SECOND, feed_problems=("load_ratio: always 1",))
    for trigger in (Trigger.DRIFT, Trigger.SCHEDULE, Trigger.MANUAL):
        decision = decide(platform, trigger, sent.last_at + HOUR, "e1")
        assert decision.action is Action.SKIP
        assert unmet(decision) == {"sound_feed"}


def test_what_a_broken_feed_sent_is_never_learned_from_and_what_came_before_and_after_is(platform: Platform) -> None:
    sound = serve(platform, toy_rows(N_ROWS))
    tick(platform, sound.last_at + SECOND, feed_checked_since=sound.created_at[-500])
    assert spoiled_periods(platform.store, 1) == []

    broken = serve(platform, toy_rows(300, 2), start=sound.last_at + HOUR)
    problem = {"feed_problems": ("load_ratio: always 1",)}
    tick(platform, broken.last_at + SECOND, feed_checked_since=broken.created_at[50], **problem)
    still_broken = serve(platform, toy_rows(300, 3), start=broken.last_at + HOUR)
    tick(platform, still_broken.last_at + SECOND, feed_checked_since=still_broken.created_at[100], **problem)
    tick(platform, still_broken.last_at + SECOND, feed_checked_since=still_broken.created_at[100], **problem)

    repaired = serve(platform, toy_rows(800, 4), start=still_broken.last_at + HOUR)
    tick(platform, repaired.last_at + SECOND, feed_checked_since=repaired.created_at[200])
    decision = decide(platform, Trigger.MANUAL, repaired.last_at + HOUR)
    assert decision.action is Action.TRAIN
    times = labelled_rows(platform.store, max_rows=10_000, sound_only=True)["created_at"].tolist()
    assert times == [*sound.created_at[:-1], *repaired.created_at[201:]]
    assert len(gather_training_set(platform, decision, None).frame) == len(times)
    assert len(labelled_rows(platform.store, max_rows=10_000)) == N_ROWS + 300 + 300 + 800


def test_a_second_bootstrap_is_skipped(platform: Platform) -> None:
    decision = decide(platform, Trigger.BOOTSTRAP, T0 + HOUR)
    assert decision.action is Action.SKIP
    assert decision.reason == "version 1 is in production already"


def test_nothing_but_a_bootstrap_starts_without_a_champion(empty_platform: Platform) -> None:
    decision = decide(empty_platform, Trigger.SCHEDULE, T0)
    assert decision.action is Action.SKIP
    assert "champion" in unmet(decision)
    assert decide(empty_platform, Trigger.BOOTSTRAP, T0).action is Action.TRAIN


def test_a_rejected_shadow_leaves_production_untouched_and_the_next_attempt_waits_for_labels(
    platform: Platform,
) -> None:
    sent = serve(platform, toy_rows(N_ROWS))
    now = sent.last_at + HOUR
    tick(platform, now)
    before = models.list_versions(platform.store)
    verdict = retrain(platform, decide(platform, Trigger.DRIFT, now, "e1"), now)
    assert verdict.decision.action is Action.REJECT
    assert "f1_improvement" in verdict.decision.failed_gates
    assert models.list_versions(platform.store) == before, "it is not even registered"
    assert platform.registry.alias_version(PRODUCTION_ALIAS) == 1

    again = decide(platform, Trigger.DRIFT, now + HOUR, "e1")
    assert again.action is Action.SKIP
    assert unmet(again) == {"back_off"}
    assert again.attempt == 2
    serve(platform, toy_rows(N_ROWS // 4, seed=3), start=now)
    assert decide(platform, Trigger.DRIFT, now + 2 * HOUR, "e1").action is Action.TRAIN


def test_the_same_training_is_run_and_judged_once_even_after_its_promotion(platform: Platform) -> None:
    sent = serve(platform, toy_rows(N_ROWS, scenario="overheating"))
    now = sent.last_at + HOUR
    tick(platform, now)
    decision = decide(platform, Trigger.MANUAL, now)
    rows = gather_training_set(platform, decision, None)
    shadow = train_shadow(platform, rows, now)
    verdict = judge(platform, shadow, rows, now)
    assert train_shadow(platform, rows, now + HOUR) == shadow
    assert judge(platform, shadow, rows, now + HOUR).decision == verdict.decision
    promote(platform, verdict, now)
    assert judge(platform, shadow, rows, now + HOUR).decision == verdict.decision, "it was compared with version 1"


def test_rows_gathered_for_a_decision_nobody_recorded_are_not_trained_on(platform: Platform) -> None:
    sent = serve(platform, toy_rows(N_ROWS))
    tick(platform, sent.last_at + SECOND)
    rows = gather_training_set(platform, decide(platform, Trigger.MANUAL, sent.last_at + HOUR), None)
    forged = replace(rows, info=replace(rows.info, decision_id="nobody"))
    with pytest.raises(IntegrityError, match="names decision nobody, which is not recorded"):
        train_shadow(platform, forged, sent.last_at + HOUR)


def test_too_few_rows_of_a_class_are_no_training_set(platform: Platform) -> None:
    sent = serve(platform, toy_rows(N_ROWS).assign(true_label=0))
    tick(platform, sent.last_at + SECOND)
    decision = decide(platform, Trigger.MANUAL, sent.last_at + HOUR)
    with pytest.raises(InvalidDataError, match="only 0 of one class"):
        gather_training_set(platform, decision, None)


# Probation


@pytest.fixture
def worse(platform: Platform) -> ShadowModel:
    """Version 2, registered and not in production: it predicts the opposite of what is true."""
    shadow = log_worse_model(platform)
    staged = stage(platform, shadow, passed(platform, shadow).decision, T0)
    assert (staged.version, staged.stage) == (2, Stage.STAGING)
    return shadow


def test_a_worse_version_is_rolled_back_once_by_its_probation(platform: Platform, worse: ShadowModel) -> None:
    forced_at = T0 + HOUR
    force_promote(platform, 2, reason="a person's word", actor="ada", now=forced_at)
    assert watch_probation(platform, forced_at).reason.startswith("0 labels so far")

    sent = serve(platform, toy_rows(150), start=forced_at + SECOND)
    early = watch_probation(platform, sent.last_at + HOUR)
    assert (early.n_labels, early.is_harmful) == (150, False), "too few labels to tell"
    assert models.champion(platform.store).version == 2

    sent = serve(platform, toy_rows(150, seed=2), start=sent.last_at + SECOND)
    report = watch_probation(platform, sent.last_at + HOUR)
    assert (report.version, report.n_labels, report.is_harmful) == (2, 300, True)
    assert models.champion(platform.store).version == 1
    assert platform.registry.alias_version(PRODUCTION_ALIAS) == 1

    for hour in range(2, 4):
        assert not watch_probation(platform, sent.last_at + hour * HOUR).is_harmful
    (recorded,) = decisions.recent(platform.store, actions=[Action.ROLLBACK])
    assert (recorded.actor, recorded.trigger_reason, recorded.reason) == ("probation", "probation", report.reason)
    assert models.champion(platform.store).version == 1


def test_after_its_probation_a_version_is_not_rolled_back(platform: Platform, worse: ShadowModel) -> None:
    force_promote(platform, 2, reason="a person's word", actor="ada", now=T0 + HOUR)
    serve(platform, toy_rows(300), start=T0 + HOUR + SECOND)
    end = T0 + HOUR + timedelta(hours=platform.settings.probation_hours)
    report = watch_probation(platform, end)
    assert (report.is_on_probation, report.is_harmful) == (False, False)
    assert models.champion(platform.store).version == 2


def test_rows_served_by_the_old_version_do_not_count_in_probation(platform: Platform, worse: ShadowModel) -> None:
    old = models.champion(platform.store)
    force_promote(platform, 2, reason="a person's word", actor="ada", now=T0 + HOUR)
    serve(platform, toy_rows(300), start=T0 + HOUR + SECOND, version=old)  # an API that had not swapped yet
    assert watch_probation(platform, T0 + 2 * HOUR).n_labels == 0
