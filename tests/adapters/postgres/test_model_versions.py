"""Going live: one transaction, once a decision, and only over the predecessor that was expected."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from functools import partial
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError as DatabaseIntegrityError

from selfheal.adapters.postgres import decisions, model_versions, promotions
from selfheal.adapters.postgres.store import Store
from selfheal.domain.records import Action, Decision, Stage
from selfheal.kit.errors import NoProductionModelError, PromotionConflictError, UnknownVersionError
from tests import builders
from tests.at_once import at_once
from tests.times import T0

LATER = T0 + timedelta(hours=1)


@pytest.fixture
def three(store: Store) -> Store:
    """Version 1 in production, 2 and 3 staged."""
    for number in (1, 2, 3):
        version = builders.model_version(
            version=number, stage=Stage.STAGING, promoted_at=None, mlflow_run_id=f"run {number}"
        )
        model_versions.register_staging(store, version)
    go(store, 1, None)
    return store


def verdict(version: int, **changes: Any) -> Decision:
    values = {"decision_id": f"promote {version}", "action": Action.PROMOTE} | changes
    return builders.decision(**values)


def go(store: Store, version: int, replaces: int | None, decision: Decision | None = None) -> None:
    decided = decision or verdict(version)
    model_versions.go_live(store, version, replaces=replaces, decision=decided, now=LATER, probation_until=None)


def snapshot(store: Store) -> tuple[object, ...]:
    return model_versions.list_versions(store), decisions.recent(store), promotions.list_promotions(store)


def test_a_version_goes_live_with_its_decision_and_its_promotion(three: Store) -> None:
    go(three, 2, 1)
    live = model_versions.champion(three)
    assert (live.version, live.previous_version, live.decision_id) == (2, 1, "promote 2")
    assert decisions.find(three, "promote 2") is not None
    latest = promotions.list_promotions(three, 1)[0]
    assert (latest.version, latest.replaced_version, latest.decision_id) == (2, 1, "promote 2")


@pytest.mark.parametrize("step", model_versions.GO_LIVE_STEPS)
def test_a_failure_in_any_step_changes_nothing(three: Store, step: str) -> None:
    def fail(heard: str) -> None:
        if heard == step:
            raise ConnectionError(step)

    before = snapshot(three)
    with pytest.raises(ConnectionError):
        model_versions.go_live(three, 2, replaces=1, decision=verdict(2), now=LATER, probation_until=None, on_step=fail)
    assert snapshot(three) == before


def test_the_loser_of_a_race_leaves_no_decision(three: Store) -> None:
    go(three, 2, 1)
    before = snapshot(three)
    with pytest.raises(
        PromotionConflictError, match="version 3 was to replace version 1, but version 2 is in production"
    ):
        go(three, 3, 1)
    with pytest.raises(PromotionConflictError, match="was to replace nothing, but version 2 is"):
        go(three, 3, None)
    assert snapshot(three) == before


def test_a_decision_takes_effect_once(three: Store) -> None:
    go(three, 2, 1)
    before = snapshot(three)
    go(three, 2, 1)
    assert snapshot(three) == before
    with pytest.raises(PromotionConflictError, match="version 2 is in production already"):
        go(three, 2, 1, verdict(2, decision_id="another"))
    assert snapshot(three) == before


def test_a_verdict_brings_back_no_version_that_was_replaced_since(three: Store) -> None:
    """The predecessor is the same again, so comparing it alone would not tell."""
    go(three, 2, 1, verdict(2, decision_id="by force", action=Action.FORCE_PROMOTE))
    go(three, 1, 2, verdict(1, decision_id="back", action=Action.ROLLBACK))
    with pytest.raises(PromotionConflictError, match="version 2 was in production before and was replaced"):
        go(three, 2, 1)
    go(three, 2, 1, verdict(2, decision_id="by force again", action=Action.FORCE_PROMOTE))
    assert model_versions.champion(three).decision_id == "by force again"


def test_a_version_that_is_not_registered_leaves_production_as_it_is(three: Store) -> None:
    before = snapshot(three)
    with pytest.raises(UnknownVersionError, match="version 99 is not registered"):
        go(three, 99, 1)
    assert snapshot(three) == before


def test_of_many_at_once_one_goes_live(three: Store, open_again: Callable[[], Store]) -> None:
    def attempt(store: Store, version: int, number: int) -> bool:
        try:
            go(store, version, 1, verdict(version, decision_id=f"attempt {number}"))
        except PromotionConflictError:
            return False
        return True

    stores = [open_again() for _ in range(2)]
    calls = [partial(attempt, stores[number % 2], 2 + number // 2 % 2, number) for number in range(8)]
    assert sum(at_once(calls)) == 1
    assert len(promotions.list_promotions(three)) == 2
    assert [decision.decision_id.partition(" ")[0] for decision in decisions.recent(three)] == ["attempt", "promote"]


def test_the_database_refuses_two_production_versions(three: Store) -> None:
    statement = text("UPDATE model_metadata SET stage = 'Production' WHERE version = 2")
    with (
        pytest.raises(DatabaseIntegrityError, match="model_metadata_one_production"),
        three.engine.begin() as connection,
    ):
        connection.execute(statement)


def test_the_database_refuses_a_promotion_without_its_decision(three: Store) -> None:
    statement = text(
        "INSERT INTO promotions (model_name, version, decision_id, promoted_at) VALUES ('m', 2, 'none', now())"
    )
    with pytest.raises(DatabaseIntegrityError, match="foreign key"), three.engine.begin() as connection:
        connection.execute(statement)


def test_without_a_version_in_production_there_is_no_champion(store: Store) -> None:
    assert model_versions.production_version(store) is None
    with pytest.raises(NoProductionModelError, match="selfheal bootstrap"):
        model_versions.champion(store)
