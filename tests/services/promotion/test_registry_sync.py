"""What strays from Postgres is set right, and told where nobody should have touched it."""

from __future__ import annotations

from datetime import timedelta

import pytest

from selfheal.adapters.decision_log import decision_folder, verify_decisions
from selfheal.adapters.mlflow_registry import PRODUCTION_ALIAS, STAGING_ALIAS
from selfheal.adapters.postgres import decisions, model_versions
from selfheal.adapters.postgres.alerts import list_alerts
from selfheal.domain.records import Action, Stage
from selfheal.services.platform import Platform
from selfheal.services.promotion.registry_sync import (
    REGISTRY_OUT_OF_SYNC,
    SETTLING,
    project,
    reconcile_registry,
    watch_registry,
)
from tests import builders
from tests.candidates import champion, passed, put_live, twin_of_champion
from tests.times import T0

LATER = T0 + timedelta(hours=1)


@pytest.fixture
def two(platform: Platform) -> Platform:
    """Version 2 was promoted at `LATER`, by what Postgres says; MLflow knows nothing of it yet."""
    from selfheal.services.promotion.going_live import stage

    verdict = passed(platform, twin_of_champion(platform))
    stage(platform, verdict.shadow, verdict.decision, LATER)
    put_live(platform.store, 2, 1, LATER)
    return platform


def open_kinds(platform: Platform) -> list[str]:
    return [row.kind for row in list_alerts(platform.store, only_open=True)]


def test_everything_in_mlflow_follows_postgres(two: Platform) -> None:
    assert reconcile_registry(two) == [
        "alias production pointed at version 1 although version 2 is in production",
        "version 2 was tagged Staging although it is Production",
        "version 1 was tagged Production although it is Archived",
    ]
    assert two.registry.alias_version(PRODUCTION_ALIAS) == 2
    assert two.registry.alias_version(STAGING_ALIAS) is None
    assert two.registry.stage_tags() == {1: "Archived", 2: "Production"}
    assert reconcile_registry(two) == []


def test_a_lost_alias_is_set_again(platform: Platform) -> None:
    platform.registry.drop_alias(PRODUCTION_ALIAS)
    assert reconcile_registry(platform) == [
        "alias production pointed at no version although version 1 is in production"
    ]
    assert platform.registry.alias_version(PRODUCTION_ALIAS) == 1


def test_there_is_nothing_to_set_right_before_the_bootstrap(empty_platform: Platform) -> None:
    assert project(empty_platform) == []


def test_the_alias_of_a_version_that_still_waits_stays(platform: Platform) -> None:
    from selfheal.services.promotion.going_live import stage

    verdict = passed(platform, twin_of_champion(platform))
    stage(platform, verdict.shadow, verdict.decision, LATER)
    assert reconcile_registry(platform) == []
    assert platform.registry.alias_version(STAGING_ALIAS) == 2
    assert platform.registry.stage_tags()[2] == Stage.STAGING.value


def test_an_alias_that_somebody_moved_is_set_right_and_told_until_it_stays_right(two: Platform) -> None:
    project(two)
    two.registry.point_alias(PRODUCTION_ALIAS, 1)
    moved_at = LATER + SETTLING
    assert watch_registry(two, moved_at) == [
        "alias production pointed at version 1 although version 2 is in production"
    ]
    assert two.registry.alias_version(PRODUCTION_ALIAS) == 2
    (alert,) = list_alerts(two.store, only_open=True)
    assert (alert.kind, alert.severity, alert.source) == (REGISTRY_OUT_OF_SYNC, "warning", "registry")
    assert alert.message == (
        "MLflow was out of sync with Postgres and has been corrected: alias production pointed at version 1 although version 2 "
        "is in production. Someone may be editing aliases by hand."
    )
    assert watch_registry(two, moved_at + timedelta(minutes=1)) == []
    assert open_kinds(two) == []


def test_what_a_promotion_of_a_moment_ago_left_open_is_finished_and_no_alert(two: Platform) -> None:
    assert watch_registry(two, LATER + timedelta(seconds=30)) != []
    assert two.registry.alias_version(PRODUCTION_ALIAS) == champion(two).version == 2
    assert open_kinds(two) == []


def test_the_newest_decisions_get_the_files_that_a_crash_kept_them_from(platform: Platform) -> None:
    for number in range(15):
        decisions.append(platform.store, builders.decision(decision_id=f"d{number}", action=Action.SKIP))
    project(platform)
    problems = verify_decisions(platform.store, platform.settings.data_dir)
    assert sorted(problems) == sorted(f"decision d{number} has no JSON file" for number in range(5)), (
        "those are no accident"
    )
    written = {path.stem.rpartition("-")[2] for path in decision_folder(platform.settings.data_dir).glob("*.json")}
    assert {f"d{number}" for number in range(15)} & written == {f"d{number}" for number in range(5, 15)}


def test_a_decision_is_completed_by_the_next_one(platform: Platform) -> None:
    from selfheal.adapters.decision_log import record_decision

    decisions.append(platform.store, builders.decision(decision_id="crashed"))
    record_decision(platform.store, platform.settings.data_dir, builders.decision(decision_id="next"))
    assert verify_decisions(platform.store, platform.settings.data_dir) == []
    assert model_versions.production_version(platform.store) is not None
