"""By hand in Dagster: promotion and rollback as jobs, and a registry that is looked after while nothing else runs."""

from __future__ import annotations

from typing import Any

import dagster as dg
import pytest

from selfheal.adapters.mlflow_registry import PRODUCTION_ALIAS
from selfheal.adapters.postgres import decisions, model_versions
from selfheal.domain.records import Action
from tests.candidates import passed, put_live, twin_of_champion
from tests.selfheal_assets.conftest import Dagster
from tests.selfheal_assets.sensors.test_sensors import evaluate, skip_message
from tests.times import T0

pytestmark = pytest.mark.integration

WORD = {"reason": "the auditor wants it", "actor": "ada"}


@pytest.fixture
def two(dagster: Dagster) -> Dagster:
    """Version 1 in production, version 2 staged."""
    from selfheal.services.promotion.going_live import stage

    verdict = passed(dagster.platform, twin_of_champion(dagster.platform))
    stage(dagster.platform, verdict.shadow, verdict.decision, T0)
    return dagster


def switch(dagster: Dagster, job: str, op: str, **config: Any) -> dg.ExecuteInProcessResult:
    return dagster.run(job, {"ops": {op: {"config": config}}})


def test_a_version_is_promoted_and_rolled_back_with_actor_and_reason(two: Dagster) -> None:
    assert switch(two, "promote_job", "put_into_production", version=2, **WORD).success
    store = two.platform.store
    assert model_versions.champion(store).version == two.platform.registry.alias_version(PRODUCTION_ALIAS) == 2
    result = switch(two, "rollback_job", "put_back", from_version=2, **WORD)
    assert result.success
    assert model_versions.champion(store).version == two.platform.registry.alias_version(PRODUCTION_ALIAS) == 1
    back, forth = decisions.recent(store, 2)
    assert [(one.action, one.actor, one.reason) for one in (forth, back)] == [
        (Action.FORCE_PROMOTE, "ada", WORD["reason"]),
        (Action.ROLLBACK, "ada", WORD["reason"]),
    ]


def test_a_rollback_from_a_version_that_is_not_live_is_a_red_run_and_changes_nothing(two: Dagster) -> None:
    result = switch(two, "rollback_job", "put_back", from_version=2, **WORD)
    assert not result.success
    assert model_versions.champion(two.platform.store).version == 1


def test_the_sensor_sets_the_registry_right_while_no_traffic_comes(two: Dagster) -> None:
    assert skip_message(evaluate(two, "registry_sensor")).startswith("MLflow follows Postgres.")
    put_live(two.platform.store, 2, 1, T0)
    assert "alias production pointed at version 1 although version 2 is in production" in skip_message(
        evaluate(two, "registry_sensor")
    )
    assert two.platform.registry.alias_version(PRODUCTION_ALIAS) == 2
    assert skip_message(evaluate(two, "registry_sensor")).startswith("MLflow follows Postgres.")


def test_the_check_finds_a_moved_alias_and_sets_it_right(two: Dagster) -> None:
    two.platform.registry.point_alias(PRODUCTION_ALIAS, 2)
    job = two.definitions.resolve_implicit_global_asset_job_def()
    key = dg.AssetCheckKey(dg.AssetKey("production_model"), "alias_follows_postgres")
    outcomes = []
    for _ in range(2):
        result = job.get_subset(asset_check_selection={key}, asset_selection=set()).execute_in_process(
            instance=two.instance
        )
        (evaluation,) = result.get_asset_check_evaluations()
        outcomes.append(evaluation.passed)
    assert outcomes == [False, True]
    assert two.platform.registry.alias_version(PRODUCTION_ALIAS) == 1
