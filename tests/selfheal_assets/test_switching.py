"""By hand in Dagster: promotion and rollback as jobs, reported on the pages of the versions."""

from __future__ import annotations

from datetime import timedelta

import dagster as dg
import pytest

from selfheal.adapters.mlflow_registry import PRODUCTION_ALIAS
from selfheal.adapters.postgres import decisions, model_versions
from selfheal.domain.records import Action
from selfheal_assets.jobs import ForcedPromotion, Rollback
from tests.candidates import passed, twin_of_champion
from tests.selfheal_assets.conftest import Dagster, metadata_of
from tests.selfheal_assets.sensors.evaluating import evaluate
from tests.times import T0

pytestmark = pytest.mark.integration

WORD: dict[str, str] = {"reason": "the auditor wants it", "actor": "ada"}


@pytest.fixture
def two(dagster: Dagster) -> Dagster:
    """Version 1 in production, version 2 staged."""
    from selfheal.services.promotion.going_live import stage

    verdict = passed(dagster.platform, twin_of_champion(dagster.platform))
    stage(dagster.platform, verdict.shadow, verdict.decision, T0)
    return dagster


def op(name: str, config: dg.Config) -> dg.RunConfig:
    return dg.RunConfig(ops={name: config})


def test_a_version_is_promoted_and_rolled_back_with_actor_and_reason(two: Dagster) -> None:
    result = two.run("promote_job", op("put_into_production", ForcedPromotion(version=2, **WORD)))
    assert result.success
    assert metadata_of(result, "production_model")["version"] == 2
    store = two.platform.store
    assert model_versions.champion(store).version == two.platform.registry.alias_version(PRODUCTION_ALIAS) == 2
    result = two.run("rollback_job", op("put_back", Rollback(from_version=2, **WORD)))
    assert result.success
    assert metadata_of(result, "production_model")["replaced_version"] == 2
    assert two.instance.get_materialized_partitions(dg.AssetKey("production_model")) == {"1", "2"}
    assert model_versions.champion(store).version == two.platform.registry.alias_version(PRODUCTION_ALIAS) == 1
    back, forth = decisions.recent(store, 2)
    assert [(one.action, one.actor, one.reason) for one in (forth, back)] == [
        (Action.FORCE_PROMOTE, "ada", WORD["reason"]),
        (Action.ROLLBACK, "ada", WORD["reason"]),
    ]


def test_a_rollback_from_a_version_that_is_not_live_is_a_red_run_and_changes_nothing(two: Dagster) -> None:
    result = two.run("rollback_job", op("put_back", Rollback(from_version=2, **WORD)))
    assert not result.success
    assert model_versions.champion(two.platform.store).version == 1


def test_a_rollback_succeeds_while_mlflow_is_away_and_is_reported_afterwards(two: Dagster) -> None:
    assert two.run("promote_job", op("put_into_production", ForcedPromotion(version=2, **WORD))).success

    def away(*_: object) -> None:
        raise ConnectionError("no answer")

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("selfheal.adapters.mlflow_registry.Registry._client", away)
        result = two.run("rollback_job", op("put_back", Rollback(from_version=2, **WORD)))
    assert result.success
    assert model_versions.champion(two.platform.store).version == 1
    assert result.get_asset_materialization_events() == []

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("selfheal_assets.sensors.registry.REPORTED_BY_ITS_RUN", timedelta(0))
        reported = evaluate(two, "registry_sensor")
    assert isinstance(reported, dg.SensorResult)
    events = [event for event in reported.asset_events if isinstance(event, dg.AssetMaterialization)]
    assert [(event.partition, event.metadata["replaced_version"].value) for event in events][-1] == ("1", 2)
