"""From verdict to production and back: one winner, nothing half done, everything repeatable."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from functools import partial
from threading import Barrier

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError as DatabaseIntegrityError

from selfheal.decision_log import verify_decisions
from selfheal.errors import (
    IntegrityError,
    ModelRefusedError,
    NoProductionModelError,
    PermanentError,
    PromotionConflictError,
)
from selfheal.platform import Platform, open_platform
from selfheal.promotion import force_promote, promote, reconcile_registry, rollback, stage
from selfheal.records import Action, Decision, GateVerdict, ModelVersion, ShadowModel, Stage
from selfheal.registry import PRODUCTION_ALIAS, STAGE_TAG, STAGING_ALIAS
from selfheal.settings import Settings
from selfheal.store import decisions, models, open_store
from tests import builders
from tests.at_once import at_once
from tests.candidates import champion, mlflow_client, passed, twin_of_champion
from tests.times import T0
from tests.toy_use_case import contract

LATER = T0 + timedelta(hours=1)
MUCH_LATER = T0 + timedelta(hours=2)


def promote_twin(platform: Platform) -> ModelVersion:
    return promote(platform, passed(platform, twin_of_champion(platform)), LATER)


def stages(platform: Platform) -> dict[int, Stage]:
    return {version.version: version.stage for version in models.list_versions(platform.store)}


def everything(platform: Platform) -> tuple[list[ModelVersion], list[Decision], int | None, int | None]:
    """All that a promotion may change."""
    return (
        models.list_versions(platform.store),
        decisions.recent(platform.store),
        platform.registry.alias_version(PRODUCTION_ALIAS),
        platform.registry.alias_version(STAGING_ALIAS),
    )


def stage_tag(platform: Platform, version: int) -> str:
    tags: dict[str, str] = mlflow_client(platform).get_model_version(platform.contract.name, str(version)).tags
    return tags[STAGE_TAG]


def register(platform: Platform, number: int) -> None:
    """A version in Postgres alone: enough for the rules of the table."""
    version = builders.model_version(version=number, stage=Stage.STAGING, promoted_at=None, mlflow_run_id=f"r{number}")
    models.register_staging(platform.store, version)


# Promotion


def test_a_promoted_version_replaces_and_archives_its_predecessor(platform: Platform) -> None:
    promoted = promote_twin(platform)
    assert (promoted.version, promoted.stage, promoted.previous_version) == (2, Stage.PRODUCTION, 1)
    assert promoted.promoted_at == LATER
    assert promoted.probation_until == LATER + timedelta(hours=platform.settings.probation_hours)
    replaced = models.model_version(platform.store, 1)
    assert replaced is not None
    assert (replaced.stage, replaced.archived_at) == (Stage.ARCHIVED, LATER)
    assert platform.registry.alias_version(PRODUCTION_ALIAS) == 2
    assert platform.registry.alias_version(STAGING_ALIAS) is None
    assert (stage_tag(platform, 1), stage_tag(platform, 2)) == ("Archived", "Production")


def test_the_first_version_has_no_probation_since_there_is_nothing_to_go_back_to(platform: Platform) -> None:
    assert champion(platform).probation_until is None


def test_promoting_twice_changes_nothing(platform: Platform) -> None:
    verdict = passed(platform, twin_of_champion(platform))
    first = promote(platform, verdict, LATER)
    before = everything(platform)
    assert promote(platform, verdict, MUCH_LATER) == first
    assert everything(platform) == before


@pytest.mark.parametrize("crash_in", ["validate", "models.move_to_production", "reconcile_registry"])
def test_a_promotion_that_crashed_anywhere_is_finished_by_the_next_try(
    platform: Platform, monkeypatch: pytest.MonkeyPatch, crash_in: str
) -> None:
    def crash(*_: object) -> None:
        raise ConnectionError("the machine is gone")

    verdict = passed(platform, twin_of_champion(platform))
    with monkeypatch.context() as patched, pytest.raises(ConnectionError):
        patched.setattr(f"selfheal.promotion.{crash_in}", crash)
        promote(platform, verdict, LATER)
    promote(platform, verdict, LATER)
    assert stages(platform) == {1: Stage.ARCHIVED, 2: Stage.PRODUCTION}
    assert platform.registry.alias_version(PRODUCTION_ALIAS) == 2
    assert [one.action for one in decisions.recent(platform.store)].count(Action.PROMOTE) == 2, "bootstrap and this one"


def test_of_two_promotions_that_expect_the_same_predecessor_one_wins(platform: Platform) -> None:
    first, second = (passed(platform, twin_of_champion(platform)) for _ in range(2))
    winner = promote(platform, first, LATER)
    with pytest.raises(PromotionConflictError, match=r"was to replace version 1, but version 2 is in production"):
        promote(platform, second, LATER)
    assert champion(platform) == winner
    assert stages(platform) == {1: Stage.ARCHIVED, 2: Stage.PRODUCTION, 3: Stage.STAGING}
    assert platform.registry.alias_version(PRODUCTION_ALIAS) == 2


def test_of_promotions_in_several_threads_one_wins(platform: Platform) -> None:
    def try_to_promote(verdict: GateVerdict) -> int | None:
        try:
            return promote(platform, verdict, LATER).version
        except PromotionConflictError:
            return None

    verdicts = [passed(platform, twin_of_champion(platform)) for _ in range(3)]
    winners = [winner for winner in at_once([partial(try_to_promote, one) for one in verdicts]) if winner]
    live = champion(platform)
    assert winners == [live.version]
    assert live.previous_version == 1
    assert platform.registry.alias_version(PRODUCTION_ALIAS) == live.version
    assert list(stages(platform).values()).count(Stage.STAGING) == 2


def _go_live_in_a_process(settings: Settings, version: int, start: Barrier) -> str:
    store = open_store(settings, contract)
    start.wait(60)
    try:
        models.move_to_production(store, version, 1, LATER, None)
    except PromotionConflictError:
        return "conflict"
    finally:
        store.close()
    return "live"


def test_of_versions_that_go_live_in_several_processes_one_wins(platform: Platform) -> None:
    for number in (2, 3):
        register(platform, number)
    context = multiprocessing.get_context("spawn")
    with context.Manager() as manager, context.Pool(2) as pool:
        start = manager.Barrier(2)
        calls = [(platform.settings, number, start) for number in (2, 3)]
        assert sorted(pool.starmap(_go_live_in_a_process, calls, chunksize=1)) == ["conflict", "live"]
    assert list(stages(platform).values()).count(Stage.PRODUCTION) == 1
    assert champion(platform).previous_version == 1


def test_the_database_refuses_two_production_versions(platform: Platform) -> None:
    register(platform, 2)
    statement = text("UPDATE model_metadata SET stage = 'Production' WHERE version = 2")
    with (
        pytest.raises(DatabaseIntegrityError, match="model_metadata_one_production"),
        platform.store.engine.begin() as connection,
    ):
        connection.execute(statement)


def test_a_version_that_is_not_registered_leaves_production_as_it_is(platform: Platform) -> None:
    before = champion(platform)
    with pytest.raises(PermanentError, match="version 99 is not registered; version 1 stays in production"):
        models.move_to_production(platform.store, 99, 1, LATER, None)
    assert champion(platform) == before


def test_a_verdict_that_is_no_promotion_registers_nothing(platform: Platform) -> None:
    verdict = passed(platform, twin_of_champion(platform))
    rejected = replace(verdict, decision=replace(verdict.decision, action=Action.REJECT))
    before = everything(platform)
    with pytest.raises(PermanentError, match="is reject, not a promotion"):
        promote(platform, rejected, LATER)
    assert everything(platform) == before


# Validation


def assert_refused(platform: Platform, shadow: ShadowModel, error: type[Exception], match: str) -> None:
    before = champion(platform)
    with pytest.raises(error, match=match):
        promote(platform, passed(platform, shadow), LATER)
    assert champion(platform) == before
    assert platform.registry.alias_version(PRODUCTION_ALIAS) == before.version


def test_a_model_file_that_changed_since_training_is_not_promoted(platform: Platform) -> None:
    shadow = replace(twin_of_champion(platform), artifact_sha256="0" * 64)
    assert_refused(platform, shadow, IntegrityError, "model.skops has changed: expected sha256 000")


def test_a_model_of_another_contract_is_not_promoted(platform: Platform) -> None:
    shadow = replace(twin_of_champion(platform), contract_hash="f" * 64)
    assert_refused(platform, shadow, ModelRefusedError, "trained under contract ffffffffffff")


def test_a_model_that_scores_otherwise_than_in_training_is_not_promoted(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    frame = platform.registry.reference(champion(platform))
    frame.loc[frame.index[-1], "probability"] += 1e-6
    monkeypatch.setattr(platform.registry, "reference", lambda _: frame)
    shadow = replace(twin_of_champion(platform))
    assert_refused(platform, shadow, ModelRefusedError, r"scores differently from training \(by up to 1e-06\)")


def test_a_model_whose_scores_are_not_numbers_is_not_promoted(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    frame = platform.registry.reference(champion(platform))
    frame.loc[frame.index[-1], "load_ratio"] = float("inf")
    shadow = twin_of_champion(platform)
    pipeline = platform.registry.load(shadow)
    monkeypatch.setattr(pipeline, "predict_proba", lambda rows: rows[:, :2] * float("nan"))
    monkeypatch.setattr(platform.registry, "load", lambda _: pipeline)
    assert_refused(platform, shadow, ModelRefusedError, "probabilities that are not numbers")


# Rollback and force


def test_a_rollback_puts_the_predecessor_back_and_is_recorded(platform: Platform) -> None:
    promote_twin(platform)
    live = rollback(platform, to_version=None, reason="customers complain", actor="ada", now=MUCH_LATER)
    assert (live.version, live.stage, live.previous_version) == (1, Stage.PRODUCTION, 2)
    assert live.probation_until is None, "the old version is known; nobody watches it"
    assert stages(platform) == {1: Stage.PRODUCTION, 2: Stage.ARCHIVED}
    assert platform.registry.alias_version(PRODUCTION_ALIAS) == 1
    assert (stage_tag(platform, 1), stage_tag(platform, 2)) == ("Production", "Archived")
    (recorded,) = decisions.recent(platform.store, actions=[Action.ROLLBACK])
    assert (recorded.champion_version, recorded.challenger_version) == (2, 1)
    assert (recorded.reason, recorded.actor, recorded.trigger_reason) == ("customers complain", "ada", "manual")
    assert recorded.model_sha256 == live.artifact_sha256


def test_a_forced_promotion_is_recorded_and_goes_on_probation(platform: Platform) -> None:
    promote_twin(platform)
    live = force_promote(platform, 1, reason="the auditor wants it", actor="ada", now=MUCH_LATER)
    assert (live.version, live.previous_version) == (1, 2)
    assert live.probation_until == MUCH_LATER + timedelta(hours=platform.settings.probation_hours)
    assert platform.registry.alias_version(PRODUCTION_ALIAS) == 1
    (recorded,) = decisions.recent(platform.store, actions=[Action.FORCE_PROMOTE])
    assert (recorded.champion_version, recorded.challenger_version, recorded.actor) == (2, 1, "ada")
    assert verify_decisions(platform.store, platform.settings.data_dir) == []


@pytest.mark.parametrize("target", [1, 7], ids=["itself", "unknown"])
def test_a_rollback_to_itself_or_to_an_unknown_version_says_which_there_are(platform: Platform, target: int) -> None:
    register(platform, 2)
    register(platform, 3)
    with pytest.raises(PermanentError, match=rf"no other version {target} to go to; there are: 3, 2"):
        rollback(platform, to_version=target, reason="", actor="ada", now=LATER)


def test_the_first_version_has_no_predecessor_to_roll_back_to(platform: Platform) -> None:
    with pytest.raises(PermanentError, match="version 1 replaced nothing; name a version with --to"):
        rollback(platform, to_version=None, reason="", actor="ada", now=LATER)
    assert champion(platform).version == 1


def test_nothing_can_be_rolled_back_before_the_bootstrap(empty_platform: Platform) -> None:
    with pytest.raises(NoProductionModelError, match="run `selfheal bootstrap` first"):
        rollback(empty_platform, to_version=None, reason="", actor="ada", now=LATER)


def test_a_model_that_no_longer_loads_is_not_rolled_back_to(platform: Platform) -> None:
    promote_twin(platform)
    with platform.store.engine.begin() as connection:
        connection.execute(text("UPDATE model_metadata SET artifact_sha256 = repeat('0', 64) WHERE version = 1"))
    with pytest.raises(IntegrityError):
        rollback(platform, to_version=1, reason="", actor="ada", now=MUCH_LATER)
    assert champion(platform).version == 2
    assert decisions.recent(platform.store, actions=[Action.ROLLBACK]) == []


def test_a_version_that_was_rolled_back_is_not_brought_back_by_its_old_verdict(platform: Platform) -> None:
    verdict = passed(platform, twin_of_champion(platform))
    promote(platform, verdict, LATER)
    rollback(platform, to_version=None, reason="worse", actor="probation", now=MUCH_LATER)
    with pytest.raises(PermanentError, match="version 2 was in production before and was replaced"):
        promote(platform, verdict, MUCH_LATER)
    assert champion(platform).version == 1


# The registry follows


def test_an_alias_that_strayed_is_set_right_and_reported(platform: Platform) -> None:
    promote_twin(platform)
    platform.registry.point_alias(PRODUCTION_ALIAS, 1)
    assert reconcile_registry(platform) == ["alias production pointed at 1, version 2 is in production"]
    assert platform.registry.alias_version(PRODUCTION_ALIAS) == 2
    assert reconcile_registry(platform) == []


def test_a_lost_alias_is_set_again(platform: Platform) -> None:
    platform.registry.drop_alias(PRODUCTION_ALIAS)
    assert reconcile_registry(platform) == ["alias production pointed at None, version 1 is in production"]
    assert platform.registry.alias_version(PRODUCTION_ALIAS) == 1


def test_there_is_nothing_to_set_right_before_the_bootstrap(empty_platform: Platform) -> None:
    assert reconcile_registry(empty_platform) == []


def test_a_staged_version_has_the_staging_alias_and_tag(platform: Platform) -> None:
    shadow = twin_of_champion(platform)
    staged = stage(platform, shadow, passed(platform, shadow).decision, LATER)
    assert (staged.version, staged.stage, staged.promoted_at) == (2, Stage.STAGING, None)
    assert platform.registry.alias_version(STAGING_ALIAS) == 2
    assert stage_tag(platform, 2) == "Staging"
    assert champion(platform).version == 1


def test_platforms_on_the_same_database_see_a_promotion_at_once(
    make_settings: Callable[..., Settings],
) -> None:
    settings = make_settings()
    first, second = open_platform(settings), open_platform(settings)
    promote_twin(first)
    assert champion(second).version == 2
    first.close()
    second.close()
