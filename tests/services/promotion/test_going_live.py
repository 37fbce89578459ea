"""From verdict to production and back: one winner, nothing half done, everything repeatable, and every failure told."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from functools import partial
from threading import Barrier

import pytest
from sqlalchemy import text

from selfheal.adapters.decision_log import verify_decisions
from selfheal.adapters.mlflow_registry import PRODUCTION_ALIAS, STAGING_ALIAS
from selfheal.adapters.mlflow_repairs import STAGE_TAG
from selfheal.adapters.postgres import alerts, decisions, model_versions, promotions
from selfheal.domain.records import Action, Decision, GateVerdict, ModelVersion, Stage
from selfheal.kit.errors import (
    IntegrityError,
    ModelRefusedError,
    NoProductionModelError,
    PermanentError,
    PromotionConflictError,
    UnknownVersionError,
)
from selfheal.services.platform import Platform, open_platform
from selfheal.services.promotion.going_live import (
    MAX_REASON_CHARACTERS,
    PROMOTION_STEPS,
    SWITCH_STEPS,
    force_promote,
    promote,
    rollback,
    stage,
)
from selfheal.settings import Settings
from tests.at_once import at_once
from tests.candidates import champion, log_model_without_scores, mlflow_client, passed, twin_of_champion
from tests.forked import forking
from tests.times import T0

LATER = T0 + timedelta(hours=1)
MUCH_LATER = T0 + timedelta(hours=2)


def promote_twin(platform: Platform) -> ModelVersion:
    return promote(platform, passed(platform, twin_of_champion(platform)), LATER)


def back(platform: Platform, to_version: int | None = None, **changes: str) -> ModelVersion:
    words = {"reason": "worse", "actor": "ada"} | changes
    return rollback(platform, to_version=to_version, now=MUCH_LATER, **words)


def force(platform: Platform, version: int, **changes: str) -> ModelVersion:
    words = {"reason": "the auditor wants it", "actor": "ada"} | changes
    return force_promote(platform, version, now=MUCH_LATER, **words)


def stages(platform: Platform) -> dict[int, Stage]:
    return {version.version: version.stage for version in model_versions.list_versions(platform.store)}


def decided(platform: Platform, action: Action) -> list[Decision]:
    return decisions.recent(platform.store, actions=[action])


def open_alerts(platform: Platform) -> list[tuple[str, str]]:
    return [(row.kind, row.severity) for row in alerts.list_alerts(platform.store, only_open=True)]


def everything(platform: Platform) -> tuple[object, ...]:
    """All that a promotion may change."""
    return (
        model_versions.list_versions(platform.store),
        decisions.recent(platform.store),
        promotions.list_promotions(platform.store),
        platform.registry.alias_version(PRODUCTION_ALIAS),
        platform.registry.alias_version(STAGING_ALIAS),
    )


def stage_tag(platform: Platform, version: int) -> str:
    tags: dict[str, str] = mlflow_client(platform).get_model_version(platform.contract.name, str(version)).tags
    return tags[STAGE_TAG]


# Promotion


def test_a_promoted_version_replaces_and_archives_its_predecessor(platform: Platform) -> None:
    promoted = promote_twin(platform)
    assert (promoted.version, promoted.stage, promoted.previous_version) == (2, Stage.PRODUCTION, 1)
    assert promoted.promoted_at == LATER
    assert promoted.probation_until == LATER + timedelta(hours=platform.settings.probation_hours)
    replaced = model_versions.model_version(platform.store, 1)
    assert replaced is not None
    assert (replaced.stage, replaced.archived_at) == (Stage.ARCHIVED, LATER)
    assert platform.registry.alias_version(PRODUCTION_ALIAS) == 2
    assert platform.registry.alias_version(STAGING_ALIAS) is None
    assert (stage_tag(platform, 1), stage_tag(platform, 2)) == ("Archived", "Production")


def test_what_went_live_is_written_down_with_its_decision(platform: Platform) -> None:
    promoted = promote_twin(platform)
    latest, first = promotions.list_promotions(platform.store)
    assert (latest.version, latest.replaced_version, latest.promoted_at) == (2, 1, LATER)
    assert latest.decision_id == promoted.decision_id == decided(platform, Action.PROMOTE)[0].decision_id
    assert (first.version, first.replaced_version, first.promoted_at) == (1, None, T0)


def test_the_first_version_has_no_probation_since_there_is_nothing_to_go_back_to(platform: Platform) -> None:
    assert champion(platform).probation_until is None


def test_promoting_twice_changes_nothing(platform: Platform) -> None:
    verdict = passed(platform, twin_of_champion(platform))
    first = promote(platform, verdict, LATER)
    before = everything(platform)
    assert promote(platform, verdict, MUCH_LATER) == first
    assert everything(platform) == before


def test_each_step_is_told_before_it_is_taken(platform: Platform) -> None:
    heard: list[str] = []
    promote(platform, passed(platform, twin_of_champion(platform)), LATER, on_step=heard.append)
    assert tuple(heard) == PROMOTION_STEPS
    heard.clear()
    rollback(platform, to_version=1, reason="worse", actor="ada", now=MUCH_LATER, on_step=heard.append)
    assert tuple(heard) == SWITCH_STEPS
    heard.clear()
    force_promote(platform, 2, reason="no, better", actor="ada", now=MUCH_LATER, on_step=heard.append)
    assert tuple(heard) == SWITCH_STEPS


def test_a_verdict_that_is_no_promotion_registers_nothing(platform: Platform) -> None:
    verdict = passed(platform, twin_of_champion(platform))
    rejected = replace(verdict, decision=replace(verdict.decision, action=Action.REJECT))
    before = everything(platform)
    with pytest.raises(PermanentError, match="is reject, not a promotion"):
        promote(platform, rejected, LATER)
    assert everything(platform) == before


def test_a_rejection_is_not_made_a_promotion_by_editing_the_verdict_between_two_steps(platform: Platform) -> None:
    verdict = passed(platform, twin_of_champion(platform))
    decisions.append(platform.store, replace(verdict.decision, action=Action.REJECT))
    with pytest.raises(PermanentError, match="is reject, not a promotion"):
        promote(platform, verdict, LATER)
    assert stages(platform) == {1: Stage.PRODUCTION}


def test_a_verdict_on_one_model_promotes_no_other(platform: Platform) -> None:
    verdict = passed(platform, twin_of_champion(platform))
    swapped = replace(verdict, shadow=twin_of_champion(platform))
    with pytest.raises(IntegrityError, match=f"is on the model of run {verdict.shadow.mlflow_run_id}, not of"):
        promote(platform, swapped, LATER)
    assert stages(platform) == {1: Stage.PRODUCTION}


def test_a_number_that_mlflow_gives_to_another_model_is_not_promoted(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when MLflow's database was restored from an older backup and ours was not."""
    promote_twin(platform)
    monkeypatch.setattr(platform.registry, "register", lambda _: 1)
    with pytest.raises(
        IntegrityError, match=r"version 1 is the model of run .* check that MLflow and Postgres belong together"
    ):
        promote(platform, passed(platform, twin_of_champion(platform)), MUCH_LATER)
    assert champion(platform).version == 2


def test_a_staged_version_has_the_staging_alias_and_tag(platform: Platform) -> None:
    shadow = twin_of_champion(platform)
    staged = stage(platform, shadow, passed(platform, shadow).decision, LATER)
    assert (staged.version, staged.stage, staged.promoted_at) == (2, Stage.STAGING, None)
    assert platform.registry.alias_version(STAGING_ALIAS) == 2
    assert stage_tag(platform, 2) == "Staging"
    assert champion(platform).version == 1


def test_one_run_that_several_register_at_once_is_one_version(platform: Platform) -> None:
    shadow = twin_of_champion(platform)
    decision = passed(platform, shadow).decision
    staged = at_once([partial(stage, platform, shadow, decision, LATER)] * 4)
    assert {version.version for version in staged} == {2}
    assert sorted(platform.registry.stage_tags()) == [1, 2]


def test_a_promotion_stands_although_mlflow_cannot_follow(
    platform: Platform, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def unreachable(*_: object) -> None:
        raise ConnectionError("MLflow is away")

    verdict = passed(platform, twin_of_champion(platform))
    with monkeypatch.context() as patched:
        patched.setattr("selfheal.services.promotion.registry_sync.reconcile_registry", unreachable)
        assert promote(platform, verdict, LATER).version == 2
    assert "MLflow is away" in caplog.text
    assert platform.registry.alias_version(PRODUCTION_ALIAS) == 1
    promote(platform, verdict, LATER)
    assert platform.registry.alias_version(PRODUCTION_ALIAS) == 2


def test_platforms_on_the_same_database_see_a_promotion_at_once(
    make_settings: Callable[..., Settings],
) -> None:
    settings = make_settings()
    first, second = open_platform(settings), open_platform(settings)
    promote_twin(first)
    assert champion(second).version == 2
    first.close()
    second.close()


# Several at once


def test_of_two_promotions_that_expect_the_same_predecessor_one_wins_and_the_other_is_told(platform: Platform) -> None:
    first, second = (passed(platform, twin_of_champion(platform)) for _ in range(2))
    winner = promote(platform, first, LATER)
    message = "version 3 was to replace version 1, but version 2 is in production"
    with pytest.raises(PromotionConflictError, match=message):
        promote(platform, second, LATER)
    assert champion(platform) == winner
    assert stages(platform) == {1: Stage.ARCHIVED, 2: Stage.PRODUCTION, 3: Stage.STAGING}
    assert platform.registry.alias_version(PRODUCTION_ALIAS) == 2
    (told,) = decided(platform, Action.SKIP)
    assert told.reason == f"version 3 was not put into production (promote): {message}"
    assert (told.champion_version, told.challenger_version) == (1, 3)
    assert told.mlflow_run_id == second.shadow.mlflow_run_id
    assert open_alerts(platform) == [], "a race is nobody's fault"


def test_a_race_that_is_lost_again_and_again_is_told_once_a_day(platform: Platform) -> None:
    first, second = (passed(platform, twin_of_champion(platform)) for _ in range(2))
    promote(platform, first, LATER)
    for hours in (0, 1, 2, 24):
        with pytest.raises(PromotionConflictError):
            promote(platform, second, LATER + timedelta(hours=hours))
    assert len(decided(platform, Action.SKIP)) == 2


def test_of_rollbacks_and_forced_promotions_at_once_one_happens_and_only_it_is_recorded(platform: Platform) -> None:
    promote_twin(platform)
    third = passed(platform, twin_of_champion(platform))
    stage(platform, third.shadow, third.decision, LATER)

    def attempt(switch: Callable[..., ModelVersion], actor: str) -> str | None:
        try:
            return switch(reason="now", actor=actor, now=MUCH_LATER, from_version=2).decision_id
        except PromotionConflictError:
            return None

    switches = (partial(rollback, platform, to_version=None), partial(force_promote, platform, 3))
    calls = [partial(attempt, switch, f"person {n}") for n, switch in enumerate(switches * 3)]
    (winner,) = [decision_id for decision_id in at_once(calls) if decision_id is not None]
    live = champion(platform)
    assert live.version in {1, 3}
    switched = decided(platform, Action.ROLLBACK) + decided(platform, Action.FORCE_PROMOTE)
    assert [one.decision_id for one in switched] == [winner] == [live.decision_id]
    assert platform.registry.alias_version(PRODUCTION_ALIAS) == live.version
    assert verify_decisions(platform.store, platform.settings.data_dir) == []


N_PROCESSES, N_THREADS = 5, 10


def _promote_in_threads(settings: Settings, verdicts: list[GateVerdict], start: Barrier) -> list[str]:
    """What became of each: `live`, or why not."""
    platform = open_platform(settings)
    start.wait(60)

    def attempt(verdict: GateVerdict) -> str:
        try:
            promote(platform, verdict, LATER)
        except PromotionConflictError as error:
            return str(error)
        return "live"

    try:
        return at_once([partial(attempt, verdict) for verdict in verdicts])
    finally:
        platform.close()


def test_of_fifty_promotions_from_several_processes_one_wins_and_the_rest_are_told_why(platform: Platform) -> None:
    from selfheal.adapters.mlflow_store import EXPERIMENT

    twin, client = twin_of_champion(platform), mlflow_client(platform)
    experiment = client.get_experiment_by_name(EXPERIMENT).experiment_id
    runs = [client.create_run(experiment).info.run_id for _ in range(N_PROCESSES * N_THREADS)]
    verdicts = [passed(platform, replace(twin, mlflow_run_id=run)) for run in runs]
    context = forking()
    with context.Manager() as manager, context.Pool(N_PROCESSES) as pool:
        start = manager.Barrier(N_PROCESSES)
        calls = [(platform.settings, verdicts[n::N_PROCESSES], start) for n in range(N_PROCESSES)]
        told = [answer for answers in pool.starmap(_promote_in_threads, calls, chunksize=1) for answer in answers]
    live = champion(platform)
    assert told.count("live") == 1
    assert all(f"but version {live.version} is in production" in answer for answer in told if answer != "live")
    found = list(stages(platform).values())
    assert (found.count(Stage.PRODUCTION), found.count(Stage.STAGING)) == (1, len(verdicts) - 1)
    assert platform.registry.alias_version(PRODUCTION_ALIAS) == live.version
    assert [one.version for one in promotions.list_promotions(platform.store)] == [live.version, 1]
    skipped = {decision.challenger_version for decision in decided(platform, Action.SKIP)}
    assert skipped == set(stages(platform)) - {1, live.version}
    assert verify_decisions(platform.store, platform.settings.data_dir) == []


# What must not be served


def test_a_model_that_gives_nan_is_refused_and_told_and_production_untouched(platform: Platform) -> None:
    verdict = passed(platform, log_model_without_scores(platform))
    with pytest.raises(ModelRefusedError, match="gives nan to nan as probabilities"):
        promote(platform, verdict, LATER)
    assert champion(platform).version == platform.registry.alias_version(PRODUCTION_ALIAS) == 1
    (told,) = decided(platform, Action.SKIP)
    assert told.reason.startswith("version 2 was not put into production (promote): it gives nan")
    assert open_alerts(platform) == [("promotion_refused", "warning")]
    assert alerts.list_alerts(platform.store)[0].message.endswith(". Version 1 remains in production.")
    with pytest.raises(ModelRefusedError):
        force(platform, 2)
    assert decided(platform, Action.FORCE_PROMOTE) == [], "no word of a person makes it answer"


def test_a_model_file_that_changed_since_training_is_refused_and_told(platform: Platform) -> None:
    shadow = replace(twin_of_champion(platform), artifact_sha256="0" * 64)
    with pytest.raises(IntegrityError, match="has changed: expected sha256 000"):
        promote(platform, passed(platform, shadow), LATER)
    assert champion(platform).version == platform.registry.alias_version(PRODUCTION_ALIAS) == 1
    assert open_alerts(platform) == [("promotion_refused", "warning")]


def test_the_alert_on_a_refusal_is_over_with_the_next_promotion(platform: Platform) -> None:
    with pytest.raises(ModelRefusedError):
        promote(platform, passed(platform, log_model_without_scores(platform)), LATER)
    promote_twin(platform)
    assert open_alerts(platform) == []


# Rollback and force


def test_a_rollback_puts_the_predecessor_back_and_is_recorded(platform: Platform) -> None:
    promote_twin(platform)
    live = back(platform, reason="customers complain")
    assert (live.version, live.stage, live.previous_version) == (1, Stage.PRODUCTION, 2)
    assert live.probation_until is None, "the old version is known; nobody watches it"
    assert stages(platform) == {1: Stage.PRODUCTION, 2: Stage.ARCHIVED}
    assert platform.registry.alias_version(PRODUCTION_ALIAS) == 1
    assert (stage_tag(platform, 1), stage_tag(platform, 2)) == ("Production", "Archived")
    (recorded,) = decided(platform, Action.ROLLBACK)
    assert (recorded.champion_version, recorded.challenger_version) == (2, 1)
    assert (recorded.reason, recorded.actor, recorded.trigger_reason) == ("customers complain", "ada", "manual")
    assert recorded.model_sha256 == live.artifact_sha256


def test_a_version_that_came_back_names_what_brought_it_back(platform: Platform) -> None:
    promote_twin(platform)
    live = back(platform)
    assert live.promoted_at == MUCH_LATER
    (recorded,) = decided(platform, Action.ROLLBACK)
    assert live.decision_id == recorded.decision_id == promotions.list_promotions(platform.store)[0].decision_id


def test_a_forced_promotion_is_recorded_and_goes_on_probation(platform: Platform) -> None:
    promote_twin(platform)
    live = force(platform, 1)
    assert (live.version, live.previous_version) == (1, 2)
    assert live.probation_until == MUCH_LATER + timedelta(hours=platform.settings.probation_hours)
    assert platform.registry.alias_version(PRODUCTION_ALIAS) == 1
    (recorded,) = decided(platform, Action.FORCE_PROMOTE)
    assert (recorded.champion_version, recorded.challenger_version, recorded.actor) == (2, 1, "ada")
    assert verify_decisions(platform.store, platform.settings.data_dir) == []


def test_a_second_rollback_goes_further_back_and_never_to_what_was_rolled_back(platform: Platform) -> None:
    promote_twin(platform)
    promote_twin(platform)
    assert back(platform).version == 2
    assert back(platform, reason="that one too").version == 1
    with pytest.raises(PermanentError, match="version 1 replaced nothing; name the version to go back to"):
        back(platform)
    assert champion(platform).version == 1


def test_what_was_rolled_back_comes_back_by_force_only(platform: Platform) -> None:
    promote_twin(platform)
    back(platform)
    with pytest.raises(
        PermanentError, match="version 2 was rolled back itself; name another one, or promote it by force"
    ):
        back(platform, to_version=2)
    live = force(platform, 2)
    assert live.version == 2
    assert live.probation_until is not None
    assert back(platform, reason="worse again").version == 1


def test_a_rollback_to_a_version_that_was_never_live_is_refused(platform: Platform) -> None:
    promote_twin(platform)
    shadow = twin_of_champion(platform)
    stage(platform, shadow, passed(platform, shadow).decision, LATER)
    with pytest.raises(PermanentError, match="version 3 was never in production"):
        back(platform, to_version=3)


@pytest.mark.parametrize("switch", [back, force])
def test_an_unknown_version_is_told_with_those_that_there_are(
    platform: Platform, switch: Callable[[Platform, int], ModelVersion]
) -> None:
    promote_twin(platform)
    with pytest.raises(UnknownVersionError, match="there is no version 7; the registered versions are 2, 1"):
        switch(platform, 7)
    with pytest.raises(PermanentError, match="version 2 is in production already"):
        switch(platform, 2)


@pytest.mark.parametrize("reason", ["", "  ", "x" * (MAX_REASON_CHARACTERS + 1)], ids=["empty", "blank", "endless"])
@pytest.mark.parametrize("switch", [back, force])
def test_a_switch_by_hand_needs_a_reason(platform: Platform, switch: Callable[..., ModelVersion], reason: str) -> None:
    promote_twin(platform)
    with pytest.raises(PermanentError, match="a reason of at most 1,000 characters is required"):
        switch(platform, 1, reason=reason)
    assert champion(platform).version == 2


def test_the_first_version_has_no_predecessor_to_roll_back_to(platform: Platform) -> None:
    with pytest.raises(PermanentError, match="version 1 replaced nothing"):
        back(platform)
    assert champion(platform).version == 1


def test_nothing_can_be_rolled_back_before_the_bootstrap(empty_platform: Platform) -> None:
    with pytest.raises(NoProductionModelError, match="run `selfheal bootstrap` first"):
        back(empty_platform)


def test_a_rollback_of_a_version_that_is_not_in_production_any_more_changes_nothing(platform: Platform) -> None:
    promote_twin(platform)
    promote_twin(platform)
    before = everything(platform)
    with pytest.raises(PromotionConflictError, match="version 2 was expected in production, but version 3 is"):
        rollback(platform, to_version=None, from_version=2, reason="worse", actor="probation", now=MUCH_LATER)
    assert everything(platform) == before


def test_a_model_that_no_longer_loads_is_not_rolled_back_to_and_somebody_is_told(platform: Platform) -> None:
    promote_twin(platform)
    with platform.store.engine.begin() as connection:
        connection.execute(text("UPDATE model_metadata SET artifact_sha256 = repeat('0', 64) WHERE version = 1"))
    with pytest.raises(IntegrityError):
        back(platform, to_version=1)
    assert champion(platform).version == 2
    assert decided(platform, Action.ROLLBACK) == []
    assert open_alerts(platform) == [("promotion_refused", "critical")]


def test_a_version_that_was_rolled_back_is_not_brought_back_by_its_old_verdict(platform: Platform) -> None:
    verdict = passed(platform, twin_of_champion(platform))
    promote(platform, verdict, LATER)
    back(platform, actor="probation")
    with pytest.raises(PermanentError, match="version 2 was in production before and was replaced"):
        promote(platform, verdict, MUCH_LATER)
    assert champion(platform).version == 1
